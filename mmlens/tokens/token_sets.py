"""The split types of MINER's first stage: which token groups are compared (methods 3.1)."""

from __future__ import annotations

from collections.abc import Collection

from mmlens.errors import SampleError
from mmlens.tokens.places import KINDS

#: The seven token sets of MINER in their fixed order (methods 3.1).
SLOTS = ("text", "special", "special_text", "image", "video", "audio", "prompt")
#: Groups of tokens that stand for media.
MEDIA_GROUPS = KINDS
#: Split type -> its groups of written tokens, in the order of :data:`SLOTS`.
_WRITTEN = {
    "prompt": ("prompt",),
    "special_text_as_one": ("special_text",),
    "special_text_separate": ("text", "special"),
}
#: The names of the split types; ``special_text_separate`` is MINER's default.
SPLIT_TYPES = tuple(_WRITTEN)


def split_groups(split: str, media_groups: Collection[str]) -> tuple[str, ...]:
    """The token groups that a split type compares, in the order of :data:`SLOTS` (methods 3.1).

    - ``prompt``: all tokens as one set, so that no modalities are told apart: the baseline.
    - ``special_text_as_one``: special and text tokens as one set, and a set per medium.
    - ``special_text_separate``: text, special, and a set per medium; MINER's default.

    Each of them covers every token of the prompt exactly once. MINER drops groups whose importance
    scores are all zero; that is for the scores to see, not for the prompt.

    Args:
        split: one of :data:`SPLIT_TYPES`.
        media_groups: the media that the model, or the data, has: any of image, video, audio.

    Raises:
        SampleError: no such split type, or a group that stands for no medium.

    >>> split_groups("special_text_separate", ["video", "image"])
    ('text', 'special', 'image', 'video')
    """
    if split not in _WRITTEN:
        raise SampleError(f"There is no split type {split!r}; choose {', '.join(SPLIT_TYPES)}.")
    if unknown := [name for name in media_groups if name not in MEDIA_GROUPS]:
        raise SampleError(
            f"{unknown[0]!r} is no group of a medium; there are {', '.join(MEDIA_GROUPS)}."
        )
    media = () if split == "prompt" else MEDIA_GROUPS
    return _WRITTEN[split] + tuple(name for name in media if name in media_groups)
