"""Multiple choice: which option an answer names."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from mmlens.errors import SampleError
from mmlens.metrics.text import normalised

_NAMED = r"\b(?:answer|option|choice)\b(?:\s+(?:is|would be))?\s*(?:option\b|choice\b)?\s*[:\-]?\s*"


def chosen_option(prediction: str, choices: Sequence[str]) -> int | None:
    """The number of the option that an answer names, from 0; None where it names none, or several.

    The first of these that applies: the answer is one letter (``B``, ``(b)``, ``B.``); it is an
    option's text, alone or after its letter; it starts with a letter and a punctuation mark (``B: focal``,
    ``(B) focal``); it says so (``The answer is B``); it has one letter in brackets. "A" before a word
    is an article, not a letter.

    Raises:
        SampleError: there are no choices, or more than 26.

    >>> choices = ["diffuse", "focal", "none", "cannot be seen"]
    >>> chosen_option("(B)", choices), chosen_option("The answer is c.", choices)
    (1, 2)
    >>> chosen_option("A focal pattern", choices), chosen_option("focal", choices)
    (None, 1)
    """
    if not 0 < len(choices) <= 26:
        raise SampleError(f"{len(choices)} choices were given; give between 1 and 26.")
    letters = string.ascii_uppercase[: len(choices)]
    text = prediction.strip().strip("*\"'`").strip()
    any_letter = f"[{letters}{letters.lower()}]"
    if alone := re.fullmatch(rf"[(\[]?({any_letter})[)\].:,;]*", text):
        return letters.index(alone[1].upper())
    said = normalised(text)
    same = [
        i
        for i, (letter, choice) in enumerate(zip(letters.lower(), choices, strict=True))
        if said and said in (normalised(choice), f"{letter} {normalised(choice)}")
    ]
    if len(same) == 1:
        return same[0]
    # Several options in one answer choose none, in whichever form they come.
    if re.search(rf"\b[{letters}]\b\W+(?:and|or|&)\W+\b[{letters}]\b", text):
        return None
    start = rf"[(\[]({any_letter})[)\]]|([{letters}])(?:[).:,;]|\s*-\s|\s*\n)|({any_letter})[):]"
    if begun := re.match(start, text):
        return letters.index(next(filter(None, begun.groups())).upper())
    for form in (
        rf"{_NAMED}[(\[]?({any_letter})(?:[)\].:,;\n]|\s*$|\s+is\b)",
        rf"[(\[]({any_letter})[)\]]",
    ):
        flags = re.IGNORECASE if form.startswith(r"\b") else 0
        named = {found.upper() for found in re.findall(form, text, flags)}
        if len(named) == 1:
            return letters.index(named.pop())
        if named:
            return None
    return None


def right_option(answers: Sequence[str], choices: Sequence[str]) -> int:
    """The number of the option that the accepted answers mean, by its letter or its text.

    Raises:
        SampleError: they mean none of the options, or several.
    """
    # A letter decides: the text after it may look like another one ("Vitamin (C)").
    letters = string.ascii_uppercase[: len(choices)]
    named = [answer.strip() for answer in answers if answer.strip() in tuple(letters)]
    meant = {chosen_option(answer, choices) for answer in named[:1] or answers} - {None}
    if len(meant) != 1:
        raise SampleError(
            f"The accepted answers {', '.join(map(repr, answers)) or '(none)'} mean "
            f"{'several' if meant else 'none'} of the options {', '.join(map(repr, choices))}; "
            "give the letter or the text of one."
        )
    (number,) = meant
    assert number is not None
    return number


def option_letter(prediction: str, answers: Sequence[str], choices: Sequence[str]) -> float:
    """1 if the answer names the right option, else 0 (PMC-VQA).

    An answer that names no option scores 0; :func:`chosen_option` tells the two apart.

    Args:
        prediction: what the model said.
        answers: the right option's letter, its text, or both, the letter first.
        choices: the texts of the options, without their letters.

    Raises:
        SampleError: no choices, or the accepted answers are not among them.

    >>> option_letter("B: focal", ["B"], ["diffuse", "focal"]), option_letter("both", ["B"], ["x", "y"])
    (1.0, 0.0)
    """
    return float(chosen_option(prediction, choices) == right_option(answers, choices))
