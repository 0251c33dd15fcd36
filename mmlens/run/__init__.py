"""A run: ``estimate`` (what it will take), ``folder`` (its manifest, stages and results)."""
