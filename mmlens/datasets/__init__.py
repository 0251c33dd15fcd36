"""The five benchmarks of MMNeuron, read from their official files into samples.

    samples = mmlens.datasets.read("vqav2", "/data/vqav2", "val", limit=500)

methods 2.5 says what the paper does with each; docs/benchmarks-data.md what to fetch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

from mmlens.datasets import docvqa, lingoqa, pmcvqa, rsvqa, vqav2
from mmlens.datasets.prompts import PROMPTS, Prompt, checked_prompt
from mmlens.datasets.rows import PAPER_LIMIT, Benchmark, chosen
from mmlens.errors import SampleError
from mmlens.media import Picture
from mmlens.samples import Sample

__all__ = [
    "DATASETS",
    "PAPER_LIMIT",
    "PROMPTS",
    "Benchmark",
    "Prompt",
    "metrics_of",
    "read",
]

#: Every benchmark by its name, in the order of the paper's domains: ad, med, rs, com, doc.
DATASETS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        lingoqa.BENCHMARK,
        pmcvqa.BENCHMARK,
        rsvqa.BENCHMARK,
        vqav2.BENCHMARK,
        docvqa.BENCHMARK,
    )
}


def read(
    name: str,
    source: str | PathLike[str] | Any,
    split: str,
    *,
    prompt: str = "paper",
    subset: str = "seed",
    limit: int | None = None,
    seed: int = 0,
    one_per_picture: bool | None = None,
    scored: bool = False,
    **options: str,
) -> list[Sample]:
    """Samples of a benchmark.

    Every picture stays on disk until its batch is prepared, and a missing one is reported then, for
    its sample; only pictures inside parquet shards are read into memory, once for all questions on
    them. Ids are ``{name}/{official id}``; ``fields`` has ``source`` (the scene, page or picture that
    questions share), ``dataset``, ``split``, ``question`` without its prompt, and the data set's own.

    Args:
        name: a key of :data:`DATASETS`.
        source: the folder; for those that exist there, also a Hugging Face data set (loaded, saved
            to disk, or as parquet shards).
        split: one of the benchmark's; ``validation`` is ``val``.
        prompt: ``paper``, ``instructblip`` or ``bare``; see :mod:`mmlens.datasets.prompts`.
        subset: how ``limit`` questions are chosen: ``seed`` draws, ``paper`` takes the first of
            MMNeuron's own order (its shuffle with its seed), 1,001 where no limit is given.
        limit: questions at most.
        seed: of the draw.
        one_per_picture: one question of each picture at most; default: as MMNeuron's code does for
            this data set where ``subset`` is ``paper``, else no.
        scored: refuse a split whose answers are not published.
        options: ``frames`` ("joined", "separate") and ``references`` ("together", "apart") for
            LingoQA.

    Raises:
        SampleError: no such benchmark, split, prompt or option; a file, column or value is missing.
    """
    if name not in DATASETS:
        raise SampleError(f"There is no benchmark {name!r}; there are {', '.join(DATASETS)}.")
    benchmark, form = DATASETS[name], checked_prompt(prompt)
    split = "val" if split == "validation" else split
    _check(benchmark, split, options, scored)
    if isinstance(source, PathLike):
        source = str(source)
    rows = benchmark.rows(source, split, **options)
    if one_per_picture is None:
        one_per_picture = subset == "paper" and benchmark.one_per_picture
    numbers = chosen(
        rows,
        subset=subset,
        limit=limit,
        seed=seed,
        one_per_picture=one_per_picture,
        paper_order=benchmark.paper_order,
    )
    # Made in the order of the file, where shards are read fastest, and questions share pictures.
    shared: dict[str, tuple[Picture, ...]] = {}
    made: dict[int, Sample] = {}
    for number in sorted(numbers):
        row = rows.build(number)
        made[number] = Sample(
            id=f"{name}/{rows.ids[number]}",
            text=benchmark.text(row, form),
            images=shared.setdefault(rows.pictures[number], row.images),
            answers=row.answers,
            choices=row.choices,
            domain=benchmark.domain,
            fields={"dataset": name, "split": split, "question": row.question, **row.fields},
        )
    return [made[number] for number in numbers]


def metrics_of(names: Iterable[str], *, as_paper: bool = False) -> dict[str, str]:
    """Domain -> metric of these benchmarks, for :func:`mmlens.evaluate.evaluate`.

    Args:
        names: keys of :data:`DATASETS`.
        as_paper: what MMNeuron's code computes, in place of the official metric.
    """
    found = [DATASETS[name] for name in names]
    return {one.domain: one.paper_metric if as_paper else one.metric for one in found}


def _check(benchmark: Benchmark, split: str, options: Mapping[str, str], scored: bool) -> None:
    if split not in benchmark.splits:
        raise SampleError(
            f"{benchmark.title} has no split {split!r}; it has {', '.join(benchmark.splits)}."
        )
    if scored and split in benchmark.unlabelled:
        rest = [one for one in benchmark.splits if one not in benchmark.unlabelled]
        raise SampleError(
            f"The answers of {benchmark.title}'s split {split!r} are not published, so nothing can "
            f"be scored on it; use {' or '.join(rest)}."
        )
    for option, given in options.items():
        if option not in benchmark.options:
            raise SampleError(
                f"{benchmark.title} has no option {option!r}; it has "
                f"{', '.join(benchmark.options) or 'none'}."
            )
        if given not in benchmark.options[option]:
            raise SampleError(
                f"{option}={given!r} was given for {benchmark.title}; give "
                f"{' or '.join(map(repr, benchmark.options[option]))}."
            )
