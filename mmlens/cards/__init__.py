"""Neuron cards: what activates a neuron most, in place, on one page."""
