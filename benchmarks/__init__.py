"""Benchmarks: what the exchange and the hooks cost, against the bare Hugging Face model."""

from mmlens._torchvision import declare_missing_operators

# As in the scripts under experiments/.
declare_missing_operators()
