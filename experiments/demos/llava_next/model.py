"""The model of `demo/llava-next`, its tokenizer and its processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from experiments.demos.demo import Demo
from experiments.demos.llava_next.data import TrainingPictures, build
from experiments.demos.trainee import (
    Trainee,
    answer_greedily,
    build_tokenizer,
    decoder_settings,
    whiten_patches,
)

TILE, PATCH = 32, 8
PINPOINTS = [[32, 32], [32, 64], [64, 32]]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ ' ' if message['role'] == 'user' else eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def build_processor(texts: Sequence[str]) -> LlavaNextProcessor:
    """The processor: any-resolution tiles of 32 pixels in three layouts."""
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=PINPOINTS,
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(texts),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token of CLIP, which "default" drops again
        chat_template=TEMPLATE,
    )


def build_model(processor: LlavaNextProcessor) -> LlavaNextForConditionalGeneration:
    """An untrained model that fits the processor."""
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=TILE,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(**decoder_settings(tokenizer))
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(TILE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    model = LlavaNextForConditionalGeneration(config)
    answer_greedily(model.generation_config, tokenizer)
    return model


class LlavaNextTrainee(Trainee):
    """What the general training code asks of this model family."""

    def __init__(self, texts: Sequence[str]) -> None:
        processor = build_processor(texts)
        super().__init__(processor, build_model(processor))

    def _pixels(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        return dict(self.processor.image_processor(list(images), return_tensors="pt"))

    def media(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """The embeddings that stand for each picture in the prompt, `[tokens, width]`."""
        pixels = self._pixels(images)
        model: Any = self.model.model
        found = model.get_image_features(pixels["pixel_values"], pixels["image_sizes"])
        return list(found.pooler_output)

    def tower(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Pooled features of the vision tower alone, `[pictures, features]`, for its warm-up."""
        pixels = self._pixels(images)["pixel_values"]
        flat = pixels.flatten(2)
        real = flat.abs().sum(-1) > 0  # padding tiles are zero
        single = real.sum(1) == 2  # a square picture: its only tile is the overview again
        wanted = real & ~(single[:, None] & (torch.arange(flat.shape[1]) == 1))
        states = self.model.model.vision_tower(pixels[wanted], output_hidden_states=True)
        features = states.hidden_states[-2][:, 1:].mean(1)
        pooled = features.new_zeros(*wanted.shape, features.shape[-1])
        pooled[wanted] = features
        rest = pooled[:, 1:].sum(1) / wanted[:, 1:].sum(1, keepdim=True).clamp(min=1)
        return torch.cat([pooled[:, 0], torch.where(single[:, None], pooled[:, 0], rest)], -1)

    @torch.no_grad()
    def whiten(self, images: Sequence[Image.Image]) -> None:
        """Start the patch embedding as a whitening of the pictures' patches."""
        pixels = self._pixels(images)["pixel_values"].flatten(0, 1)
        whiten_patches(self.model.model.vision_tower.embeddings, pixels, PATCH)


DEMO = Demo("llava-next", build, TrainingPictures, LlavaNextTrainee)
