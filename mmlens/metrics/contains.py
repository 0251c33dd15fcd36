"""What MINER's code counts as right: an answer somewhere in the output, or the letter at its start.

All scores are 0 or 1. They go by the description of that code in methods 3.6.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from mmlens.errors import SampleError

#: MMLU has four options.
_OPTIONS = 4


def contains_answer(prediction: str, answers: Sequence[str]) -> float:
    """1 if any accepted answer is part of the lower-cased prediction, else 0 (TextVQA, MSVD-QA).

    This is what MINER's code computes (methods 3.6). The answers are taken as they are: one with a
    capital letter is never found, and one inside a longer word is ("cat" in "concatenate"). Long
    outputs score high here. Ours: an empty answer is never found, where the code would find it in
    everything.

    Raises:
        SampleError: every accepted answer is empty.

    >>> contains_answer("It says STOP.", ["stop", "halt"]), contains_answer("it is Paris", ["Paris"])
    (1.0, 0.0)
    """
    said = prediction.lower()
    return float(any(answer in said for answer in _not_empty(answers)))


def contains_class(prediction: str, answers: Sequence[str]) -> float:
    """1 if the class label is part of the prediction, else 0; case counts (VocalSound).

    This is what MINER's code computes (methods 3.6). A prediction that lists every class is right.

    Args:
        prediction: what the model said.
        answers: the label; any of them where there are several.

    Raises:
        SampleError: there is no label, or only empty ones.

    >>> contains_class("I hear a Cough.", ["Cough"]), contains_class("a cough", ["Cough"])
    (1.0, 0.0)
    """
    return float(any(label in prediction for label in _not_empty(answers)))


def check_class(answers: Sequence[str], choices: Sequence[str]) -> None:
    """Refuse a label that is not written as one of the classes, where those are given.

    Raises:
        SampleError: no answer is among the choices, or all are empty.
    """
    labels = _not_empty(answers)
    if choices and not set(labels) & set(choices):
        raise SampleError(
            f"The label {labels[0]!r} is none of the classes {', '.join(map(repr, choices))}; case "
            "counts, so write it as they are written."
        )


def first_letter(prediction: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """1 if the prediction's first character is the right option's letter, else 0 (MMLU).

    This is what MINER's code computes (methods 3.6): ``(B)``, `` B`` and ``The answer is B`` score 0,
    "A dog" scores 1 where A is right. :func:`mmlens.metrics.options.option_letter` reads all these.

    Args:
        prediction: what the model said.
        answers: the right letter, a capital; the option's text may follow.
        choices: the options, of which only the number counts; four where none are given.

    Raises:
        SampleError: the first answer is not the letter of an option.

    >>> first_letter("B. focal", ["B"]), first_letter("(B)", ["B"])
    (1.0, 0.0)
    """
    return float(prediction[:1] == right_letter(answers, choices))


def right_letter(answers: Sequence[str], choices: Sequence[str] = ()) -> str:
    """The letter that the accepted answers begin with; errors as in :func:`first_letter`."""
    letters = string.ascii_uppercase[: len(choices) or _OPTIONS]
    if not answers or answers[0] not in tuple(letters):
        raise SampleError(
            f"The accepted answer {answers[0] if answers else ''!r} is not the letter of an option; "
            f"the metric 'first_letter' needs one of {', '.join(letters)} as the first answer."
        )
    return answers[0]


def _not_empty(answers: Sequence[str]) -> list[str]:
    found = [answer for answer in answers if answer]
    if not found:
        raise SampleError(
            "An empty text is part of every output; give an accepted answer that is not empty."
        )
    return found
