"""LibriSpeech (Panayotov et al., ICASSP 2015): read English sentences, to be written down.

Official layout, of the archives with or without their folder ``LibriSpeech/``::

    LibriSpeech/test-clean/1089/134686/1089-134686-0000.flac        speaker, chapter, utterance
    LibriSpeech/test-clean/1089/134686/1089-134686.trans.txt        a line each: 1089-134686-0000 HE HOPED

From Hugging Face: openslr/librispeech_asr (``audio, text, speaker_id, chapter_id, id``), whose split
``test.clean`` is test-clean; so is ``test`` where a configuration has only the clean recordings (and
test-other where it has only the others: the split alone does not tell, so give the one that is meant).

MINER asks for the 2,620 sentences of test-clean, and finds its neurons on the same. Here neurons are
found on dev-clean; no speaker is in both. Utterances are in the order of their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlens.data.media.sounds import Audio
from mmlens.datasets.folders import HELP, check_columns, check_unique, checked_folder, medium_file
from mmlens.datasets.prompts import TRANSCRIBE
from mmlens.datasets.rows import Benchmark, Row, Rows, file_order
from mmlens.datasets.tables import Table, find_table
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
    """The utterances of a split.

    Args:
        source: a folder, or a Hugging Face data set.
        split: ``test-clean``, ``dev-clean``, ...

    Raises:
        SampleError: a file or column is missing, or a line has no transcription.
    """
    if not isinstance(source, str | Path):
        table = find_table(source, split, _ALIASES[split])
        assert table is not None  # only a folder may hold none
        return _from_table(table)
    folder = checked_folder(source, "LibriSpeech")
    for place in (folder / "LibriSpeech" / split, folder / split):
        if files := sorted(place.glob("*/*/*.trans.txt")):
            return _official(files)
    configuration = "clean" if "clean" in split else "other"
    for place in (folder, folder / "all", folder / configuration):
        if place.is_dir():
            table = find_table(str(place), split, _ALIASES[split])
            if table is not None:
                return _from_table(table)
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise SampleError(
        f"{folder} has no LibriSpeech/{split}/<speaker>/<chapter>/*.trans.txt (LibriSpeech, {split}); "
        f"it holds {there}; {HELP}."
    )


def _official(files: list[Path]) -> Rows:
    said: list[tuple[str, str, Path]] = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            name, _, text = line.strip().partition(" ")
            if name and not text.strip():
                raise SampleError(
                    f"Line {number} of {file} is {line!r}; give an utterance's name and what is said."
                )
            if name:
                said.append((name, text.strip(), file.parent))
    said.sort(key=lambda one: one[0])
    check_unique([name for name, _, _ in said], files[0].parent.parent.parent)

    def build(i: int) -> Row:
        name, text, chapter = said[i]
        sound = medium_file(chapter, [f"{name}.flac", f"{name}.wav"])
        return _row(name, text, sound, chapter.parent.name, chapter.name)

    ids = [name for name, _, _ in said]
    return Rows(ids, ids, build)


def _from_table(table: Table) -> Rows:
    needed = ("id", "text", "speaker_id", "chapter_id")
    check_columns(table.names, (*needed, "audio"), table.where)
    ids, texts, speakers, chapters = (list(map(str, table.column(name))) for name in needed)
    check_unique(ids, table.where)

    def build(i: int) -> Row:
        sounds = table.media("audio", i)
        if not sounds:
            raise SampleError(f"Utterance {ids[i]} of {table.where} has no sound.")
        return _row(ids[i], texts[i], sounds[0], speakers[i], chapters[i])

    return Rows(ids, ids, build)


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
    unlabelled=(),
    paper_splits=("dev-clean", "test-clean"),
    metric="word_accuracy",
    paper_metric="wrr",
    rows=rows,
    text=lambda row, _: row.question,
    paper_order=file_order,
    one_per_picture=False,
    paper="MINER",
    paper_limit=None,
    modalities=("audio",),
    sizes={"dev-clean": 2703, "dev-other": 2864, "test-clean": 2620, "test-other": 2939},
)
