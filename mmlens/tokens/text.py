"""Tokens as a reader sees them: one by one, with the spaces between them, with a value each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

#: Tokens of text shown on either side of the marked one.
_AROUND = 40


def token_text(tokenizer: Any, token: int) -> str:
    """A token as a reader sees it; a space in front of a word as an open box."""
    text = tokenizer.decode([token])
    raw = tokenizer.convert_ids_to_tokens(token)
    spaced = isinstance(raw, str) and raw[:1] in ("\u0120", "\u2581") and not text.startswith(" ")
    text = text or str(raw)
    return (" " + text if spaced else text).replace(" ", "\u2423").replace("\n", "\u21b5")


def spaced_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token, with the space before it that the tokenizer writes between the two."""
    alone = [token_text(tokenizer, one).replace("\u2423", " ") for one in ids]
    texts = alone[:1]
    for i in range(1, len(ids)):
        pair = tokenizer.decode([ids[i - 1], ids[i]])
        spaced = " " in pair.strip() and pair.endswith(" " + alone[i])
        texts.append(" " + alone[i] if spaced else alone[i])
    return texts


def prompt_tokens(
    tokenizer: Any,
    ids: Sequence[int],
    values: Float[Tensor, " pos"],
    position: int,
    placeholders: Mapping[int, str],
) -> tuple[tuple[str, float, bool], ...]:
    """The text of a prompt with a neuron's activation on each token.

    Args:
        tokenizer: whose tokens they are.
        ids: of the prompt's tokens.
        values: of the neuron.
        position: the token that is marked.
        placeholders: id of a medium's placeholder -> the one word that all of them become, without a
            value.

    Returns:
        (text, activation, whether it is marked) of the marked token and 40 on either side.
    """
    found: list[tuple[str, float, bool]] = []
    marked = 0
    for i, (text, token) in enumerate(zip(spaced_texts(tokenizer, ids), ids, strict=True)):
        if i == position:
            marked = len(found)
        if token not in placeholders:
            found.append((text, float(values[i]), i == position))
        elif not found or found[-1][0] != placeholders[token]:
            found.append((placeholders[token], float("nan"), False))
    return tuple(found[max(0, marked - _AROUND) : marked + _AROUND + 1])
