"""DocVQA's metric: how near an answer is, letter by letter, to the nearest accepted one."""

from __future__ import annotations

from collections.abc import Sequence

from mmlens.errors import SampleError


def anls(prediction: str, answers: Sequence[str], *, threshold: float = 0.5) -> float:
    """Normalised Levenshtein similarity to the nearest answer, 0 where too far away (DocVQA).

    With NL the edit distance over the length of the longer text, both lower-cased and their spaces
    collapsed: ``max over answers of (1 - NL if NL < threshold else 0)``. This is equation 1 of
    Scene Text VQA (arXiv 1905.13648), which DocVQA adopts, for one question; ANLS is its mean over
    questions. Only at exactly NL = 0.5 the organisers' server gives 0.5 where the equation gives 0.

    Raises:
        SampleError: there is no accepted answer.

    >>> anls("1O January", ["10 January", "January 10"])
    0.9
    >>> anls("February", ["10 January"])
    0.0
    """
    if not answers:
        raise SampleError("ANLS needs at least one accepted answer; none was given.")
    said = _spaced(prediction)
    return max(_similarity(said, _spaced(answer), threshold) for answer in answers)


def levenshtein_similarity(prediction: str, answers: Sequence[str]) -> float:
    """:func:`anls` without its threshold: ``max over answers of 1 - NL``.

    This is what MMNeuron's code computes for DocVQA and calls ANLS (it sets the threshold to 1).
    Wrong answers score above 0 here, so it is never below ANLS.

    >>> round(levenshtein_similarity("February", ["10 January"]), 3)
    0.4
    """
    return anls(prediction, answers, threshold=1.0)


def _similarity(one: str, other: str, threshold: float) -> float:
    longer = max(len(one), len(other))
    distance = edit_distance(one, other) / longer if longer else 0.0
    return 1.0 - distance if distance < threshold else 0.0


def edit_distance(one: str, other: str) -> int:
    """Insertions, deletions and replacements of letters that turn ``one`` into ``other``.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, against in enumerate(other, start=1):
            replaced = diagonal + (letter != against)
            diagonal = row[j]
            row[j] = min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def _spaced(text: str) -> str:
    return " ".join(text.lower().split())
