"""The papers as scripts, and the training of the shipped demo models."""
