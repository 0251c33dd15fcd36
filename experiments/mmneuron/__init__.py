"""MMNeuron (arXiv 2406.11193) from end to end: ``python -m experiments.mmneuron``."""
