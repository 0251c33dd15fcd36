"""The benchmarks of MMNeuron (five) and MINER (six), read from their official files into samples.

    samples = mmlens.datasets.read("vqav2", "/data/vqav2", "val", limit=500)
    names = mmlens.datasets.benchmarks_for(model.adapter.modalities, paper="MINER")

methods 2.5 and 3.6 say what the papers do with each; docs/benchmarks-data.md what to fetch.

``folders`` and ``tables`` read files, ``sources`` chooses between them, ``rows`` and ``prompts`` are
what all benchmarks share; every other file is a benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any

from mmlens.data.samples import Sample
from mmlens.datasets import (
    coco,
    docvqa,
    librispeech,
    lingoqa,
    mmlu,
    msvd_qa,
    pmcvqa,
    rsvqa,
    textvqa,
    vocalsound,
    vqav2,
)
from mmlens.datasets.prompts import PROMPTS, Prompt, checked_prompt
from mmlens.datasets.rows import PAPER_LIMIT, Benchmark, Rows, chosen
from mmlens.errors import SampleError

__all__ = [
    "DATASETS",
    "PAPER_LIMIT",
    "PROMPTS",
    "Benchmark",
    "Prompt",
    "benchmarks_for",
    "metrics_of",
    "read",
    "size",
]

#: Every benchmark by its name: MMNeuron's in the order of its domains (ad, med, rs, com, doc), then
#: MINER's with pictures, text alone, video and sound.
DATASETS: Mapping[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        *(lingoqa, pmcvqa, rsvqa, vqav2, docvqa),
        *(textvqa, coco, mmlu, msvd_qa, librispeech, vocalsound),
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
    **options: str | Callable[..., Any],
) -> list[Sample]:
    """Samples of a benchmark.

    Every picture, video and sound stays on disk until its batch is prepared, and a missing one is
    reported then, for its sample; only media inside parquet shards are read into memory, once for all
    questions on them. Ids are ``{name}/{official id}``; ``fields`` has ``source`` (the scene, page,
    picture, video, speaker or subject that questions share), ``dataset``, ``split``, ``question``
    without its prompt, and the data set's own.

    Args:
        name: a key of :data:`DATASETS`.
        source: the folder; for those that exist there, also a Hugging Face data set (loaded, saved
            to disk, or as parquet shards).
        split: one of the benchmark's; ``validation`` is ``val``.
        prompt: ``paper``, ``instructblip`` or ``bare``; see :mod:`mmlens.datasets.prompts`.
        subset: how ``limit`` questions are chosen: ``seed`` draws, ``paper`` takes the first of
            the paper code's order. MMNeuron: its shuffle with its seed, 1,001 where no limit is
            given. MINER: the order of the files, all where no limit is given.
        limit: questions at most.
        seed: of the draw.
        one_per_picture: one question of each picture, video or sound at most; default: as the paper's
            code does for this data set where ``subset`` is ``paper``, else no.
        scored: refuse a split whose answers are not published.
        options: ``frames`` ("joined", "separate") and ``references`` ("together", "apart") for
            LingoQA; ``shots`` ("5" to "0") and ``count_tokens`` (text to its number of tokens) for
            MMLU.

    Raises:
        SampleError: no such benchmark, split, prompt or option; a file, column or value is missing.
    """
    form = checked_prompt(prompt)
    benchmark, split, rows = _opened(name, source, split, options, scored)
    if one_per_picture is None:
        one_per_picture = subset == "paper" and benchmark.one_per_picture
    numbers = chosen(
        rows, benchmark, subset=subset, limit=limit, seed=seed, one_per_picture=one_per_picture
    )
    # Made in the order of the file, where shards are read fastest, and questions share media.
    shared: dict[str, tuple[tuple[Any, ...], ...]] = {}
    made: dict[int, Sample] = {}
    for number in sorted(numbers):
        row = rows.build(number)
        images, videos, audios = shared.setdefault(
            rows.media[number], (row.images, row.videos, row.audios)
        )
        made[number] = Sample(
            id=f"{name}/{rows.ids[number]}",
            text=benchmark.text(row, form),
            images=images,
            videos=videos,
            audios=audios,
            answers=row.answers,
            choices=row.choices,
            domain=benchmark.domain,
            fields={"dataset": name, "split": split, "question": row.question, **row.fields},
        )
    return [made[number] for number in numbers]


def metrics_of(names: Iterable[str], *, as_paper: bool = False) -> dict[str, str]:
    """Domain -> metric of these benchmarks, for :func:`mmlens.ablation.evaluate.evaluate`.

    Args:
        names: keys of :data:`DATASETS`.
        as_paper: what the paper's code computes, in place of the official metric.
    """
    found = [DATASETS[name] for name in names]
    return {one.domain: one.paper_metric if as_paper else one.metric for one in found}


def benchmarks_for(modalities: Iterable[str], *, paper: str | None = None) -> tuple[str, ...]:
    """Names of the benchmarks whose media a model takes; MMLU, which has none, is always among them.

    A model that cannot do without a picture (InstructBLIP, PaliGemma) says so of MMLU's questions
    when they are prepared.

    Args:
        modalities: the kinds of media, as ``model.adapter.modalities``.
        paper: only those of ``MMNeuron`` or ``MINER``.

    Raises:
        SampleError: there is no such paper.
    """
    papers = {one.paper for one in DATASETS.values()}
    if paper is not None and paper not in papers:
        raise SampleError(f"There is no paper {paper!r}; there are MMNeuron and MINER.")
    taken = set(modalities)
    return tuple(
        one.name
        for one in DATASETS.values()
        if set(one.modalities) <= taken and paper in (None, one.paper)
    )


def size(name: str, source: str | PathLike[str] | Any, split: str) -> tuple[int, int | None]:
    """Questions that a split has here, and those it is published with (None: not known to us).

    Args:
        name: a key of :data:`DATASETS`.
        source: as for :func:`read`.
        split: one of the benchmark's.

    Raises:
        SampleError: as :func:`read`.
    """
    benchmark, split, rows = _opened(name, source, split, {}, scored=False)
    return len(rows), benchmark.sizes.get(split)


def _opened(
    name: str, source: Any, split: str, options: Mapping[str, Any], scored: bool
) -> tuple[Benchmark, str, Rows]:
    """A benchmark, the split's own name, and its questions."""
    if name not in DATASETS:
        raise SampleError(f"There is no benchmark {name!r}; there are {', '.join(DATASETS)}.")
    benchmark = DATASETS[name]
    split = "val" if split == "validation" else split
    _check(benchmark, split, options, scored)
    if isinstance(source, PathLike):
        source = str(source)
    return benchmark, split, benchmark.rows(source, split, **options)


def _check(benchmark: Benchmark, split: str, options: Mapping[str, Any], scored: bool) -> None:
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
        if option in benchmark.functions:
            if not callable(given):
                raise SampleError(
                    f"{option}={given!r} was given for {benchmark.title}; give a function."
                )
            continue
        if option not in benchmark.options:
            raise SampleError(
                f"{benchmark.title} has no option {option!r}; it has "
                f"{', '.join((*benchmark.options, *benchmark.functions)) or 'none'}."
            )
        if given not in benchmark.options[option]:
            raise SampleError(
                f"{option}={given!r} was given for {benchmark.title}; give "
                f"{' or '.join(map(repr, benchmark.options[option]))}."
            )
