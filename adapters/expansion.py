"""Prompts whose placeholders an adapter replaces itself, since the processor cannot for every batch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmlens.errors import SampleError


def expanded(
    prompts: Sequence[str], tokens: Mapping[str, str], texts: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[list[tuple[str, int]]]]:
    """Prompts with every medium's text in place of its placeholder.

    Args:
        prompts: texts with one placeholder per medium.
        tokens: kind of media -> its placeholder.
        texts: kind of media -> what stands for each medium, in the order of the prompts.

    Returns:
        The prompts, and for each of them the media that it shows, in its order: kind and number
        among the media of that kind.

    Raises:
        SampleError: a kind has more or fewer placeholders than media.

    >>> expanded(["a <v> <i>", "<i>"], {"image": "<i>", "video": "<v>"}, {"image": "12", "video": "f"})
    (['a f 1', '2'], [[('video', 0), ('image', 0)], [('image', 1)]])
    """
    for kind, token in tokens.items():
        places = sum(prompt.count(token) for prompt in prompts)
        if places != len(texts[kind]):
            raise SampleError(
                f"The prompts have {places} places for a medium of kind {kind!r} ({token}), but "
                f"{len(texts[kind])} were given; does the chat template show that kind, or the "
                "question contain the placeholder?"
            )
    kinds = {token: kind for kind, token in tokens.items()}
    pattern = re.compile("|".join(map(re.escape, kinds)))
    seen = dict.fromkeys(tokens, 0)
    orders: list[list[tuple[str, int]]] = []

    def text(found: re.Match[str]) -> str:
        kind = kinds[found.group()]
        number = seen[kind]
        seen[kind] += 1
        orders[-1].append((kind, number))
        return texts[kind][number]

    written = []
    for prompt in prompts:
        orders.append([])
        written.append(pattern.sub(text, prompt))
    return written, orders


def tokenized(
    processor: Any, prompts: Sequence[str], texts: Mapping[str, Sequence[str]], side: str
) -> tuple[dict[str, Any], list[list[tuple[str, int]]]]:
    """Tokens of prompts in which each medium's text stands, padded on ``side``, and the media's order.

    Args:
        processor: has ``image_token``, ``video_token`` and the tokenizer.
        prompts, texts: see :func:`expanded`; errors and order as there.
        side: ``left`` or ``right``.
    """
    tokens = {kind: getattr(processor, f"{kind}_token") for kind in texts}
    written, orders = expanded(prompts, tokens, texts)
    encoded = processor.tokenizer(written, padding=True, padding_side=side, return_tensors="pt")
    return dict(encoded), orders
