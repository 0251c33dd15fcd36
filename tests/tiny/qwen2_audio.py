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
from tests.tiny.common import TinyFamily, asked, sharpened, sound, tokenizer, vocabulary

#: A spectrogram spans one second: 100 frames, 50 of them in the tower, 25 in the prompt.
RATE, HOP, FRAMES, MELS = 16000, 160, 100, 8
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


def model(seed: int = 0, **text: Any) -> Qwen2AudioForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    settings = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "eos_token_id": SPECIAL.index("<|im_end|>"),
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=MELS,
            d_model=24,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=40,
            max_source_positions=FRAMES // 2,
        ),
        text_config=Qwen2Config(**{**settings, **text}),
        audio_token_index=SPECIAL.index("<|AUDIO|>"),
    )
    built = sharpened(lambda: Qwen2AudioForConditionalGeneration(config), seed)
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
