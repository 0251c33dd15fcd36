"""MSVD-QA: clips by their mapping, by number, and by name in tables."""

import numpy as np
import pytest

from mmlens import datasets
from mmlens.data.media.videos import open_video, video_size
from mmlens.errors import SampleError
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers import miner_benchmarks_on_disk as miner_disk


def test_msvd_qa(tmp_path):
    samples = datasets.read("msvd_qa", miner_disk.msvd_qa(tmp_path), "test")
    three = samples[3]
    assert three.text == (
        "what is thing 3 doing?\nAnswer the question using a single word or phrase."
    )
    assert (three.id, three.answers) == ("msvd_qa/36925", ("cat",))
    assert (three.get("source"), three.get("video_id")) == ("vid1302",) * 2
    assert three.videos[0].endswith("YouTubeClips/clip1_5_15.avi")
    assert video_size(three.videos[0]) == (4, 32, 48)
    assert samples[2].videos[0] is three.videos[0]
    shown = open_video(three.videos[0])
    assert shown.fps == 2
    for i, frame in enumerate(shown.frames):
        drawn = np.asarray(disk.picture(100 + i, (48, 32))).astype(int)
        other = np.asarray(disk.picture(200 + i, (48, 32))).astype(int)
        assert np.abs(frame - drawn).mean() < 0.9 * np.abs(frame - other).mean()


def test_msvd_qa_clips_called_by_their_number(tmp_path):
    folder = miner_disk.msvd_qa(tmp_path)
    (folder / "youtube_mapping.txt").unlink()
    with pytest.raises(SampleError, match=r"no youtube_mapping\.txt or .*, nor videos called vid1"):
        datasets.read("msvd_qa", folder, "test")
    for i in range(3):
        clip = folder / f"YouTubeClips/clip{i}_5_15.avi"
        clip.rename(clip.with_name(f"vid{1301 + i}.avi"))
    samples = datasets.read("msvd_qa", folder, "test")
    assert [s.videos[0].rsplit("/", 1)[1] for s in samples[::2]] == [
        "vid1301.avi",
        "vid1302.avi",
        "vid1303.avi",
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test_qa.json", "{}", r"test_qa\.json is not a list of records, but dict"),
        ("test_qa.json", "[1]", r"test_qa\.json is not a list of records, but list"),
        ("test_qa.json", "[", r"test_qa\.json is not JSON"),
        ("test_qa.json", '[{"question": "x"}]', r"Entry 0 of .* has no 'id'; it has question"),
        ("test_qa.json", '[{"id": 1, "question": "x"}]', "Question 1 of .* has no 'video_id'"),
        ("youtube_mapping.txt", "a vid1\n", "Question 36922 .* is on vid1301, which youtube_mapp"),
        ("youtube_mapping.txt", "a\n", "Line 1 of .* is 'a'; give the clip's name and vid"),
    ],
)
def test_msvd_qa_files_that_are_not_as_described(tmp_path, file, content, message):
    folder = miner_disk.msvd_qa(tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(SampleError, match=message):
        datasets.read("msvd_qa", folder, "test")
