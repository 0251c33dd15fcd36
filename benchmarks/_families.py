"""The papers' four families for the benchmarks: their sizes, and media that fill a prompt.

The models are those of the tests, built in other sizes, small or of the published widths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedConfig, ProcessorMixin

from benchmarks._sizes import SizeName
from tests.tiny import instructblip, llava_next, qwen2_audio, qwen2_vl
from tests.tiny.common import ModelSize, Widths, picture, sound

#: Tokens that media take in a prompt, brackets included, and whatever the family makes them from.
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A family of models for the benchmark.

    Attributes:
        name: as on the command line.
        sizes: the random models, small and of the published widths.
        config: of a size's model.
        processor: the real processor that fits it, over a word-level tokenizer.
        shapes: every choice of media for one prompt; the first number of each is the tokens that
            it takes, the others tell :attr:`media` what to make.
        media: noise of a shape, by a seed, as a sample's fields.
    """

    name: str
    sizes: Mapping[SizeName, ModelSize]
    config: Callable[[ModelSize], PreTrainedConfig]
    processor: Callable[[ModelSize], ProcessorMixin]
    shapes: Callable[[ModelSize], Sequence[Shape]]
    media: Callable[[ModelSize, Shape, int], Mapping[str, Any]]


def _sizes(tiny: ModelSize, small: ModelSize, published: ModelSize) -> dict[SizeName, ModelSize]:
    return {"tiny": tiny, "small": small, "7b": published}


#: Decoders and towers that the families' sizes start from.
_TINY = ModelSize(2, 64, 96, 4, 2, 600, Widths(2, 16, 32, 2), side=0, patch=14, positions=8192)
_SMALL = replace(
    _TINY,
    layers=6,
    d_model=768,
    d_mlp=2048,
    heads=12,
    kv_heads=12,
    vocab=32_000,
    tower=Widths(3, 128, 512, 2),
)
_7B = replace(_SMALL, layers=32, d_model=4096, d_mlp=11_008, heads=32, kv_heads=32)

# -- LLaVA-NeXT: one picture of up to 8 x 8 tiles, which fills its grid ------------------------------

