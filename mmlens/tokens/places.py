"""Where positions of a model lie in its media: a table of boxes and times, and what it is made of.

Nothing here knows a model; an adapter's ``places`` makes such tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: What a position is. ``none``: no medium (text, special tokens); ``patch``: it reads the pixels
#: of its box, and through attention others; ``newline``: a learned token at the end of a row of
#: patches, its box has no width; ``class``: a tower's class token; ``query``: a learned query that reads
#: the whole picture; ``padding``: a patch of the border that a processor put around the picture, or a
#: stretch of the silence that it put after a sound; ``span``: it reads a stretch of its sound, and
#: through attention others.
ROLES = ("none", "patch", "newline", "class", "query", "padding", "span")
#: Kinds of media, in the order in which a prompt shows them; :attr:`Places.kind` is an index into it.
KINDS = ("image", "video", "audio")

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Places:
    """Where each of a list of positions lies.

    Attributes:
        boxes: left, top, right, bottom, in fractions of the medium's width and height (the picture
            upright, as :func:`mmlens.data.media.pictures.open_picture` gives it); NaN where a position has no place
            in a picture.
        role: index into :data:`ROLES`.
        kind: index into :data:`KINDS`; -1 without a place.
        medium: which of the sample's media of that kind, from 0; -1 without a place.
        tile: 0: the whole picture at once; 1, 2, ...: tiles cut out of it, row by row; -1 without a place.
        frames: first frame of the video, and the one after the last; (0, 1) in a picture and a sound.
        seconds: where a ``span`` begins and ends in its sound, in seconds from the sound's start; NaN
            for every other position. See :func:`spans` for how much more of the sound it reads.
    """

    boxes: Float[Tensor, "pos 4"]
    role: Int[Tensor, " pos"]
    kind: Int[Tensor, " pos"]
    medium: Int[Tensor, " pos"]
    tile: Int[Tensor, " pos"]
    frames: Int[Tensor, "pos 2"]
    seconds: Float[Tensor, "pos 2"]

    def __len__(self) -> int:
        return len(self.role)

    def __getitem__(self, index: Int[Tensor, " n"] | Bool[Tensor, " pos"] | slice) -> Places:
        """The places of some positions."""
        return Places(*(getattr(self, f.name)[index] for f in fields(self)))

    def are(self, role: str) -> Bool[Tensor, " pos"]:
        """True at the positions of a role."""
        return self.role == ROLES.index(role)

    @classmethod
    def nowhere(cls, number: int) -> Places:
        """Positions that lie in no medium."""
        boxes = torch.full((number, 4), torch.nan)
        places = cls.of(boxes, "none", medium=-1, tile=-1, frames=(0, 0))
        return replace(places, kind=torch.full((number,), -1))

    @classmethod
    def of(
        cls,
        boxes: Float[Tensor, "pos 4"],
        role: str = "patch",
        *,
        kind: str = "image",
        medium: int = 0,
        tile: int = 0,
        frames: tuple[int, int] = (0, 1),
    ) -> Places:
        """Positions of one role in one tile or frame of one medium."""
        number = len(boxes)
        return cls(
            boxes=boxes,
            role=torch.full((number,), ROLES.index(role)),
            kind=torch.full((number,), KINDS.index(kind)),
            medium=torch.full((number,), medium),
            tile=torch.full((number,), tile),
            frames=torch.tensor(frames).expand(number, 2),
            seconds=torch.full((number, 2), torch.nan),
        )

    @classmethod
    def of_spans(cls, seconds: Float[Tensor, "pos 2"], length: float, medium: int = 0) -> Places:
        """Positions that read stretches of a sound.

        Args:
            seconds: start and end of each; cut at the sound's ends here. One that begins after the
                sound's end becomes ``padding``, without a time.
            length: of the sound, in seconds.
            medium: which of the sample's sounds.
        """
        beyond = seconds[:, 0] >= length
        cut = torch.where(beyond[:, None], torch.nan, seconds.clamp(0, length)).float()
        boxes = torch.full((len(cut), 4), torch.nan)
        places = cls.of(boxes, "span", kind="audio", medium=medium)
        role = torch.where(beyond, ROLES.index("padding"), places.role)
        return replace(places, role=role, seconds=cut)

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Places:
        """Several tables, one after another."""
        if not parts:
            return cls.nowhere(0)
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def newlines(self) -> Places:
        """A newline token after each of the positions: at its box's right edge, without width."""
        _, top, right, bottom = self.boxes.unbind(-1)
        boxes = torch.stack([right, top, right, bottom], -1)
        role = torch.full_like(self.role, ROLES.index("newline"))
        return replace(self, boxes=boxes, role=role)

    def clipped(self) -> Places:
        """Boxes cut at the medium's edges; a patch wholly beyond them is ``padding``, without a box."""
        boxes = self.boxes.clamp(0, 1)
        empty = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
        beyond = empty & self.are("patch")
        role = torch.where(beyond, ROLES.index("padding"), self.role)
        boxes = torch.where(beyond[:, None], torch.nan, boxes)
        return replace(self, boxes=boxes, role=role)


