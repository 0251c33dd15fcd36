"""What the small random models share: a word-level tokenizer, media, and weights that answer sharply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from mmlens.data.samples import Sample

_WORDS = [
    "user",
    ":",
    "assistant",
    "what",
    "is",
    "this",
    "shown",
    "here",
    "?",
    "a",
    "red",
    "blue",
    "cat",
    "dog",
    "answer",
    "one",
]
_WORDS += [f"w{i}" for i in range(40)]


@dataclass(frozen=True)
class Widths:
    """A stack of transformer layers."""

    layers: int = 3
    width: int = 24
    mlp: int = 40
    heads: int = 2

    def settings(self, **more: Any) -> dict[str, Any]:
        """Its settings, as most configs of towers name them."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            **more,
        }


@dataclass(frozen=True)
class ModelSize:
    """How large a random model is; the default is that of the tests.

    Attributes:
        layers, d_model, d_mlp, heads: of the decoder.
        kv_heads: of the decoder's keys and values.
        vocab: rows of its embedding; None: as many as the tokenizer has words.
        tower: the encoder of pictures or sounds; None: as the family has it.
        side: pixels of a picture's side (LLaVA-NeXT: of a tile's).
        patch: pixels of a patch's side.
        qformer: InstructBLIP's stack between tower and decoder.
        positions: the longest prompt.
    """

    layers: int = 3
    d_model: int = 32
    d_mlp: int = 48
    heads: int = 4
    kv_heads: int = 2
    vocab: int | None = None
    tower: Widths = Widths()
    side: int = 16
    patch: int = 8
    qformer: Widths = Widths(width=20, mlp=36)
    positions: int = 512

    def decoder(self, words: Sequence[str], **more: Any) -> dict[str, Any]:
        """The decoder's settings, as the configs of Llama, Mistral, Qwen and Gemma name them."""
        return {
            "vocab_size": self.vocab or len(words),
            "hidden_size": self.d_model,
            "intermediate_size": self.d_mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.positions,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
            "tie_word_embeddings": False,
            **more,
        }

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, d_model {self.d_model}, d_mlp {self.d_mlp}, {self.heads} heads "
            f"({self.kv_heads} for keys), vocabulary {self.vocab}; tower of {self.tower.layers} "
            f"layers, width {self.tower.width}"
        )


TINY = ModelSize()


@dataclass(frozen=True)
class TinyFamily:
    """A family of models, small and random, built from configs: for exactness, offline.

    Attributes:
        name: as in the tables, e.g. ``qwen2-vl``.
        variants: name -> builder of the model, from a seed: decoder types, tied and untied heads.
        processor: builder of the real processor that fits all variants.
        samples: eight or more questions with media of different sizes, several and none in a prompt
            where the family takes that; every kind of media the family has; prompts of different
            lengths; every sample has an answer and the domain ``red`` or ``blue``.
    """

    name: str
    variants: Mapping[str, Callable[[int], PreTrainedModel]]
    processor: Callable[[], ProcessorMixin]
    samples: Callable[[], list[Sample]]


def vocabulary(special: Sequence[str]) -> list[str]:
    """The words that every tiny tokenizer knows, behind its special tokens."""
    return [*special, *_WORDS]


def tokenizer(special: Sequence[str], **tokens: object) -> PreTrainedTokenizerFast:
    """A tokenizer that splits at white space.

    Args:
        special: the special tokens, in the order of their ids.
        tokens: their roles, as for ``PreTrainedTokenizerFast`` (``pad_token="<pad>"``, ...).
    """
    ids = {word: index for index, word in enumerate(vocabulary(special))}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **tokens)


def sharpened(build: Callable[[], PreTrainedModel], seed: int) -> PreTrainedModel:
    """The model with weights large enough that its answers depend on everything it reads.

    Random weights of the library's own scale give nearly uniform answers.
    """
    torch.manual_seed(seed)
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.25)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)  # norms and biases count too
    return model


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise in three colours."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def asked(kind: str, media: Sequence[Any]) -> list[Sample]:
    """A question for each medium, one medium each, of four lengths; ``red`` and ``blue`` in turn."""
    texts = ["what is this ?", "what is shown here ? a cat", "w1 w2 w3", "one dog"]
    return [
        replace(
            Sample(f"s{i}", texts[i % 4], answers=("a",), domain="red" if i % 2 else "blue"),
            **{f"{kind}s": (one,)},
        )
        for i, one in enumerate(media)
    ]


def pictures(shapes: Sequence[tuple[int, int]], count: int) -> list[Sample]:
    """A question for each of ``count`` pictures, whose (width, height) go round ``shapes``."""
    return asked("image", [picture(*shapes[i % len(shapes)], seed=i) for i in range(count)])


def video(frames: int, width: int, height: int, seed: int = 0) -> list[Image.Image]:
    """Frames of noise."""
    return [picture(width, height, 1000 * seed + i) for i in range(frames)]


def sound(seconds: float, rate: int = 16000, seed: int = 0) -> tuple[np.ndarray, int]:
    """A tone in noise, with its rate."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 2000) * time)
    return (wave + 0.1 * rng.standard_normal(len(time))).astype(np.float32), rate
