"""MSVD-QA (Xu et al., ACM Multimedia 2017): questions on short videos, answered by one word.

Official layout, with the videos of the Microsoft Research Video Description Corpus::

    train_qa.json, val_qa.json, test_qa.json    [{"id", "video_id", "question", "answer"}, ...]
    youtube_mapping.txt                         a line each: -4wsuPCjDBc_5_15 vid1
    YouTubeClips/-4wsuPCjDBc_5_15.avi           video_id 1 is vid1

Videos called ``vid1.avi`` need no mapping; MP4, MKV and WebM are found too, and the folders ``videos/``
and ``video/``. From Hugging Face or as parquet: ``question``, ``answer`` and ``video`` (encoded, or a
file name as above), with ``id`` and ``video_id`` where it has them.

Reading AVI needs PyAV, ``pip install "mmlens[video]"``. MINER asks the 13,157 questions of test, and
finds its neurons on the same. Here neurons are found on train; no video is in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmlens.data.media.videos import Video
from mmlens.datasets.folders import HELP, json_list, medium_file, value
from mmlens.datasets.prompts import video_answer
from mmlens.datasets.rows import Benchmark, Row, Rows
from mmlens.datasets.sources import OfficialFile, file_or_table, record_rows, table_rows
from mmlens.datasets.tables import Table
from mmlens.errors import SampleError

_PLACES = ("YouTubeClips", "videos", "video", ".")
_KINDS = (".avi", ".mp4", ".mkv", ".webm")
_MAPPINGS = ("youtube_mapping.txt", "YouTubeClips/youtube_mapping.txt")


def rows(source: Any, split: str) -> Rows:
    """The questions of a split; see :class:`mmlens.datasets.rows.Benchmark`."""
    name = f"{split}_qa.json"
    found = file_or_table(source, split, "MSVD-QA", [name, f"MSVD-QA/{name}"])
    if not isinstance(found, OfficialFile):
        return _from_table(found, Path(source) if isinstance(source, str | Path) else None)
    clips = _clips(found.folder)

    def build(record: Mapping[str, Any], number: str, where: str) -> Row:
        video = _name(value(record, "video_id", where))
        if clips and video not in clips:
            raise SampleError(
                f"{where} is on {video}, which youtube_mapping.txt of {found.folder} lacks."
            )
        names = [name for name in (clips.get(video), video) if name]
        places = [f"{p}/{name}{kind}" for name in names for p in _PLACES for kind in _KINDS]
        return _row(record, medium_file(found.folder, places), video, number, where)

    records = json_list(found.file, None)
    return record_rows(found.file, records, "id", build, shared="video_id")


def _name(video_id: Any) -> str:
    """What the mapping calls a video; names of copies that number theirs otherwise as they are."""
    return f"vid{video_id}" if str(video_id).isdigit() else str(video_id)


def _clips(folder: Path) -> dict[str, str]:
    """``vid1`` -> the clip's own name; empty where the clips are called vid1."""
    file = next((folder / name for name in _MAPPINGS if (folder / name).is_file()), None)
    if file is None:
        named = (path for place in _PLACES for path in (folder / place).glob("vid*.*"))
        if any(path.suffix in _KINDS for path in named):
            return {}
        raise SampleError(
            f"{folder} has no {' or '.join(_MAPPINGS)} (MSVD-QA, which clip is which), nor videos "
            f"called vid1{_KINDS[0]}; {HELP}."
        )
    clips = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if len(words) not in (0, 2):
            raise SampleError(
                f"Line {number} of {file} is {line!r}; give the clip's name and vid with its number."
            )
        if words:
            clips[words[1]] = words[0]
    return clips


def _from_table(table: Table, folder: Path | None) -> Rows:
    def named(record: Mapping[str, Any], number: str) -> str:
        # Without a name a question's video is its own: to compare them, all would have to be read.
        return _name(record["video_id"]) if "video_id" in record else number

    def build(record: Mapping[str, Any], number: str, videos: tuple[Any, ...], where: str) -> Row:
        video = videos[0]
        if isinstance(video, str) and folder is not None:
            video = medium_file(folder, [f"{place}/{video}" for place in _PLACES])
        return _row(record, video, named(record, number), number, where)

    return table_rows(
        table,
        "video",
        build,
        key="id" if "id" in table.names else None,
        needed=("question", "answer"),
        optional=("id", "video_id"),
        shared=named,
    )


def _row(record: Mapping[str, Any], video: Video, name: str, number: str, where: str) -> Row:
    return Row(
        question=str(value(record, "question", where)),
        videos=(video,),
        answers=(str(value(record, "answer", where)),),
        fields={"source": name, "question_id": number, "video_id": name},
    )


BENCHMARK = Benchmark(
    name="msvd_qa",
    title="MSVD-QA",
    domain="msvd_qa",
    paper_splits=("train", "test"),
    metric="exact_match",
    paper_metric="contains_answer",
    rows=rows,
    text=lambda row, prompt: video_answer(row.question, prompt),
    modalities=("video",),
    sizes={"train": 30933, "val": 6415, "test": 13157},
)
