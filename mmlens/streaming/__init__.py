"""From samples to statistics in one pass, batch by batch."""
