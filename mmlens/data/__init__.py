"""Samples and their media, before any model sees them."""
