"""InstructBLIP: EVA tower, instruction-aware Q-Former, one linear projection, Vicuna decoder.

Learned query tokens read the picture through cross-attention while they attend to the question's
text inside the Q-Former, so the 32 features that stand in the prompt depend on both (arXiv
2305.06500). Queries and text share the Q-Former's self-attention but have MLPs of their own: the
modules ``query`` and ``qformer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mmlens.adapter import Decoder, Media, MediaSizes, Towers, numbered
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, UnsupportedModelError
from mmlens.tokens.places import WHOLE, Places
from mmlens_adapters.base import plain_tower
from mmlens_adapters.squares import Pixels, SquareAdapter


class InstructBlipAdapter(SquareAdapter):
    """``InstructBlipForConditionalGeneration`` with a decoder of its own kind, not T5.

    Every prompt has exactly one picture. The processor puts its placeholders in front of the
    prompt, before even the token that begins the text.
    """

    model_types = ("instructblip",)

    def decoder(self) -> Decoder:
        """See :meth:`Adapter.decoder`.

        Raises:
            UnsupportedModelError: the language model is an encoder-decoder (Flan-T5).
        """
        text = self.hf.config.text_config
        if not self.hf.config.use_decoder_only_language_model:
            raise UnsupportedModelError(
                f"This InstructBLIP's language model is a {text.model_type!r}, an encoder-decoder; "
                "only decoders are spliced, as in the checkpoints with Vicuna."
            )
        return super().decoder()

    def towers(self) -> Towers:
        """The tower's MLPs, and both branches of the Q-Former's.

        The Q-Former's output is read at the queries alone, so the last layer's text branch cannot
        influence the output; the text of earlier layers does, through self-attention.
        """
        layers = self.hf.qformer.encoder.layer
        return Towers(
            {
                "vision": plain_tower(self.hf.vision_model.encoder.layers),
                "qformer": plain_tower(
                    layers,
                    "intermediate.dense",
                    "output.dense",
                    on_path=lambda layer: layer < len(layers) - 1,
                ),
                "query": plain_tower(layers, "intermediate_query.dense", "output_query.dense"),
            },
            without_neurons={"projector": "the projection of InstructBLIP is a single linear map"},
        )

    def positions(self, pixels: Pixels, module: str) -> int:
        """Patches and the class token in the tower; elsewhere the queries."""
        return self.patches(pixels) + 1 if module == "vision" else self._queries

    def grid(self, module: str) -> tuple[int, int, int]:
        """The tower's patches, after a class token."""
        return *self.patch_grid(), 1

    def tower_rows(
        self, module: str, inputs: Mapping[str, Any], media_rows: Mapping[str, Sequence[int]]
    ) -> list[Int[Tensor, ...]]:
        """One picture per row; only the Q-Former's text is padded."""
        if module != "qformer":
            return super().tower_rows(module, inputs, media_rows)
        text = inputs["qformer_input_ids"]
        mask = inputs.get("qformer_attention_mask")
        real = torch.ones_like(text) if mask is None else mask
        rows = torch.tensor(media_rows["image"], device=text.device)[:, None]
        return [torch.where(real.bool(), rows, -1)]

    def places(
        self, module: str, processor: Any, inputs: Mapping[str, Any], sizes: Sequence[MediaSizes]
    ) -> list[Places] | None:
        """Patches where they are; a query, and the feature it becomes, reads the whole picture.

        The Q-Former's text (``qformer``) lies in no picture.
        """
        if module == "vision":
            return super().places(module, processor, inputs, sizes)
        if module == "qformer":
            return [Places.nowhere(inputs["qformer_input_ids"].numel())]
        pictures = len(numbered(sizes, "image"))  # one in every prompt
        return [Places.of(torch.tensor([WHOLE]).repeat(pictures * self._queries, 1), "query")]

    def tower_tokens(
        self, module: str, processor: Any, inputs: Mapping[str, Any]
    ) -> tuple[Any, list[int]] | None:
        """The Q-Former reads the question in tokens of its own."""
        if module != "qformer":
            return None
        return processor.qformer_tokenizer, inputs["qformer_input_ids"][0].tolist()

    def prompt(self, sample: Sample, processor: Any, template: str) -> str:
        """The bare question: the published processors have no chat template.

        Raises:
            SampleError: the sample has no picture, or more than one.
        """
        if len(sample.images) != 1:
            raise SampleError(
                f"Sample {sample.id!r} has {len(sample.images)} pictures; InstructBLIP takes exactly "
                "one in every prompt. Leave the sample out, or give it one picture."
            )
        if template == "plain":
            return sample.text
        # A template's own placeholder would come on top of those of the processor.
        return super().prompt(replace(sample, images=()), processor, template)

    def placeholder_text(self, kind: str, processor: Any) -> str:
        """Nothing: the processor itself puts the placeholders in front."""
        return ""

    def process(
        self, processor: Any, prompts: Sequence[str], media: Media, side: str
    ) -> dict[str, Any]:
        """Hugging Face inputs whose padding changes nothing.

        Padding on the left, the processor would put it between the picture and the question, where
        it moves them apart, and before the Q-Former's text, whose positions are absolute: answers
        would depend on what else is in the batch. Here it is left of the picture, and the Q-Former's
        text is padded on the right.

        Raises:
            UnsupportedModelError: the processor does not know the number of query tokens.
        """
        self._processor_queries(processor)
        inputs = super().process(processor, prompts, media, "right")
        if side == "left":
            order = inputs["attention_mask"].sort(dim=-1, stable=True).indices
            for name in ("input_ids", "attention_mask"):
                inputs[name] = inputs[name].gather(1, order)
        return inputs

    def media_tokens(self, processor: Any, sizes: MediaSizes) -> int:
        """See :meth:`Adapter.media_tokens`; the same for every picture."""
        return len(sizes.images) * self._processor_queries(processor)

    def runner(self, inputs: Mapping[str, Any]) -> Any:
        """Text without a picture goes to the language model; the whole model demands a picture."""
        return self.hf if inputs.get("pixel_values") is not None else self.hf.language_model

    def encode_media(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as they are: ``generate`` of this family takes no encoded pictures."""
        return dict(inputs)

    @property
    def _queries(self) -> int:
        return self.hf.config.num_query_tokens

    def _processor_queries(self, processor: Any) -> int:
        if processor.num_query_tokens is None:
            raise UnsupportedModelError(
                "The processor does not say how many query tokens the model has; set "
                f"processor.num_query_tokens = {self._queries}."
            )
        return processor.num_query_tokens
