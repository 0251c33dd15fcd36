"""From scores to neuron sets, and what is known of the sets: pure functions.

``strategies`` (importance to sets), ``methods`` (sets by entropy and by importance, at equal budget),
``recipe`` (how a set was selected), ``controls`` (random sets beside it), ``overlap``, ``stability``.
"""

from mmlens.neurons import union
from mmlens.selection.strategies import STRATEGIES, Strategy, select_neurons

__all__ = ["STRATEGIES", "Strategy", "select_neurons", "union"]
