"""Scoring one answer against the accepted ones: each benchmark's own metric, and the paper code's.

``text``, ``contains``, ``options``, ``vqa``, ``edit_distance`` (short answers); ``caption_bleu`` and
``caption_cider`` (captions, by their ``words``); ``speech``; ``lingo_judge`` (a model judges).
``libraries`` imports what they need; ``scoring`` has all of them by name, for samples.
"""

from mmlens.metrics.scoring import check_scorable, scorer
from mmlens.metrics.text import exact_match

__all__ = ["check_scorable", "exact_match", "scorer"]
