"""The run folder and the estimate of what a run will take."""
