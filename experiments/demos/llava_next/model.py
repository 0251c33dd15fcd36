"""The model of `demo/llava-next`, its tokenizer and its processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
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
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")


def build_tokenizer(
    texts: Sequence[str],
    special: Sequence[str] = SPECIAL,
    *,
    bos: str | None = "<s>",
    eos: str = "</s>",
    pad: str = "<pad>",
    extra: Mapping[str, str] = MappingProxyType({"image_token": "<image>"}),
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of `texts` and of the chat template.

    `special`: the special tokens, in the order of their ids; `extra`: names for further ones.
    """
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {
        word
        for text in [*texts, "user: assistant: system: . , ? !"]
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    vocabulary = {word: index for index, word in enumerate([*special, *sorted(words)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.WordPiece(
        prefix="##", cleanup=True
    )  # joins words, closes up punctuation
    if bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>",
        pad_token=pad,
        padding_side="left",
        model_max_length=512,
        extra_special_tokens=dict(extra),
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
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=896,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
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
    settings = model.generation_config
    settings.do_sample, settings.max_new_tokens = False, 8
    settings.bos_token_id, settings.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    settings.pad_token_id = tokenizer.pad_token_id
    return model


class LlavaNextTrainee:
    """What the general training code asks of this model family."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.processor = build_processor(texts)
        self.model = build_model(self.processor)
        self.tokenizer = self.processor.tokenizer
        self.image_token = "<image>"

    def prompt(self, text: str) -> str:
        """The prompt of a question, with one placeholder for its picture."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False
        )

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

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings."""
        return self.model.get_input_embeddings()(ids)

    def decode(
        self, embeddings: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """The decoder's last hidden states under an additive `[batch, 1, query, key]` mask."""
        decoder = self.model.model.language_model
        return decoder(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states."""
        return self.model.lm_head(hidden)

    @torch.no_grad()
    def whiten(self, images: Sequence[Image.Image]) -> None:
        """Start the patch embedding as a whitening of the pictures' patches.

        From the usual start the mean of a patch drowns its pattern, which is then learned slowly.
        """
        pixels = self._pixels(images)["pixel_values"].flatten(0, 1)
        patches = torch.nn.functional.unfold(pixels, PATCH, stride=PATCH).mT.flatten(0, 1)
        patches = patches[patches.abs().sum(-1) > 0]  # padding tiles are zero
        covariance = patches.T @ patches / len(patches)
        values, vectors = torch.linalg.eigh(covariance)
        embeddings = self.model.model.vision_tower.embeddings
        width = embeddings.patch_embedding.weight.shape[0]
        values, vectors = values[-width:], vectors[:, -width:]
        filters = vectors / (values + 1e-3 * values.mean()).sqrt()
        rotation = torch.linalg.qr(torch.randn(width, width)).Q
        embeddings.patch_embedding.weight.copy_(
            (filters @ rotation).T.reshape(width, 3, PATCH, PATCH)
        )
        embeddings.position_embedding.weight.normal_(std=0.3)
