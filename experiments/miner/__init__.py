"""MINER (arXiv 2410.04819) from end to end: ``python -m experiments.miner``."""
