"""The model of `demo/qwen2-audio`, its tokenizer and its processor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)

from experiments.demos import evaluation
from experiments.demos.llava_next.model import build_tokenizer
from experiments.demos.sounds import LIMIT, RATE, decode, plain_sounds

MELS, HOP = 64, 160
#: Frames of the longest sound, and its places after the convolutions of the tower.
FRAMES = LIMIT // HOP
PLACES = FRAMES // 2
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<unk>",
)
SYSTEM = "You are a helpful assistant."
TEMPLATE = (
    "{% set sounds = namespace(count=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + SYSTEM + "<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}{% set sounds.count = sounds.count + 1 %}"
    "{{ 'Audio ' + sounds.count|string + ': <|audio_bos|><|AUDIO|><|audio_eos|>\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def half_precision() -> torch.autocast:
    """Matrix products in bfloat16; weights and updates stay in float32."""
    return torch.autocast("cpu", torch.bfloat16)


def build_processor(texts: Sequence[str]) -> Qwen2AudioProcessor:
    """The processor: spectrograms of two seconds with 64 mel bins."""
    words = f"{SYSTEM} system user assistant Audio 1: Audio 2:"
    tokenizer: PreTrainedTokenizerFast = build_tokenizer(
        [*texts, words],
        SPECIAL,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        extra={
            "audio_token": "<|AUDIO|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
            "start_token": "<|im_start|>",
        },
    )
    extractor = WhisperFeatureExtractor(
        feature_size=MELS, hop_length=HOP, sampling_rate=RATE, chunk_length=LIMIT // RATE
    )
    return Qwen2AudioProcessor(
        feature_extractor=extractor, tokenizer=tokenizer, chat_template=TEMPLATE
    )


def build_model(processor: Any) -> Qwen2AudioForConditionalGeneration:
    """An untrained model that fits the processor."""
    tokenizer = processor.tokenizer
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=MELS,
        d_model=128,
        encoder_layers=4,
        encoder_attention_heads=4,
        encoder_ffn_dim=512,
        max_source_positions=PLACES,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=896,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = Qwen2AudioConfig(
        audio_config=audio,
        text_config=text,
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    model = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        model.model.audio_tower.embed_positions.weight.copy_(sinusoids(PLACES, audio.d_model))
    settings = model.generation_config
    settings.do_sample, settings.max_new_tokens = False, 8
    settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    return model


def sinusoids(length: int, width: int) -> torch.Tensor:
    """The fixed positions of a Whisper encoder, `[length, width]`."""
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


class Qwen2AudioTrainee:
    """What the general training code asks of this model family."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.processor: Any = build_processor(texts)
        self.model: Any = build_model(self.processor)
        # Half precision is faster here, but not through the fused attention of a CPU.
        self.model.set_attn_implementation("eager")
        self.tokenizer = self.processor.tokenizer
        self.image_token = "<|AUDIO|>"

    def prompt(self, text: str) -> str:
        """The prompt of a question, with one placeholder for its sound."""
        content = [{"type": "audio"}, {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False
        )

    def _features(self, media: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Spectrograms, `[sounds, mels, frames]`, and how many of their frames are sound."""
        found = self.processor.feature_extractor(
            list(media), sampling_rate=RATE, return_attention_mask=True, return_tensors="pt"
        )
        return found["input_features"], found["attention_mask"].sum(-1)

    def _hear(self, media: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """The tower's output, `[sounds, tokens, width]`, and how many tokens are sound."""
        with torch.autocast("cpu", enabled=False):
            features, frames = self._features(media)
        places, tokens = self.model.model.audio_tower._get_feat_extract_output_lengths(frames)
        hidden = torch.arange(PLACES)[None] >= places[:, None]
        mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)
        states = self.model.model.audio_tower(features, attention_mask=mask[:, None, None])
        return states.last_hidden_state, tokens

    def tower(self, media: Sequence[np.ndarray]) -> torch.Tensor:
        """Features of the audio tower alone for its warm-up: the means of both halves."""
        with half_precision():
            states, tokens = self._hear(media)
        index, count = torch.arange(states.shape[1])[None], tokens[:, None]
        halves = []
        for part in (index < count // 2, (index >= count // 2) & (index < count)):
            weights = part / part.sum(1, keepdim=True)
            halves.append((states.float() * weights[..., None]).sum(1))
        return torch.cat(halves, -1)

    def media(self, media: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """The embeddings that stand for each sound in the prompt, `[tokens, width]`."""
        with half_precision():
            states, tokens = self._hear(media)
            found = self.model.model.multi_modal_projector(states).float()
        return [part[:count] for part, count in zip(found, tokens.tolist(), strict=True)]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings."""
        return self.model.get_input_embeddings()(ids)

    def decode(
        self, embeddings: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """The decoder's last hidden states under an additive `[batch, 1, query, key]` mask."""
        decoder = self.model.model.language_model
        with half_precision():
            return decoder(
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
            ).last_hidden_state.float()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states."""
        return self.model.lm_head(hidden)

    @torch.no_grad()
    def whiten(self, media: Sequence[np.ndarray]) -> None:
        """Start the first convolution as a whitening of three frames of the spectrograms.

        From the usual start the mean level drowns the pattern, which is then learned slowly.
        """
        features, frames = self._features(media)
        windows = features.unfold(2, 3, 1).permute(0, 2, 1, 3)  # [sounds, places, mels, 3]
        inside = torch.arange(windows.shape[1])[None] < frames[:, None] - 2
        patches = windows[inside].flatten(1)
        mean = patches.mean(0)
        covariance = torch.cov(patches.T)
        values, vectors = torch.linalg.eigh(covariance)
        convolution = self.model.model.audio_tower.conv1
        width = len(convolution.weight)
        values, vectors = values[-width:], vectors[:, -width:]
        filters = vectors / (values + 1e-3 * values.mean()).sqrt()
        filters = (filters @ torch.linalg.qr(torch.randn(width, width)).Q).T
        convolution.weight.copy_(filters.reshape(width, MELS, 3))
        convolution.bias.copy_(-filters @ mean)


def evaluate(out: Path, data: Path, split: str, controls: bool) -> pd.DataFrame:
    """Judge the saved checkpoint in float32; with silence, noise and other sounds as controls."""
    model = Qwen2AudioForConditionalGeneration.from_pretrained(out, dtype=torch.float32).eval()
    processor = Qwen2AudioProcessor.from_pretrained(out)
    decoders = {"audios": decode}
    train = evaluation.read(data / "train.parquet", decoders)
    table = evaluation.read(data / f"{split}.parquet", decoders)
    shown = plain_sounds(list(table.medium)) | evaluation.shuffles(table) if controls else {}
    answer = partial(evaluation.answer, model, processor, kind="audios", sampling_rate=RATE)
    return evaluation.evaluate(train, table, answer, shown)
