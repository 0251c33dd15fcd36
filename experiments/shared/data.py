"""The data of an experiment, whatever the model: a folder with splits, a demo's own, or benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from experiments.shared.config import CommonConfig
from mmlens import datasets
from mmlens.data.demos import demo_data
from mmlens.data.samples import Sample, data_file, load_samples
from mmlens.errors import MMLensError, SampleError
from mmlens.storage.fingerprint import data_fingerprint, file_fingerprint

#: Which split: the one that neurons are found on, or the one whose questions are asked.
Which = Literal["train", "test"]
#: Files of a benchmark that are small and name its questions.
_SMALL = (".json", ".csv", ".parquet")


def benchmarks(config: CommonConfig) -> Mapping[str, Path]:
    """The benchmarks that ``--data`` names, with their folders; none where it names a plain folder.

    Raises:
        SampleError: one is not name=folder, a name comes twice, or there is no such benchmark.
    """
    if not any("=" in one for one in config.samples.data):
        return {}
    return named_folders(config.samples.data)


def named_folders(given: Sequence[str]) -> Mapping[str, Path]:
    """``name=folder`` for each benchmark.

    Raises:
        SampleError: one is not in that form, a name comes twice, or there is no such benchmark.
    """
    folders: dict[str, Path] = {}
    for one in given:
        name, equals, folder = one.partition("=")
        if not equals or not name or not folder or name in folders:
            raise SampleError(
                f"{one!r} was given; give name=folder, each name once, with one of "
                f"{', '.join(datasets.DATASETS)}."
            )
        if name not in datasets.DATASETS:
            raise SampleError(
                f"There is no benchmark {name!r}; there are {', '.join(datasets.DATASETS)}."
            )
        folders[name] = Path(folder)
    return folders


def data_folder(config: CommonConfig) -> Path:
    """The one folder of the data, where they are no benchmarks.

    Raises:
        MMLensError: several were given, or none and the model is no demo.
    """
    if len(config.samples.data) > 1:
        raise MMLensError(
            f"--data takes one folder, or benchmark=folder for each; given: {' '.join(config.samples.data)}."
        )
    if config.samples.data:
        return Path(config.samples.data[0])
    if (folder := demo_data(config.load.model)) is None:
        raise MMLensError(
            f"{config.load.model} is no demo, so it has no data of its own: give --data."
        )
    return folder


def data_hashes(config: CommonConfig) -> dict[str, str]:
    """What identifies the data: the files' contents; of a benchmark its small files' sizes.

    Returns:
        split or benchmark -> hash; the ``data_hash`` of the manifest.
    """
    if not (named := benchmarks(config)):
        splits = (config.samples.train_split, config.samples.test_split)
        folder = data_folder(config)
        return {split: file_fingerprint(data_file(folder, split)) for split in splits}
    found = {}
    for name, folder in named.items():
        files = sorted(p for p in folder.rglob("*") if p.suffix in _SMALL)
        # A benchmark without such files (LibriSpeech: sounds and plain texts) is identified by all its files.
        files = files or sorted(p for p in folder.rglob("*") if p.is_file())
        found[name] = data_fingerprint([[p.name, p.stat().st_size] for p in files])
    return found


def read_split(
    config: CommonConfig,
    which: Which,
    *,
    limit: int | None,
    prompt: str | None = None,
) -> list[Sample]:
    """The samples that neurons are found on, or that are asked.

    Args:
        config: names the data.
        which: ``train`` or ``test``: the split of that setting; of a benchmark the paper's own.
        limit: questions of each benchmark at most, drawn as ``config.subset`` says; None or 0: all. A
            folder is read whole: :func:`mmlens.data.samples.take_per_value` draws from it.
        prompt: the benchmarks' wording; default: ``config.prompt``.

    Raises:
        SampleError: no such file, split or benchmark, or answers that are not published.
    """
    named = benchmarks(config)
    if not named:
        split = config.samples.train_split if which == "train" else config.samples.test_split
        return load_samples(data_folder(config), split)
    samples = []
    for name, folder in named.items():
        samples += datasets.read(
            name,
            folder,
            datasets.DATASETS[name].paper_splits[0 if which == "train" else 1],
            prompt=prompt or config.samples.prompt,
            subset=config.samples.subset,
            limit=limit or None,
            seed=config.seed,
            scored=which == "test",
        )
    return samples


def metrics(config: CommonConfig) -> str | dict[str, str]:
    """How answers are scored: one metric, or that of each benchmark by its domain."""
    named = benchmarks(config)
    if config.answers.metric or not named:
        return config.answers.metric or "exact_match"
    return datasets.metrics_of(named, as_paper=config.answers.paper_metrics)


def chosen_values(
    asked: Sequence[str], samples: Sequence[Sample], what: str = "domain"
) -> list[str]:
    """The requested domains, or all, checked against the data.

    Args:
        asked: the requested domains; none: all.
        samples: the data.
        what: what a domain is called here, in the sentence of the error.

    Raises:
        MMLensError: no sample has a requested domain.
    """
    present = sorted({str(s.get("domain")) for s in samples})
    if unknown := [one for one in asked if one not in present]:
        raise MMLensError(
            f"There is no {what} {unknown[0]!r} in the data; there are {', '.join(present)}."
        )
    return list(asked) or present
