"""The contract of a model family, and how adapters are found."""
