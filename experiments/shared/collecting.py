"""Collecting activation statistics into a run folder, by one process or by several together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmlens
from mmlens.data.halves import split, sum_of
from mmlens.data.samples import Sample
from mmlens.run.folder import Run
from mmlens.streaming.collect import collect_parts
from mmlens.streaming.distributed import rank_and_world

#: The file of the statistics in the run folder.
STATISTICS = "statistics.safetensors"
#: Where a collection in one piece is saved while it runs; under a launcher each process has its own file.
CHECKPOINT = "parts/statistics.safetensors"


def collect_statistics(
    run: Run,
    model: mmlens.HookedMLLM,
    samples: Sequence[Sample],
    *,
    modules: Sequence[str],
    in_parts: bool,
    seed: int,
    **options: Any,
) -> list[list[mmlens.NeuronStatistics]]:
    """Stream samples once, as stage ``collect``: in two halves of doubling parts, or in one piece.

    A second start resumes from the checkpoints in the run folder. The sum of all parts is left there
    as ``statistics.safetensors``.

    Args:
        run: the run folder.
        model: a hooked model.
        samples: what to run.
        modules: modules to count in; the stage's tokens are those of the first.
        in_parts: keep parts apart, for :func:`mmlens.selection.stability.stability`; not under a launcher.
        seed: of the draw of the parts.
        options: of :func:`mmlens.collect`: groups, site, and ``batching``.

    Returns:
        [half][part] -> statistics, one part where they are in one piece;
        :func:`mmlens.data.halves.sum_of` adds them up.

    Raises:
        MMLensError: whatever :func:`mmlens.collect` refuses.
    """
    options["modules"] = modules
    with run.stage("collect") as stage:
        if in_parts and rank_and_world()[1] == 1:
            run.path("parts").mkdir(exist_ok=True)
            halves = split(samples, seed=seed)
            parts = collect_parts(model, halves, run.path("parts"), **options)
        else:
            parts = [[mmlens.collect(model, samples, checkpoint=run.path(CHECKPOINT), **options)]]
        whole = sum_of(parts)
        stage.tokens = int(whole.modules[modules[0]].tokens.sum())
    whole.save(run.path(STATISTICS))
    whole.check_model(model.weight_hash)
    return parts


def help_with_statistics(
    out: Path, model: mmlens.HookedMLLM, samples: Sequence[Sample], **options: Any
) -> None:
    """What processes other than the first do under a launcher: their share of the samples.

    Args:
        out: the run folder.
        model, samples, options: those of :func:`collect_statistics` on the first process; modules too.
    """
    mmlens.collect(model, samples, checkpoint=out / CHECKPOINT, **options)
