"""Where and how large: what the command lines of the benchmarks name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
