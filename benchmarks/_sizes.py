"""How large the random models and the prompts are, and what a family of models has to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedConfig, ProcessorMixin

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]
SizeName = Literal["tiny", "small", "7b"]


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


@dataclass(frozen=True)
class Widths:
    """A stack of transformer layers."""

    layers: int
    width: int
    mlp: int
    heads: int


@dataclass(frozen=True)
class ModelSize:
    """A random model.

    Attributes:
        layers, d_model, d_mlp, heads: of the decoder.
        kv_heads: of the decoder's keys and values.
        vocab: rows of its embedding.
        tower: the encoder of pictures or sounds.
        side: pixels of a picture's side (LLaVA-NeXT: of a tile's); without meaning for Qwen2-VL,
            which takes pictures as they are, and for sounds.
        patch: pixels of a patch's side.
        qformer: InstructBLIP's stack between tower and decoder.
        positions: the longest prompt.
    """

    layers: int
    d_model: int
    d_mlp: int
    heads: int
    kv_heads: int
    vocab: int
    tower: Widths
    side: int = 0
    patch: int = 14
    qformer: Widths | None = None
    positions: int = 8192

    def decoder(self, **more: Any) -> dict[str, Any]:
        """The decoder's settings, as the configs of Llama, Mistral and Qwen2 name them."""
        return {
            "vocab_size": self.vocab,
            "hidden_size": self.d_model,
            "intermediate_size": self.d_mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.positions,
            "tie_word_embeddings": False,
            **more,
        }

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, d_model {self.d_model}, d_mlp {self.d_mlp}, {self.heads} heads "
            f"({self.kv_heads} for keys), vocabulary {self.vocab}; tower of {self.tower.layers} "
            f"layers, width {self.tower.width}"
        )


#: Tokens that media take in a prompt, brackets included, and whatever the family makes them from.
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A family of models for the benchmark.

    Attributes:
        name: as on the command line.
        sizes: the random models, small and of the published widths.
        config: of a size's model.
        processor: the real processor that fits it, over a word-level tokenizer.
        shapes: every choice of media for one prompt; the first number of each is the tokens that
            it takes, the others tell :attr:`media` what to make.
        media: noise of a shape, by a seed, as a sample's fields.
    """

    name: str
    sizes: Mapping[SizeName, ModelSize]
    config: Callable[[ModelSize], PreTrainedConfig]
    processor: Callable[[ModelSize], ProcessorMixin]
    shapes: Callable[[ModelSize], Sequence[Shape]]
    media: Callable[[ModelSize, Shape, int], Mapping[str, Any]]
