"""Plain mergeable numbers: activation statistics and top activations."""
