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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmlens.data.media.videos import Video
from mmlens.datasets.folders import (
    HELP,
    check_columns,
    check_unique,
    checked_folder,
    first_file,
    json_list,
    medium_file,
    value,
)
from mmlens.datasets.prompts import video_answer
from mmlens.datasets.rows import Benchmark, Row, Rows, file_order
from mmlens.datasets.tables import Table, find_table, hub_aliases
from mmlens.errors import SampleError

_PLACES = ("YouTubeClips", "videos", "video", ".")
_KINDS = (".avi", ".mp4", ".mkv", ".webm")
_MAPPINGS = ("youtube_mapping.txt", "YouTubeClips/youtube_mapping.txt")


def rows(source: Any, split: str) -> Rows:
    """The questions of a split.

    Args:
        source: a folder, or a Hugging Face data set.
        split: ``train``, ``val`` or ``test``.

    Raises:
        SampleError: a file, column or value is missing.
    """
    names = [f"{split}_qa.json", f"MSVD-QA/{split}_qa.json"]
    if not isinstance(source, str | Path) or not any((Path(source) / n).is_file() for n in names):
        folder = checked_folder(source, "MSVD-QA") if isinstance(source, str | Path) else None
        table = find_table(source, split, hub_aliases(split))
        if table is not None:
            return _from_table(table, folder)
    folder = checked_folder(source, "MSVD-QA")
    file = first_file(folder, [*names, f"data/{split}-*.parquet"], f"MSVD-QA, {split}")
    records = json_list(file, None)
    clips = _clips(folder)

    def build(i: int) -> Row:
        where = f"Question {records[i].get('id')} of {file}"
        video = _name(value(records[i], "video_id", where))
        if clips and video not in clips:
            raise SampleError(
                f"{where} is on {video}, which youtube_mapping.txt of {folder} lacks."
            )
        found = _video_file(folder, [name for name in (clips.get(video), video) if name])
        return _row(records[i], found, video, str(records[i]["id"]), where)

    ids = [str(value(one, "id", f"Entry {n} of {file}")) for n, one in enumerate(records)]
    check_unique(ids, file)
    return Rows(ids, [_name(one.get("video_id")) for one in records], build)


def _name(video_id: Any) -> str:
    """What the mapping calls a video; names of copies that number theirs otherwise as they are."""
    return f"vid{video_id}" if str(video_id).isdigit() else str(video_id)


def _clips(folder: Path) -> dict[str, str]:
    """``vid1`` -> the clip's own name; empty where the clips are called vid1."""
    file = next((folder / name for name in _MAPPINGS if (folder / name).is_file()), None)
    if file is None:
        if any(
            path.suffix in _KINDS for place in _PLACES for path in (folder / place).glob("vid*.*")
        ):
            return {}
        raise SampleError(
            f"{folder} has no {' or '.join(_MAPPINGS)} (MSVD-QA, which clip is which), nor videos "
            f"called vid1{_KINDS[0]}; {HELP}."
        )
    clips = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        words = line.split()
        if len(words) != 2:
            raise SampleError(
                f"Line {number} of {file} is {line!r}; give the clip's name and vid with its number."
            )
        clips[words[1]] = words[0]
    return clips


def _video_file(folder: Path, names: Sequence[str]) -> str:
    """The path of a video, under the first of its names."""
    return medium_file(
        folder,
        [f"{place}/{name}{kind}" for name in names for place in _PLACES for kind in _KINDS],
    )


def _from_table(table: Table, folder: Path | None) -> Rows:
    check_columns(table.names, ("video", "question", "answer"), table.where)
    kept = [one for one in ("id", "video_id", "question", "answer") if one in table.names]
    columns = {name: table.column(name) for name in kept}
    count = len(columns["question"])
    ids = [str(one) for one in columns.get("id", range(count))]
    check_unique(ids, table.where)
    # Without a name a question's video is its own: to compare them, all would have to be read.
    shared = [_name(one) for one in columns["video_id"]] if "video_id" in columns else ids

    def build(i: int) -> Row:
        where = f"Question {ids[i]} of {table.where}"
        videos = table.media("video", i)
        if not videos:
            raise SampleError(f"{where} has no video.")
        video = videos[0]
        if isinstance(video, str) and folder is not None:
            video = medium_file(folder, [f"{place}/{video}" for place in _PLACES])
        record = {name: values[i] for name, values in columns.items()}
        return _row(record, video, shared[i], ids[i], where)

    return Rows(ids, shared, build)


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
    splits=("train", "val", "test"),
    unlabelled=(),
    paper_splits=("train", "test"),
    metric="exact_match",
    paper_metric="contains_answer",
    rows=rows,
    text=lambda row, prompt: video_answer(row.question, prompt),
    paper_order=file_order,
    one_per_picture=False,
    paper="MINER",
    paper_limit=None,
    modalities=("video",),
    sizes={"train": 30933, "val": 6415, "test": 13157},
)
