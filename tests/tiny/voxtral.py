"""Tiny Voxtral: chunks of 0.32 seconds, a word-level tekken tokenizer, Llama decoder.

The processor needs mistral-common with its sound support: ``pip install "mistral-common[audio]"``.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import (
    LlamaConfig,
    VoxtralConfig,
    VoxtralEncoderConfig,
    VoxtralForConditionalGeneration,
    VoxtralProcessor,
    WhisperFeatureExtractor,
)

from mmlens.data.samples import Sample
from tests.tiny.common import TINY, TinyFamily, asked, sharpened, sound, vocabulary

RATE, HOP, MELS = 16000, 160, 8
#: A chunk has 32 frames, of which the tower sees 16, and stands for 4 tokens.
FRAMES, TOKENS = 32, 4
#: Special tokens by their published ids; the others have no name here.
NAMED = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    34: "[TRANSCRIBE]",
}
SPECIAL = [NAMED.get(i, f"<SPECIAL_{i}>") for i in range(36)]
#: Every byte has a token of its own, then come the words, at the start of a text and inside.
PIECES = [bytes([i]) for i in range(256)]
PIECES += [f"{blank}{word}".encode() for blank in ("", " ") for word in vocabulary([])]
# Words of one letter are bytes already.
PIECES = list(dict.fromkeys(PIECES))


def tekken(frame_rate: float = 12.5) -> dict[str, Any]:
    """What a tekken.json holds."""
    return {
        "config": {
            "pattern": r"\s?\S+|\s+",
            "num_vocab_tokens": len(PIECES),
            "default_vocab_size": len(PIECES) + len(SPECIAL),
            "default_num_special_tokens": len(SPECIAL),
            "version": "v7",
        },
        "vocab": [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(piece).decode(),
                "token_str": piece.decode(errors="replace"),
            }
            for rank, piece in enumerate(PIECES)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": name, "is_control": True}
            for rank, name in enumerate(SPECIAL)
        ],
        "audio": {
            "sampling_rate": RATE,
            "frame_rate": frame_rate,
            "audio_encoding_config": {
                "num_mel_bins": MELS,
                "hop_length": HOP,
                "window_size": 400,
            },
            "chunk_length_s": FRAMES * HOP / RATE,
        },
    }


def processor(frame_rate: float = 12.5, mels: int = MELS) -> VoxtralProcessor:
    """The real processor over mistral-common's own tokenizer."""
    from transformers.tokenization_mistral_common import MistralCommonBackend

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tekken.json"
        file.write_text(json.dumps(tekken(frame_rate)))
        tokenizer = MistralCommonBackend(tokenizer_path=file)
    sounds = WhisperFeatureExtractor(feature_size=mels, sampling_rate=RATE, hop_length=HOP)
    return VoxtralProcessor(feature_extractor=sounds, tokenizer=tokenizer)


def model(seed: int = 0, **text: Any) -> VoxtralForConditionalGeneration:
    """A random model; ``text`` overrides settings of its decoder."""
    settings = {
        "head_dim": 12,  # not hidden_size / heads, as published
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 11,
        **text,
    }
    config = VoxtralConfig(
        audio_config=VoxtralEncoderConfig(
            num_mel_bins=MELS,
            hidden_size=12,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_source_positions=FRAMES // 2,
        ),
        text_config=LlamaConfig(**TINY.decoder([*PIECES, *SPECIAL], **settings)),
        audio_token_id=SPECIAL.index("[AUDIO]"),
    )
    built = sharpened(lambda: VoxtralForConditionalGeneration(config), seed)
    assert isinstance(built, VoxtralForConditionalGeneration)
    return built


def samples() -> list[Sample]:
    """Sounds of several lengths and rates, prompts of several lengths, none and two sounds."""
    lengths = [0.11, 0.32, 0.5, 0.97]
    rates = [RATE, 8000, 44100, RATE, 22050]
    rows = asked("audio", [sound(lengths[i % 4], rates[i % 5], i) for i in range(7)])
    two = (sound(0.2, seed=8), sound(0.63, seed=9))
    rows.append(Sample("two", "w4 w5", audios=two, answers=("a",), domain="red"))
    rows.append(Sample("none", "what is a dog ?", answers=("a",), domain="blue"))
    return rows


FAMILY = TinyFamily(
    name="voxtral",
    variants={
        "llama": model,
        "llama-heads": lambda seed: model(seed, num_key_value_heads=4),
    },
    processor=processor,
    samples=samples,
)
