"""Qwen2-Audio: sounds of up to 30 seconds, 40 ms to a token, before a Whisper-like tower; Qwen2.

A spectrogram spans 30 seconds however short its sound, so the tower's work goes by the number of
sounds. A sound takes 750 tokens at most: longer prompts have several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioProcessor,
    Qwen2Config,
)

from benchmarks._sizes import Family, ModelSize, Shape, Widths
from tests.tiny import qwen2_audio as tiny
from tests.tiny.common import sound

_MELS, _SECONDS = 128, 30
_TOKENS_PER_SECOND = 25
_LONGEST = _SECONDS * _TOKENS_PER_SECOND
#: What the template writes before a sound, and the tokens that open and close it.
_BRACKETS = 4
_SOUNDS = 10


def _config(size: ModelSize) -> Qwen2AudioConfig:
    return Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=_MELS,
            d_model=size.tower.width,
            encoder_layers=size.tower.layers,
            encoder_attention_heads=size.tower.heads,
            encoder_ffn_dim=size.tower.mlp,
            max_source_positions=2 * _LONGEST,
        ),
        text_config=Qwen2Config(
            **size.decoder(
                eos_token_id=tiny.WORDS.index("<|im_end|>"),
                pad_token_id=tiny.WORDS.index("<|endoftext|>"),
            )
        ),
        audio_token_index=tiny.WORDS.index("<|AUDIO|>"),
    )


def _processor(_size: ModelSize) -> Qwen2AudioProcessor:
    return tiny.processor(mels=_MELS, seconds=_SECONDS)


def _shapes(_size: ModelSize) -> Sequence[Shape]:
    """Sounds of equal length, as few as can be."""
    return [
        (sounds * (tokens + _BRACKETS), sounds, tokens)
        for sounds in range(1, _SOUNDS + 1)
        for tokens in range((sounds - 1) * _LONGEST // sounds + 1, _LONGEST + 1)
    ]


def _media(_size: ModelSize, shape: Shape, seed: int) -> Mapping[str, Any]:
    _, sounds, tokens = shape
    seconds = tokens / _TOKENS_PER_SECOND
    return {"audios": tuple(sound(seconds, seed=_SOUNDS * seed + i) for i in range(sounds))}


FAMILY = Family(
    name="qwen2-audio",
    sizes={
        "tiny": ModelSize(
            layers=2,
            d_model=64,
            d_mlp=96,
            heads=4,
            kv_heads=2,
            vocab=600,
            tower=Widths(layers=2, width=16, mlp=32, heads=2),
        ),
        "small": ModelSize(
            layers=6,
            d_model=768,
            d_mlp=2048,
            heads=12,
            kv_heads=12,
            vocab=32_000,
            tower=Widths(layers=3, width=128, mlp=512, heads=2),
        ),
        # Qwen2-Audio-7B.
        "7b": ModelSize(
            layers=32,
            d_model=4096,
            d_mlp=11_008,
            heads=32,
            kv_heads=32,
            vocab=156_032,
            tower=Widths(layers=32, width=1280, mlp=5120, heads=20),
        ),
    },
    config=_config,
    processor=_processor,
    shapes=_shapes,
    media=_media,
)
