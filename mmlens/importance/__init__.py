"""MINER's importance scores: how much a neuron serves the tokens of a modality (methods 3.2, 3.3).

    scores = mmlens.importance.collect(model, samples)           # [dataset score group layer neuron]
    combined = scores.combine("paper", groups=scores.present())  # [group layer neuron]
    sets = mmlens.selection.select_neurons(combined, scores.present())

In the order of data: ``formulas`` (the readable reference), ``attention_weights`` and ``reduction`` (the
same, streamed), ``collect`` (the pass), ``scores`` (what it gives, on disk too), ``mined`` (what neurons
are selected from), ``convergence`` and ``correlation`` (studies of the scores).
"""

from mmlens.importance.collect import collect
from mmlens.importance.convergence import convergence
from mmlens.importance.formulas import SCORES, AttentionMode, min_max, token_set_scores
from mmlens.importance.scores import WEIGHTS, ImportanceScores, weight_vector

__all__ = [
    "SCORES",
    "WEIGHTS",
    "AttentionMode",
    "ImportanceScores",
    "collect",
    "convergence",
    "min_max",
    "token_set_scores",
    "weight_vector",
]
