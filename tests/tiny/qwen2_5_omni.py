"""Tiny Qwen2.5-Omni thinker: the tower of Qwen2.5-VL, and sounds of at most two seconds."""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from mmlens.data.samples import Sample
from tests.tiny.common import TinyFamily, picture, sharpened, sound, tokenizer, video, vocabulary
from tests.tiny.qwen2_5_vl import vision_settings
from tests.tiny.qwen2_vl import PIXELS, text_settings, visual_processors

BANDS = 8
SPECIAL = [
    "<|endoftext|>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|AUDIO|>",
]
WORDS = vocabulary(SPECIAL)
CHAT = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<|im_start|> system answer <|im_end|>\n{% endif %}"
    "<|im_start|> {{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif c['type'] == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif c['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant\n{% endif %}"
)


def omni_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with the special tokens of Qwen2.5-Omni's format."""
    return tokenizer(
        SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "im_start_token": "<|im_start|>",
            "image_token": "<|IMAGE|>",
            "video_token": "<|VIDEO|>",
            "audio_token": "<|AUDIO|>",
            "vision_bos_token": "<|vision_bos|>",
            "vision_eos_token": "<|vision_eos|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
        },
    )


def processor() -> Qwen2_5OmniProcessor:
    """The real processor, with spectrograms of few bands and at most two seconds."""
    built = Qwen2_5OmniProcessor(
        **visual_processors(),
        feature_extractor=WhisperFeatureExtractor(feature_size=BANDS, chunk_length=2),
        tokenizer=omni_tokenizer(),
        chat_template=CHAT,
    )
    # The class overrides its video processor's size by one that makes every frame large.
    built.videos_kwargs = {"size": PIXELS}
    return built


def model(
    seed: int = 0, tied: bool = False, **text: Any
) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    config = Qwen2_5OmniThinkerConfig(**thinker_settings(tied, **text))
    built = sharpened(lambda: Qwen2_5OmniThinkerForConditionalGeneration(config), seed)
    assert isinstance(built, Qwen2_5OmniThinkerForConditionalGeneration)
    return built


def thinker_settings(tied: bool = False, **text: Any) -> dict[str, Any]:
    """Settings of a small thinker."""
    return {
        "text_config": {
            **text_settings(**text),
            "vocab_size": len(WORDS),
            "eos_token_id": WORDS.index("<|im_end|>"),
            "pad_token_id": WORDS.index("<|endoftext|>"),
            "tie_word_embeddings": tied,
        },
        "vision_config": vision_settings(),
        "audio_config": {
            "num_mel_bins": BANDS,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "d_model": 16,
            "n_window": 10,
            "output_dim": 32,
        },
        "image_token_index": WORDS.index("<|IMAGE|>"),
        "video_token_index": WORDS.index("<|VIDEO|>"),
        "audio_token_index": WORDS.index("<|AUDIO|>"),
        "vision_start_token_id": WORDS.index("<|vision_bos|>"),
        "vision_end_token_id": WORDS.index("<|vision_eos|>"),
        "audio_start_token_id": WORDS.index("<|audio_bos|>"),
        "audio_end_token_id": WORDS.index("<|audio_eos|>"),
        "user_token_id": WORDS.index("user"),
        "tie_word_embeddings": tied,
    }


def samples() -> list[Sample]:
    """Every kind of media alone and together, sounds of several lengths, and none in a prompt."""
    rows: list[dict[str, Any]] = [
        {"text": "what is this ?", "images": (picture(16, 24),)},
        {"text": "what is shown here ? a cat", "audios": (sound(0.3),)},
        {"text": "w1 w2 w3", "audios": (sound(0.41, seed=1), sound(0.2, seed=2))},
        {"text": "one dog", "videos": (video(4, 24, 16),)},
        {"text": "w4 w5", "images": (picture(40, 15, 1),), "audios": (sound(0.155, seed=3),)},
        {"text": "what is a dog ?"},
        {"text": "w6", "videos": (video(3, 16, 16, 1),), "audios": (sound(0.25, 8000, 4),)},
        {
            "text": "a red cat",
            "images": (picture(17, 30, 2), picture(24, 8, 3)),
            "videos": (video(2, 16, 40, 2),),
            "audios": (sound(2.5, seed=5),),
        },
    ]
    return [
        Sample(id=f"s{i}", answers=("a",), domain="red" if i % 2 else "blue", **one)
        for i, one in enumerate(rows)
    ]


FAMILY = TinyFamily(
    name="qwen2.5-omni",
    variants={
        "untied": model,
        "tied": lambda seed: model(seed, tied=True),
    },
    processor=processor,
    samples=samples,
)
