"""Scoring one answer against the accepted ones."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence

from mmlens.errors import SampleError

Metric = Callable[[str, Sequence[str]], float]

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, punctuation removed, blanks collapsed.

    >>> normalised("  Two  Cats. ")
    'two cats'
    """
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the normalised prediction equals any accepted answer, else 0 (MMNeuron: RSVQA).

    >>> exact_match("Yes.", ["yes"]), exact_match("yes it is", ["yes"])
    (1.0, 0.0)
    """
    # An answer that is only a sign ("-", "+") stays that sign: an empty prediction is no match.
    said, *accepted = (normalised(text) or text.strip() for text in (prediction, *answers))
    return float(said in accepted)


METRICS: Mapping[str, Metric] = {"exact_match": exact_match}


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        SampleError: there is none.
    """
    if name not in METRICS:
        raise SampleError(f"There is no metric {name!r}; there are {', '.join(METRICS)}.")
    return METRICS[name]
