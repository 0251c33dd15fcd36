"""Look at benchmarks on disk before a long run: what is there, and what is missing.

    python -m experiments.benchmark_data vqav2=/data/vqav2 docvqa=/data/docvqa

Reads every split that a folder has, opens the headers of some pictures, and shows one question.
docs/benchmarks-data.md says what to fetch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mmlens import datasets
from mmlens.errors import MediaError, MMLensError, SampleError
from mmlens.media import picture_size
from mmlens.samples import Sample


@dataclass(frozen=True)
class Config:
    """What to look at."""

    folders: Annotated[tuple[str, ...], tyro.conf.Positional]
    """name=folder, for each benchmark."""
    pictures: int = 200
    """How many questions' pictures to look for, drawn with seed 0."""


def main(config: Config) -> None:
    """Print one line for each split, and a question of it."""
    for name, folder in named_folders(config.folders).items():
        for split in datasets.DATASETS[name].splits:
            try:
                samples = datasets.read(name, folder, split, limit=config.pictures)
            except SampleError as error:
                print(f"{name} {split}: {error}")
                continue
            missing = unreadable(samples)
            print(
                f"{name} {split}: {len(samples) - len(missing)} of {len(samples)} drawn are whole"
            )
            if missing:
                print(f"  first that is not: {missing[0]}")
            print("  " + samples[0].text.replace("\n", "\n  "))
            print(f"  answers: {', '.join(samples[0].answers) or 'not published'}")


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


def unreadable(samples: Sequence[Sample]) -> list[str]:
    """Why pictures of samples cannot be used; empty where all can."""
    reasons = []
    for sample in samples:
        try:
            for image in sample.images:
                picture_size(image)
        except MediaError as error:
            reasons.append(f"{sample.id}: {error}")
    return reasons


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except MMLensError as error:
        sys.exit(f"error: {error}")
