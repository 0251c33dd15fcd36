"""The benchmarks on disk by name, and whether what was read of them is what was written."""

import numpy as np
import pytest

from mmlens.data.media.pictures import open_picture
from mmlens.data.media.sounds import open_audio
from mmlens.data.media.videos import open_video, video_size
from tests.helpers import benchmarks_on_disk as disk
from tests.helpers import miner_benchmarks_on_disk as miner_disk

KINDS = ("images", "videos", "audios")
#: Writes it, the split, its number of questions, the medium, how many of those.
FIXTURES = {
    "lingoqa": (disk.lingoqa, "val", 4, "images", 2),
    "pmcvqa": (disk.pmcvqa, "test", 6, "images", 3),
    "rsvqa": (disk.rsvqa, "val", 6, "images", 4),
    "vqav2": (disk.vqav2, "val", 6, "images", 3),
    "docvqa": (disk.docvqa, "val", 6, "images", 3),
    "textvqa": (miner_disk.textvqa, "val", 6, "images", 3),
    "coco": (miner_disk.coco, "test", 4, "images", 4),
    "mmlu": (miner_disk.mmlu, "test", 6, None, 6),
    "msvd_qa": (miner_disk.msvd_qa, "test", 6, "videos", 3),
    "librispeech": (miner_disk.librispeech, "test-clean", 6, "audios", 6),
    "vocalsound": (miner_disk.vocalsound, "test", 12, "audios", 12),
}
#: Rows of the Hugging Face copy, the column of media, their feature, the split there.
COPIES = {
    "docvqa": (disk.docvqa_columns, "image", "Image", "validation"),
    "vqav2": (disk.vqav2_columns, "image", "Image", "validation"),
    "textvqa": (miner_disk.textvqa_columns, "image", "Image", "validation"),
    "coco": (miner_disk.coco_columns, "image", "Image", "test"),
    "msvd_qa": (miner_disk.msvd_qa_columns, "video", "Video", "test"),
    "librispeech": (miner_disk.librispeech_columns, "audio", "Audio", "test.clean"),
    "vocalsound": (miner_disk.vocalsound_columns, "audio", "Audio", "test"),
}


def loaded(rows, column="image", feature="Image"):
    """Rows as a data set of Hugging Face datasets, its media a column of them."""
    hub = pytest.importorskip("datasets")
    return hub.Dataset.from_list(rows).cast_column(column, getattr(hub, feature)())


def rows_of(name, official):
    """Rows of the copy of a benchmark whose official files are in a folder."""
    columns = COPIES[name][0]
    return columns(official) if name == "msvd_qa" else columns()


def close(one, other):
    """Whether two pictures are the same: a JPEG nearly, any other exactly."""
    limit = 3 if any(str(x).endswith(".jpg") for x in (one, other)) else 0  # of 255
    return np.abs(pixels(one).astype(int) - pixels(other)).mean() <= limit


def pixels(image):
    return np.asarray(open_picture(image))


def same_picture(image, number):
    return close(image, disk.picture(number))


def same_sound(audio, number):
    return np.allclose(open_audio(audio, miner_disk.RATE), miner_disk.sound(number), atol=1e-3)


def same_media(one, other):
    """Whether two samples show the same, decoded."""
    for a, b in zip(one.images, other.images, strict=True):
        assert close(a, b)
    for a, b in zip(one.videos, other.videos, strict=True):
        assert video_size(a) == video_size(b)
        assert np.array_equal(open_video(a).frames, open_video(b).frames)
    for a, b in zip(one.audios, other.audios, strict=True):
        rate = miner_disk.RATE
        assert np.allclose(open_audio(a, rate), open_audio(b, rate), atol=1e-4)