_CHAT = (
    "{{ bos_token }} {% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def _grids(size: ModelSize) -> list[list[int]]:
    """Every grid of up to 8 x 8 tiles, so that a picture can be made for any length of prompt."""
    return [[size.side * high, size.side * wide] for high in range(1, 9) for wide in range(1, 9)]


def _llava_next_processor(size: ModelSize) -> ProcessorMixin:
    processor: Any = llava_next.processor(size=size, pinpoints=_grids(size))
    processor.chat_template = _CHAT
    return processor


def _llava_next_shapes(size: ModelSize) -> Sequence[Shape]:
    """The base tile's patches, then the grid's, with a newline after every row."""
    patch, base = size.patch, (size.side // size.patch) ** 2
    return [(base + (h // patch) * (w // patch + 1), h, w) for h, w in _grids(size)]


_LLAVA_NEXT = Family(
    name="llava-next",
    sizes=_sizes(
        replace(_TINY, tower=Widths(2, 16, 64, 1), side=64, patch=8),
        replace(_SMALL, kv_heads=4, side=64, patch=8),
        # llava-v1.6-mistral-7b; its own grids are fewer.
        replace(
            _7B,
            d_mlp=14_336,
            kv_heads=8,
            vocab=32_064,
            tower=Widths(24, 1024, 4096, 16),
            side=336,
            positions=32_768,
        ),
    ),
    config=lambda size: llava_next.config(size=size, pinpoints=_grids(size), sliding_window=None),
    processor=_llava_next_processor,
    shapes=_llava_next_shapes,
    media=lambda _size, shape, seed: {"images": (picture(shape[2], shape[1], seed),)},
)

# -- InstructBLIP: 32 tokens a picture, so long prompts are text for the greatest part ---------------

_QUERIES = 32


def _instructblip_config(size: ModelSize) -> PreTrainedConfig:
    """The Q-Former has a position for all of the prompt, where the published one has 512."""
    # The tower's default leaves next to nothing of a picture.
    vision = {"initializer_range": 0.02}
    return instructblip.config("vicuna", size, _QUERIES, size.positions, vision)


_INSTRUCTBLIP = Family(
    name="instructblip",
    sizes=_sizes(
        replace(_TINY, kv_heads=4, side=28, qformer=Widths(2, 16, 32, 2), positions=1024),
        replace(_SMALL, side=112, qformer=Widths(2, 128, 512, 2)),
        # instructblip-vicuna-7b.
        replace(
            _7B,
            vocab=32_001,
            tower=Widths(39, 1408, 6144, 16),
            side=224,
            qformer=Widths(12, 768, 3072, 12),
        ),
    ),
    config=_instructblip_config,
    processor=lambda size: instructblip.processor(_QUERIES, size),
    shapes=lambda _size: [(_QUERIES,)],
    media=lambda size, _shape, seed: {"images": (picture(size.side, size.side, seed),)},
)

# -- Qwen2-VL: one picture at its own resolution, square or nearly -----------------------------------

#: What opens and closes a picture; the longest side of one, in tokens.
_BRACKETS, _LONGEST_SIDE = 2, 100


def _qwen2_vl_processor(size: ModelSize) -> ProcessorMixin:
    token = (size.patch * qwen2_vl.MERGE) ** 2
    pixels = {"shortest_edge": token, "longest_edge": _LONGEST_SIDE**2 * token}
    return qwen2_vl.processor(size.patch, pixels)


def _qwen2_vl_media(size: ModelSize, shape: Shape, seed: int) -> Mapping[str, Any]:
    _, high, wide = shape
    side = size.patch * qwen2_vl.MERGE
    return {"images": (picture(wide * side, high * side, seed),)}


_QWEN2_VL = Family(
    name="qwen2-vl",
    sizes=_sizes(
        replace(_TINY, patch=4),
        replace(_SMALL, kv_heads=4),
        # Qwen2-VL-7B.
        ModelSize(
            28, 3584, 18_944, 28, 4, 152_064, Widths(32, 1280, 5120, 16), 0, 14, positions=32_768
        ),
    ),
    config=qwen2_vl.config,
    processor=_qwen2_vl_processor,
    shapes=lambda _size: [
        (high * wide + _BRACKETS, high, wide)
        for high in range(2, _LONGEST_SIDE)
        for wide in (high, high + 1)
    ],
    media=_qwen2_vl_media,
)

# -- Qwen2-Audio: sounds of equal length, as few as can be -------------------------------------------
# A spectrogram spans 30 seconds however short its sound, so the tower's work goes by the number of
# sounds. A sound takes 750 tokens at most: longer prompts have several.

_MELS, _SECONDS, _TOKENS_PER_SECOND, _SOUNDS = 128, 30, 25, 10
_LONGEST_SOUND = _SECONDS * _TOKENS_PER_SECOND
#: What the template writes before a sound, and the tokens that open and close it.
_AROUND_SOUND = 4


def _qwen2_audio_media(_size: ModelSize, shape: Shape, seed: int) -> Mapping[str, Any]:
    _, sounds, tokens = shape
    seconds = tokens / _TOKENS_PER_SECOND
    return {"audios": tuple(sound(seconds, seed=_SOUNDS * seed + i) for i in range(sounds))}


_QWEN2_AUDIO = Family(
    name="qwen2-audio",
    sizes=_sizes(
        _TINY,
        _SMALL,
        # Qwen2-Audio-7B.
        replace(_7B, vocab=156_032, tower=Widths(32, 1280, 5120, 20)),
    ),
    config=lambda size: qwen2_audio.config(size, _MELS, _SECONDS),
    processor=lambda _size: qwen2_audio.processor(mels=_MELS, seconds=_SECONDS),
    shapes=lambda _size: [
        (sounds * (tokens + _AROUND_SOUND), sounds, tokens)
        for sounds in range(1, _SOUNDS + 1)
        for tokens in range((sounds - 1) * _LONGEST_SOUND // sounds + 1, _LONGEST_SOUND + 1)
    ],
    media=_qwen2_audio_media,
)

FAMILIES = {one.name: one for one in (_LLAVA_NEXT, _INSTRUCTBLIP, _QWEN2_VL, _QWEN2_AUDIO)}
