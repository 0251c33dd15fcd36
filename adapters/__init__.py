"""Adapters: one file per family of Hugging Face models, found by mmlens through entry points."""
