"""LibriSpeech (Panayotov et al., ICASSP 2015): read English sentences, to be written down.

Official layout, of the archives with or without their folder ``LibriSpeech/``::

    LibriSpeech/test-clean/1089/134686/1089-134686-0000.flac        speaker, chapter, utterance
    LibriSpeech/test-clean/1089/134686/1089-134686.trans.txt        a line each: 1089-134686-0000 HE HOPED

From Hugging Face: openslr/librispeech_asr (``audio, text, speaker_id, chapter_id, id``), whose split
``test.clean`` is test-clean; so is ``test`` where a configuration has only the clean recordings (and
test-other where it has only the others: the split alone does not say which, so give the one that is meant).

MINER asks for the 2,620 sentences of test-clean, and finds its neurons on the same. Here neurons are
found on dev-clean; no speaker is in both. Utterances are in the order of their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlens.data.media.sounds import Audio
from mmlens.datasets.folders import checked_folder, medium_file, nothing_found, unique_ids
from mmlens.datasets.prompts import TRANSCRIBE
from mmlens.datasets.rows import Benchmark, Row, Rows
from mmlens.datasets.sources import table_rows
from mmlens.datasets.tables import Table, find_table, loaded_table
from mmlens.errors import SampleError

_ALIASES = {
    "dev-clean": ("validation.clean", "validation"),
    "dev-other": ("validation.other", "validation"),
    "test-clean": ("test.clean", "test"),
    "test-other": ("test.other", "test"),
    "train-clean-100": ("train.clean.100", "train.100"),
    "train-clean-360": ("train.clean.360", "train.360"),
    "train-other-500": ("train.other.500", "train.500"),
}


def rows(source: Any, split: str) -> Rows:
    """The utterances of a split; see :class:`mmlens.datasets.rows.Benchmark`."""
    if not isinstance(source, str | Path):
        return _from_table(loaded_table(source, (split, *_ALIASES[split])))
    folder = checked_folder(source, "LibriSpeech")
    for place in (folder / "LibriSpeech" / split, folder / split):
        if files := sorted(place.glob("*/*/*.trans.txt")):
            return _official(files)
    configuration = "clean" if "clean" in split else "other"
    for place in (folder, folder / "all", folder / configuration):
        if (table := find_table(place, split, _ALIASES[split])) is not None:
            return _from_table(table)
    missing = f"LibriSpeech/{split}/<speaker>/<chapter>/*.trans.txt"
    raise nothing_found(folder, missing, f"LibriSpeech, {split}")


def _official(files: list[Path]) -> Rows:
    spoken: list[tuple[str, str, Path]] = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            name, _, text = line.strip().partition(" ")
            if name and not text.strip():
                raise SampleError(
                    f"Line {number} of {file} is {line!r}; give an utterance's name and what is said."
                )
            if name:
                spoken.append((name, text.strip(), file.parent))
    spoken.sort(key=lambda one: one[0])
    ids = unique_ids([name for name, _, _ in spoken], files[0].parent.parent.parent)

    def build(i: int) -> Row:
        name, text, chapter = spoken[i]
        sound = medium_file(chapter, [f"{name}.flac", f"{name}.wav"])
        return _row(name, text, sound, chapter.parent.name, chapter.name)

    return Rows(ids, ids, build)


def _from_table(table: Table) -> Rows:
    return table_rows(
        table,
        "audio",
        lambda record, name, sounds, _: _row(
            name,
            str(record["text"]),
            sounds[0],
            str(record["speaker_id"]),
            str(record["chapter_id"]),
        ),
        key="id",
        needed=("id", "text", "speaker_id", "chapter_id"),
        noun="Utterance",
    )


def _row(name: str, text: str, sound: Audio, speaker: str, chapter: str) -> Row:
    return Row(
        question=TRANSCRIBE,
        audios=(sound,),
        answers=(text,),
        fields={"source": speaker, "question_id": name, "speaker": speaker, "chapter": chapter},
    )


BENCHMARK = Benchmark(
    name="librispeech",
    title="LibriSpeech",
    domain="librispeech",
    splits=tuple(_ALIASES),
    paper_splits=("dev-clean", "test-clean"),
    metric="word_accuracy",
    paper_metric="wrr",
    rows=rows,
    text=lambda row, _: row.question,
    modalities=("audio",),
    sizes={"dev-clean": 2703, "dev-other": 2864, "test-clean": 2620, "test-other": 2939},
)
