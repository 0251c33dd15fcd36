"""Whether an encoded file is complete, by its own headers.

Most decoders silently give what a truncated file still holds.
"""

from __future__ import annotations

import io

#: How a Matroska or WebM file begins.
MATROSKA = b"\x1a\x45\xdf\xa3"


def check_length(file: io.BufferedIOBase) -> None:
    """Refuse a file that is shorter than its own header says.

    Raises:
        ValueError: it is; the message says how much is there.
    """
    there = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(64)
    announced = _boxes_end(file, there) if has_boxes(head) else _announced_bytes(head)
    cut = head[:4] == b"OggS" and not _is_whole_ogg(file, there)
    file.seek(0)
    if cut:
        raise ValueError("it is truncated, without the page that ends an OGG")
    if announced is not None and announced > there:
        raise ValueError(f"it is truncated, with {there} of {announced} bytes there")


def has_boxes(head: bytes) -> bool:
    """Whether these are the first bytes of an MP4 or MOV, which are boxes one after another."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def _boxes_end(file: io.BufferedIOBase, there: int) -> int:
    """Where the last box ends that starts within the first ``there`` bytes."""
    end = 0
    while end < there:
        file.seek(end)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # too long for four bytes: it follows the name
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # up to the end of the file, or no box at all
            return there
        end += size
    return end


def _is_whole_ogg(file: io.BufferedIOBase, there: int) -> bool:
    """Whether the last page is complete and marked as the last."""
    file.seek(max(0, there - 65307))  # the longest page
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _announced_bytes(head: bytes) -> int | None:
    """The length of a RIFF, AIFF or Matroska file by its header; None where it gives none."""
    if head[:4] in (b"RIFF", b"FORM"):
        size = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        # Programs that write to a pipe do not know the length, and put zero or the largest number.
        # Some count the eight bytes of this header as well, so those may be missing.
        return size if 0 < size < 0x7FFF0000 else None
    if head[:4] == MATROSKA:
        size, start = _matroska_size(head, 4)
        segment = None if size is None else start + size
        if segment is None or head[segment : segment + 4] != b"\x18\x53\x80\x67":
            return None
        size, start = _matroska_size(head, segment + 4)
        return None if size is None else start + size
    return None


def _matroska_size(head: bytes, at: int) -> tuple[int | None, int]:
    """The size written at ``at`` (None where it is left open), and where its content starts."""
    if at >= len(head) or head[at] == 0:
        return None, at
    # The leading zero bits of the first byte say how many bytes follow; the rest is the number.
    width = 9 - head[at].bit_length()
    number = int.from_bytes(head[at : at + width], "big") - (1 << (7 * width))
    return (None if number == (1 << (7 * width)) - 1 else number), at + width
