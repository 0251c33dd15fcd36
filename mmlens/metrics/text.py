"""Answers that must be the same text."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, punctuation removed, spaces collapsed.

    >>> normalised("  Two  Cats. ")
    'two cats'
    """
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the normalised prediction equals any accepted answer, else 0 (RSVQA).

    >>> exact_match("Yes.", ["yes"]), exact_match("yes it is", ["yes"])
    (1.0, 0.0)
    """
    # An answer that is only punctuation ("-", "+") stays as it is: an empty prediction is no match.
    said, *accepted = (normalised(text) or text.strip() for text in (prediction, *answers))
    return float(said in accepted)


def same_lowered(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is an accepted answer but for its case, else 0: MMNeuron's code for RSVQA.

    Spaces around it and a full stop count as errors there.

    >>> same_lowered("Yes", ["yes"]), same_lowered("Yes.", ["yes"])
    (1.0, 0.0)
    """
    return float(prediction.lower() in [answer.lower() for answer in answers])
