"""Which samples show the same media: questions about one picture are many, the picture is one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmlens.data.samples import Sample
from mmlens.errors import SampleError


def sources(samples: Sequence[Sample], distinct: str) -> dict[str, str]:
    """Sample id -> what it shares with others, sorted by id.

    Args:
        samples: with unique ids.
        distinct: ``media``: samples with the same media share a source; else each has its own.

    Raises:
        SampleError: an unknown way to differ.
    """
    if distinct not in ("media", "sample", "position"):
        raise SampleError(
            f"Entries cannot differ by {distinct!r}; there are 'media', 'sample' and 'position'."
        )
    ordered = sorted(samples, key=lambda one: one.id)
    return {s.id: media_identity(s) if distinct == "media" else s.id for s in ordered}


def media_identity(sample: Sample) -> str:
    """The same for samples with the same media; the id of one without."""
    media = [*sample.images, *sample.videos, *sample.audios]
    if not media:
        return sample.id
    digest = hashlib.sha256()
    for one in media:
        _feed(digest, one)
    return digest.hexdigest()[:16]


def _feed(digest: Any, medium: Any) -> None:
    """Add a medium to the hash as it is given: a file by its path, anything else by its content."""
    if isinstance(medium, Image.Image):
        digest.update(repr((medium.mode, medium.size)).encode() + medium.tobytes())
    elif isinstance(medium, np.ndarray):
        digest.update(repr((medium.dtype, medium.shape)).encode() + medium.tobytes())
    elif isinstance(medium, bytes):
        digest.update(medium)
    elif isinstance(medium, Mapping):
        _feed(digest, list(medium.values()))
    elif isinstance(medium, Sequence) and not isinstance(medium, str):
        for one in medium:
            _feed(digest, one)
    else:
        digest.update(str(medium).encode())
