"""Random LLaVA-NeXT models and prompts of a wanted length, built from configs, offline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

import mmlens

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]

TILE, PATCH = 64, 8
_SIDE = TILE // PATCH
# Every grid of up to 8 x 8 tiles, so that a picture can be made for any length of prompt.
_GRIDS = [[TILE * high, TILE * wide] for high in range(1, 9) for wide in range(1, 9)]
_WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<image>", *(f"w{i}" for i in range(500))]
# The decoder's non-image tokens beside the question: beginning of text.
_TEMPLATE_TOKENS = 1
_DOMAINS = 5


@dataclass(frozen=True)
class ModelSize:
    """The random model: a Mistral decoder with grouped keys behind a small CLIP tower."""

    layers: int = 6
    d_model: int = 768
    d_mlp: int = 2048
    heads: int = 12
    kv_heads: int = 4
    vocab: int = 32_000
    vision_layers: int = 3
    vision_width: int = 128
    positions: int = 8192

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, d_model {self.d_model}, d_mlp {self.d_mlp}, {self.heads} heads "
            f"({self.kv_heads} for keys), vocabulary {self.vocab}"
        )


@dataclass(frozen=True)
class Size:
    """How much runs at once: samples, and tokens of each."""

    samples: int
    tokens: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """From ``4x500``: four samples of 500 tokens."""
        samples, tokens = text.lower().split("x")
        return cls(int(samples), int(tokens))

    @property
    def total(self) -> int:
        """Tokens in all."""
        return self.samples * self.tokens

    def __str__(self) -> str:
        return f"{self.samples}x{self.tokens}"


def build(size: ModelSize, device: Device, dtype: Dtype, seed: int = 0) -> mmlens.HookedMLLM:
    """A random model, spliced, with a processor."""
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.vision_width,
            intermediate_size=4 * size.vision_width,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=max(1, size.vision_width // 64),
            image_size=TILE,
            patch_size=PATCH,
        ),
        text_config=MistralConfig(
            vocab_size=size.vocab,
            hidden_size=size.d_model,
            intermediate_size=size.d_mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            max_position_embeddings=size.positions,
            sliding_window=None,
            tie_word_embeddings=False,
        ),
        image_token_index=_WORDS.index("<image>"),
        image_grid_pinpoints=_GRIDS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    hf = LlavaNextForConditionalGeneration(config)
    hf.set_attn_implementation("sdpa")
    return mmlens.splice(hf, _processor()).to(device, getattr(torch, dtype))


def samples(size: Size, seed: int = 0) -> list[mmlens.Sample]:
    """Samples of exactly ``size.tokens`` tokens, as many of them a picture's as grids allow."""
    room = size.tokens - _TEMPLATE_TOKENS - 1
    grids = [(_image_tokens(high, wide), high, wide) for high, wide in _GRIDS]
    fitting = [grid for grid in grids if grid[0] <= room]
    if not fitting:
        raise ValueError(f"A prompt needs at least {min(grids)[0] + 2} tokens; {size} given.")
    tokens, high, wide = max(fitting)
    random = np.random.default_rng(seed)
    return [
        mmlens.Sample(
            id=f"s{i}",
            text=" ".join(f"w{w}" for w in random.integers(0, 500, room + 1 - tokens)),
            images=(Image.fromarray(random.integers(0, 256, (high, wide, 3), dtype=np.uint8)),),
            domain=f"domain {i % _DOMAINS}",
        )
        for i in range(size.samples)
    ]


def _image_tokens(high: int, wide: int) -> int:
    """Placeholders of a picture of ``high`` x ``wide`` pixels that fills its grid of tiles.

    The base tile's patches, then the grid's, with a newline after every row.
    """
    return _SIDE**2 + (high // PATCH) * (wide // PATCH + 1)


def _processor() -> LlavaNextProcessor:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(_WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": TILE},
            crop_size={"height": TILE, "width": TILE},
            image_grid_pinpoints=_GRIDS,
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            unk_token="<unk>",
            extra_special_tokens={"image_token": "<image>"},
        ),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{{ bos_token }} {% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}",
    )
