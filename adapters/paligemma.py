"""PaliGemma (1 and 2): SigLIP tower, linear projector, prefix attention (arXiv 2407.07726, 2412.03555).

The prompt is the features of the pictures, the start token, the question and a line break. All of it
is the prefix, which attends to itself in both directions; only what follows, the answer, is causal.
The decoder is Gemma, or Gemma 2 in PaliGemma 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmlens.adapter import Media, MediaSizes, Towers
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens_adapters.base import plain_tower
from mmlens_adapters.squares import SquareAdapter


class PaliGemmaAdapter(SquareAdapter):
    """``PaliGemmaForConditionalGeneration``. Its processor takes no question without a picture."""

    model_types = ("paligemma",)

    def towers(self) -> Towers:
        """SigLIP's MLPs, whose end is read; the projector has no non-linearity."""
        return Towers(
            {"vision": plain_tower(self.hf.model.vision_tower.encoder.layers)},
            {"projector": "PaliGemma's projector is a single Linear, without a non-linearity"},
        )

    def prompt(self, sample: Sample, processor: Any, template: str) -> str:
        """The pictures' placeholders and the bare question, which is the form of its training.

        The processor itself puts the start token before the question and a line break after it.

        Raises:
            SampleError: a sample without a picture.
        """
        if not sample.images:
            raise SampleError(
                f"Sample {sample.id!r} has no picture, and {type(self.hf).__name__} takes no question "
                "without one; give it a picture, or leave it out."
            )
        if template == "chat":
            return super().prompt(sample, processor, template)
        return self.placeholder_text("image", processor) * len(sample.images) + sample.text

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`.

        The processor's labels, which are for training, are left out: with them the model would
        compute a loss over the prompt.
        """
        inputs = super().process(processor, prompts, media, side)
        inputs.pop("labels", None)
        return inputs

    def text_inputs(self, tokenizer: Any, texts: Sequence[str], side: str) -> dict[str, Any]:
        """See :meth:`Adapter.text_inputs`; as an answer is read, since prompts see what follows."""
        inputs = super().text_inputs(tokenizer, texts, side)
        return {**inputs, "token_type_ids": torch.ones_like(inputs["input_ids"])}

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.media_tokens`; the same for every picture."""
        return len(sizes.images) * processor.image_seq_length

    def prompt_tokens(self, processor: Any, prompt: str, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.prompt_tokens`; with the start token and the line break."""
        _, (written,), *_ = processor.prepare_inputs_layout(
            images=[torch.zeros(3, 1, 1)] * len(sizes.images), text=[prompt]
        )
        ids = processor.tokenizer(written)["input_ids"]
        placeholders = ids.count(self.placeholders()["image"])
        return len(ids) - placeholders + self.media_tokens(processor, sizes)
