"""The model of `demo/qwen2-audio`, its tokenizer and its processor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
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
from experiments.demos.demo import Demo
from experiments.demos.qwen2_audio.data import TrainingSounds, build
from experiments.demos.sounds import LIMIT, RATE, decode, plain_sounds
from experiments.demos.trainee import (
    Trainee,
    answer_greedily,
    build_tokenizer,
    decoder_settings,
    half_precision,
    whitening,
)

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
    text = Qwen2Config(**decoder_settings(tokenizer))
    config = Qwen2AudioConfig(
        audio_config=audio,
        text_config=text,
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    model = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        model.model.audio_tower.embed_positions.weight.copy_(sinusoids(PLACES, audio.d_model))
    answer_greedily(model.generation_config, tokenizer)
    return model


def sinusoids(length: int, width: int) -> torch.Tensor:
    """The fixed positions of a Whisper encoder, `[length, width]`."""
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


class Qwen2AudioTrainee(Trainee):
    """What the general training code asks of this model family."""

    kind = "audio"
    image_token = "<|AUDIO|>"

    def __init__(self, texts: Sequence[str]) -> None:
        processor = build_processor(texts)
        super().__init__(processor, build_model(processor))
        # Half precision is faster here, but not through the fused attention of a CPU.
        self.model.set_attn_implementation("eager")

    def _features(self, media: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Spectrograms, `[sounds, mels, frames]`, and how many of their frames are sound."""
        found = self.processor.feature_extractor(
            list(media), sampling_rate=RATE, return_attention_mask=True, return_tensors="pt"
        )
        return found["input_features"], found["attention_mask"].sum(-1)

    def _encoded(self, media: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
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
            states, tokens = self._encoded(media)
        index, count = torch.arange(states.shape[1])[None], tokens[:, None]
        halves = []
        for part in (index < count // 2, (index >= count // 2) & (index < count)):
            weights = part / part.sum(1, keepdim=True)
            halves.append((states.float() * weights[..., None]).sum(1))
        return torch.cat(halves, -1)

    def media(self, media: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """The embeddings that stand for each sound in the prompt, `[tokens, width]`."""
        with half_precision():
            states, tokens = self._encoded(media)
            found = self.model.model.multi_modal_projector(states).float()
        return [part[:count] for part, count in zip(found, tokens.tolist(), strict=True)]

    def decode(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The decoder's last hidden states, computed in half precision."""
        with half_precision():
            return super().decode(*args, **kwargs).float()

    @torch.no_grad()
    def whiten(self, media: Sequence[np.ndarray]) -> None:
        """Start the first convolution as a whitening of three frames of the spectrograms.

        From the usual start the mean level drowns the pattern, which is then learned slowly.
        """
        features, frames = self._features(media)
        windows = features.unfold(2, 3, 1).permute(0, 2, 1, 3)  # [sounds, places, mels, 3]
        inside = torch.arange(windows.shape[1])[None] < frames[:, None] - 2
        patches = windows[inside].flatten(1)
        convolution = self.model.model.audio_tower.conv1
        filters = whitening(torch.cov(patches.T), len(convolution.weight))
        convolution.weight.copy_(filters.reshape(len(filters), MELS, 3))
        convolution.bias.copy_(-filters @ patches.mean(0))


DEMO = Demo(
    "qwen2-audio",
    lambda out, _: build(out),  # needs no files
    TrainingSounds,
    Qwen2AudioTrainee,
    recipe={"tower": "audio_tower", "packed": 6, "tower_share": 0.3},
    judge=partial(
        evaluation.judge,
        model_class=Qwen2AudioForConditionalGeneration,
        kind="audios",
        decode=decode,
        plain=plain_sounds,
        sampling_rate=RATE,
    ),
    words={"medium": "sound", "media": "sounds", "tower": "audio tower"},
)
