"""Passes over samples under conditions: what runs together, and what an earlier start has left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mmlens.ablation.conditions import Condition
from mmlens.data.samples import Sample
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.streaming.batching import Batching
from mmlens.streaming.sweep import Piece, Rows, Share, Sweep

#: The fields that tell one row of a pass from another.
KEY = ("setting", "id")


def blocks_of(
    samples: Sequence[Sample], conditions: Sequence[Condition]
) -> list[tuple[Sequence[Condition], list[Sample]]]:
    """Samples that exactly the same conditions ask, with those conditions, in order."""
    blocks: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        asked = tuple(i for i, one in enumerate(conditions) if sample.id in one.ids)
        if asked:
            blocks.setdefault(asked, []).append(sample)
    return [([conditions[i] for i in asked], block) for asked, block in blocks.items()]


def resumed(
    model: HookedMLLM,
    pieces: Sequence[Piece[Sequence[Condition]]],
    rows: Rows,
    batching: Batching,
    share: Share,
    *,
    samples: int,
    description: str,
) -> Sweep[Sequence[Condition]]:
    """The sweep over what is left: each piece under the conditions that lack a row of it.

    Args:
        model: a hooked model.
        pieces: all of the pass, each with its conditions.
        rows: those that are there, by :data:`KEY`.
        batching: as of the whole pass.
        share: this process's share of the pieces.
        samples: how many samples the pass has in all.
        description: of the progress bar, which counts samples under conditions.
    """
    mine, left = share.of(pieces), []
    for piece in mine:
        todo = [
            one for one in piece.work if any((one.name, s.id) not in rows for s in piece.samples)
        ]
        if todo:
            left.append(Piece(todo, piece.samples, len(piece.samples) * len(todo)))
    total = sum(len(piece.samples) * len(piece.work) for piece in mine)
    return Sweep(
        model,
        left,
        batching,
        samples=samples,
        description=description,
        unit="run",
        finished=total - sum(piece.units for piece in left),
    )


def listed(values: Float[np.ndarray, ...]) -> list[Any]:
    """Numbers as rows hold them, in nested lists: None for NaN, which JSON has not.

    ``numpy.array(rows, float)`` reads them back.
    """
    found = values.astype(object)
    found[np.isnan(values)] = None
    return found.tolist()
