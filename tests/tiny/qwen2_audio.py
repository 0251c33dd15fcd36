"""Tiny Qwen2-Audio: sounds of up to a second, Qwen2 decoder."""

from __future__ import annotations

from typing import Any

from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)

from mmlens.data.samples import Sample
from tests.tiny.common import (
    ModelSize,
    TinyFamily,
    Widths,
    asked,
    sharpened,
    sound,
    tokenizer,
    vocabulary,
)

#: A spectrogram spans one second: 100 frames, 50 of them in the tower, 25 in the prompt.
RATE, HOP, FRAMES, MELS = 16000, 160, 100, 8
SIZE = ModelSize(tower=Widths(layers=2))
SPECIAL = [
    "<|endoftext|>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
]
WORDS = vocabulary(SPECIAL)
#: The published template's, with blanks where the word-level tokenizer needs them.
CHAT = (
    "{% set audio_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|> w0 w1 <|im_end|> {% endif %}"
    "<|im_start|> {{ message['role'] }} {% for content in message['content'] %}"
    "{% if 'audio' in content or 'audio_url' in content %}"
    "{% set audio_count.value = audio_count.value + 1 %}"
    "w{{ audio_count.value }} : <|audio_bos|><|AUDIO|><|audio_eos|> "
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|> "
    "{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


def processor(mels: int = MELS, seconds: int = 1) -> Qwen2AudioProcessor:
    """The real processor."""
    words = tokenizer(
        SPECIAL,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[2:],
    )
    sounds = WhisperFeatureExtractor(
        feature_size=mels, sampling_rate=RATE, hop_length=HOP, chunk_length=seconds
    )
    return Qwen2AudioProcessor(feature_extractor=sounds, tokenizer=words, chat_template=CHAT)


def config(
    size: ModelSize = SIZE, mels: int = MELS, seconds: int = 1, **text: Any
) -> Qwen2AudioConfig:
    """The config of a model; ``text`` overrides settings of its decoder."""
    settings = {"bos_token_id": None, "eos_token_id": WORDS.index("<|im_end|>"), **text}
    return Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=mels,
            d_model=size.tower.width,
            encoder_layers=size.tower.layers,
            encoder_attention_heads=size.tower.heads,
            encoder_ffn_dim=size.tower.mlp,
            max_source_positions=FRAMES // 2 * seconds,
        ),
        text_config=Qwen2Config(**size.decoder(WORDS, **settings)),
        audio_token_index=WORDS.index("<|AUDIO|>"),
    )


def model(seed: int = 0, **text: Any) -> Qwen2AudioForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    built = sharpened(lambda: Qwen2AudioForConditionalGeneration(config(**text)), seed)
    assert isinstance(built, Qwen2AudioForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Sounds of several lengths and rates, prompts of several lengths, none and two sounds."""
    lengths = [0.11, 0.4, 0.97, 1.3]  # the last is cut off at one second
    rates = [RATE, 8000, 44100, RATE, 22050]
    rows = asked("audio", [sound(lengths[i % 4], rates[i % 5], i) for i in range(7)])
    two = (sound(0.2, seed=8), sound(0.63, seed=9))
    rows.append(Sample("two", "w4 w5", audios=two, answers=("a",), domain="red"))
    rows.append(Sample("none", "what is a dog ?", answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="qwen2-audio",
    variants={
        "qwen2": model,
        "qwen2-window": lambda seed: model(
            seed, use_sliding_window=True, sliding_window=6, max_window_layers=1
        ),
    },
    processor=processor,
    samples=samples,
)
