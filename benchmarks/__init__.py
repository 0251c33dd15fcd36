"""Benchmarks: what the exchange and the hooks cost, against the bare Hugging Face model."""