def cells(rows: int, columns: int, box: Box = WHOLE) -> Float[Tensor, "cell 4"]:
    """The cells of a grid that divides a box evenly, row by row.

    >>> cells(1, 2).tolist()
    [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]
    """
    left, top, right, bottom = box
    x = left + (right - left) * torch.arange(columns + 1, dtype=torch.float64) / columns
    y = top + (bottom - top) * torch.arange(rows + 1, dtype=torch.float64) / rows
    shape = (rows, columns)
    edges = [x[None, :-1], y[:-1, None], x[None, 1:], y[1:, None]]
    return torch.stack([edge.expand(shape) for edge in edges], -1).reshape(-1, 4).float()


def tiles(rows: int, columns: int, box: Box = WHOLE) -> list[Box]:
    """:func:`cells` as plain numbers."""
    return [(a, b, c, d) for a, b, c, d in cells(rows, columns, box).tolist()]


def window(content: tuple[int, int], offset: tuple[int, int], size: tuple[int, int]) -> Box:
    """What a window shows of a picture, in fractions of the picture; beyond 0 and 1 where it is larger.

    Args:
        content: (height, width) of the picture, resized.
        offset: (top, left) of the window in it; negative where the picture is padded.
        size: (height, width) of the window.

    >>> window((100, 200), offset=(0, 50), size=(100, 100))
    (0.25, 0.0, 0.75, 1.0)
    """
    (height, width), (top, left), (tall, wide) = content, offset, size
    return left / width, top / height, (left + wide) / width, (top + tall) / height


def class_and_patches(
    classes: int,
    rows: int,
    columns: int,
    box: Box = WHOLE,
    *,
    kind: str = "image",
    medium: int = 0,
    tile: int = 0,
    frames: tuple[int, int] = (0, 1),
) -> Places:
    """The positions of one tile or frame in a tower: class tokens, then patches row by row."""
    where: dict[str, Any] = {"kind": kind, "medium": medium, "tile": tile, "frames": frames}
    whole = Places.of(torch.tensor([box]).expand(classes, 4), "class", **where)
    return Places.joined([whole, Places.of(cells(rows, columns, box), **where)])


def spans(number: int, frames: int, hop: float, first: float = 0.0) -> Float[Tensor, "span 2"]:
    """The stretches of a sound that the positions of a Whisper-like encoder stand for, in seconds.

    Position i is made of ``frames`` frames of the spectrogram and stands for
    ``(i * frames - 1) * hop`` to ``((i + 1) * frames - 1) * hop``: the stretches follow one another
    without gaps, and each lies in the middle of what its position reads. (Ours; the one frame by which
    they come early: frame f of a spectrogram is centred at ``f * hop``, not after it, and output j of
    the encoder's second convolution, of stride 2 and padding 1, is centred at frame ``2 * j``.)

    What a position reads reaches further, on both sides by one frame, through the convolutions, and
    by half a window of the spectrogram: with Whisper's 10 ms and 25 ms that is 22.5 ms. Attention
    mixes positions in the encoder's layers; that is not in this.

    Args:
        number: positions.
        frames: of the spectrogram, per position; an even number: 2 in an encoder's layers, 4 where
            pairs of its positions are pooled.
        hop: seconds between two frames.
        first: where the spectrogram begins in the sound, in seconds.

    >>> spans(2, 4, 0.25).tolist()
    [[-0.25, 0.75], [0.75, 1.75]]
    """
    edges = (torch.arange(number + 1, dtype=torch.float64) * frames - 1) * hop + first
    return torch.stack([edges[:-1], edges[1:]], -1).float()
