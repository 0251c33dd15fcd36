"""From scores to neuron sets, and what is known of the sets: pure functions."""

from mmlens.neurons import union
from mmlens.selection.strategies import STRATEGIES, Strategy, select_neurons

__all__ = ["STRATEGIES", "Strategy", "select_neurons", "union"]
