"""MP4, MOV, MKV, WebM and AVI files, read by PyAV, which is an optional dependency."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mmlens.data.media.containers import MATROSKA, check_length, has_boxes
from mmlens.data.media.decoding import opened_file
from mmlens.errors import MediaError


@contextmanager
def container_or_none(video: Any) -> Iterator[Any]:
    """The video opened by PyAV; None where it is no container, but a picture for Pillow.

    Chosen by content: FFmpeg takes almost any bytes for some video, plain text included.
    """
    with opened_file(video, "video") as file:
        if not _is_container(file.read(12)):
            yield None
            return
        check_length(file)
        av = _pyav()
        try:
            # An open file, not its name: FFmpeg would follow names to other files and hosts.
            with av.open(file) as container:
                if not container.streams.video:
                    raise ValueError("it has no pictures, only sound")
                yield container
        except av.FFmpegError as error:
            raise ValueError(error.strerror or str(error)) from error


def _is_container(head: bytes) -> bool:
    if has_boxes(head):
        return head[4:12] not in (b"ftypavif", b"ftypavis")  # pictures, to Pillow
    return head[:4] == MATROSKA or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise MediaError(
            "Reading MP4, MOV, MKV, WebM and AVI needs PyAV, which is not installed; install it with "
            'pip install "mmlens[video]", or give the frames as pictures.'
        ) from error
    return av


def decoded(container: Any) -> tuple[list[np.ndarray], float | None]:
    """The upright RGB frames [height, width, 3] of an open video, and its mean frames per second."""
    stream = container.streams.video[0]
    frames = []
    for packet in container.demux(stream):
        _check_packet(packet)
        frames += [_turned(frame) for frame in packet.decode()]
    return frames, float(stream.average_rate) if stream.average_rate else None


def measured(container: Any) -> tuple[int, tuple[int, int]]:
    """The number of frames of an open video and their upright (height, width), without decoding them.

    Packets hold one shown frame each; the header's own count may be absent, or before editing.
    """
    stream = container.streams.video[0]
    number, size = 0, (0, 0)
    for packet in container.demux(stream):
        _check_packet(packet)
        number += packet.size > 0 and not packet.is_discard
        if size == (0, 0):
            for frame in packet.decode():
                turned = frame.rotation % 180 != 0
                size = (frame.width, frame.height) if turned else (frame.height, frame.width)
                break
    return (number, size) if size != (0, 0) else (0, size)


def _check_packet(packet: Any) -> None:
    if packet.is_corrupt:
        raise ValueError("it is truncated or damaged")


def _turned(frame: Any) -> np.ndarray:
    # Phones store videos as the sensor lies, with the rotation to apply, as in a photograph's EXIF.
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
