"""Look at benchmarks on disk before a long run: what is there, and what is missing.

    python -m experiments.benchmark_data vqav2=/data/vqav2 librispeech=/data/LibriSpeech

Reads every split that a folder has, counts its questions, opens the headers of some pictures, videos
and sounds, and shows one question.
docs/benchmarks-data.md says what to fetch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.shared.data import named_folders
from experiments.shared.start import command_line
from mmlens import datasets
from mmlens.data.media.pictures import picture_size
from mmlens.data.media.sounds import audio_length
from mmlens.data.media.videos import video_size
from mmlens.data.samples import Sample
from mmlens.errors import MediaError, SampleError

#: Characters of a question that are shown; MMLU's has five others before it.
LONGEST = 600
#: Samples per second; only whether a sound can be read is of interest.
RATE = 16000


@dataclass(frozen=True)
class Config:
    """What to look at."""

    folders: Annotated[tuple[str, ...], tyro.conf.Positional]
    """name=folder, for each benchmark."""
    questions: int = 200
    """How many questions' media to look for, drawn with seed 0."""


def main(config: Config) -> None:
    """Print one line for each split, and a question of it."""
    for name, folder in named_folders(config.folders).items():
        for split in datasets.DATASETS[name].splits:
            try:
                samples = datasets.read(name, folder, split, limit=config.questions)
                count, published = datasets.size(name, folder, split)
            except SampleError as error:
                print(f"{name} {split}: {error}")
                continue
            missing = unreadable(samples)
            print(
                f"{name} {split}: {said_count(count, published)}; "
                f"{len(samples) - len(missing)} of {len(samples)} drawn are whole"
            )
            if missing:
                print(f"  first that is not: {missing[0]}")
            text = samples[0].text
            shown = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
            print("  " + shown.replace("\n", "\n  "))
            print(f"  answers: {', '.join(samples[0].answers) or 'not published'}")


def said_count(count: int, published: int | None) -> str:
    """How many questions there are, and how many there should be."""
    if published is None or count == published:
        return f"{count} questions"
    return f"{count} questions, {published} are published"


def unreadable(samples: Sequence[Sample]) -> list[str]:
    """Why pictures, videos or sounds of samples cannot be used; empty where all can."""
    reasons = []
    for sample in samples:
        try:
            for image in sample.images:
                picture_size(image)
            for video in sample.videos:
                video_size(video)
            for audio in sample.audios:
                audio_length(audio, RATE)
        except MediaError as error:
            reasons.append(f"{sample.id}: {error}")
    return reasons


if __name__ == "__main__":
    command_line(main, Config)
