"""Random models of the papers' four families and prompts of a wanted length, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

import mmlens
from benchmarks._families import FAMILIES, Family
from benchmarks._sizes import Device, Dtype, Size, SizeName
from mmlens.adapter import adapter_for
from tests.tiny.common import ModelSize, vocabulary

FamilyName = Literal["llava-next", "instructblip", "qwen2-vl", "qwen2-audio"]
Backbone = Literal["hooked_transformer", "bridge"]
_DOMAINS = 5


@dataclass(frozen=True)
class Built:
    """One random Hugging Face model, spliced once for each backbone.

    Attributes:
        family: its family.
        size: its size.
        hooked: backbone -> the same Hugging Face model, hooked through it.
    """

    family: Family
    size: ModelSize
    hooked: Mapping[Backbone, mmlens.HookedMLLM]

    @property
    def first(self) -> mmlens.HookedMLLM:
        """Any of them: for what does not depend on the backbone."""
        return next(iter(self.hooked.values()))

    def samples(self, size: Size) -> list[mmlens.Sample]:
        """Samples of exactly ``size.tokens`` tokens, as many of them media's as the family can.

        Raises:
            ValueError: a prompt with media and one word is longer.
        """
        shapes = self.family.shapes(self.size)
        least = self._sample(min(shapes), 1, 0)
        (shortest,) = self.first.preparer.lengths([least], "auto")
        if not isinstance(shortest, int) or shortest > size.tokens:
            raise ValueError(
                f"A prompt of {self.family.name} needs at least {shortest} tokens; {size} given."
            )
        # Words that fill the prompt up if the media are the least.
        words = size.tokens - shortest + 1
        shape = max(s for s in shapes if s[0] - min(shapes)[0] < words)
        words -= shape[0] - min(shapes)[0]
        return [self._sample(shape, words, index) for index in range(size.samples)]

    def _sample(self, shape: tuple[int, ...], words: int, index: int) -> mmlens.Sample:
        chosen = np.random.default_rng(index).choice(vocabulary([]), words)
        return mmlens.Sample(
            id=f"s{index}",
            text=" ".join(chosen),
            domain=f"domain {index % _DOMAINS}",
            **self.family.media(self.size, shape, index),
        )


def build(
    name: FamilyName,
    size: SizeName | ModelSize,
    backbones: Sequence[Backbone],
    device: Device,
    dtype: Dtype,
    seed: int = 0,
) -> Built:
    """A random model, made where and in the precision that it runs in, and hooked.

    The check on load is left out: the variants are compared with the bare model before they are
    timed, at the sizes that are timed.
    """
    of = FAMILIES[name]
    widths = size if isinstance(size, ModelSize) else of.sizes[size]
    config = of.config(widths)
    torch.manual_seed(seed)
    # Neither a float32 copy nor one in the host's memory: 7B parameters take 14 GB as it is.
    with torch.device(device):
        hf = (
            adapter_for(config)
            .auto_class()
            .from_config(config, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        )
    processor = of.processor(widths)
    hooked: dict[Backbone, mmlens.HookedMLLM] = {
        one: mmlens.splice(hf, processor, backbone=one, check=False) for one in backbones
    }
    return Built(of, widths, hooked)
