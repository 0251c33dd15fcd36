"""LLaVA-NeXT (LLaVA-1.6): CLIP tower, any-resolution tiles, two-layer projector, Llama or Mistral.

The picture is cut into a base tile and a grid of tiles. Each tile passes the CLIP tower and the
projector alone; the features of the grid are put back in place, freed of padding, and every row of
patches is ended by the learned ``image_newline`` (arXiv 2310.03744 and the LLaVA-NeXT notes).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformers import AutoModelForImageTextToText, LlavaNextForConditionalGeneration
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from mmlens.adapter import Adapter, Decoder, Tower, TowerMLP, Towers
from mmlens.groups import TokenIds
from mmlens.samples import Sample
from mmlens_adapters.decoders import hooked_transformer_config, hooked_transformer_weights


class LlavaNextAdapter(Adapter):
    """``LlavaNextForConditionalGeneration`` with any decoder that the backbone represents."""

    model_types = ("llava_next",)
    modalities = ("image",)
    hf: LlavaNextForConditionalGeneration

    @classmethod
    def auto_class(cls) -> type[Any]:
        """See :meth:`Adapter.auto_class`."""
        return AutoModelForImageTextToText

    def decoder(self) -> Decoder:
        """See :meth:`Adapter.decoder`."""
        model: Any = self.hf.model.language_model
        head = self.hf.get_output_embeddings()
        assert head is not None
        return Decoder(
            model=model,
            layers=model.layers,
            norm=model.norm,
            head=head,
            embed=model.embed_tokens,
            rotary=model.rotary_emb,
        )

    def backbone_config(self) -> HookedTransformerConfig:
        """See :meth:`Adapter.backbone_config`."""
        return hooked_transformer_config(self.decoder())

    def backbone_weights(self, config: HookedTransformerConfig) -> dict[str, Tensor]:
        """See :meth:`Adapter.backbone_weights`."""
        return hooked_transformer_weights(self.decoder(), config)

    def towers(self) -> Towers:
        """CLIP's MLPs and the projector's one.

        LLaVA reads a hidden state before CLIP's end (``vision_feature_layer`` -2), so the layers
        after it cannot influence the output: they are marked as off the path.
        """
        encoder = self.hf.model.vision_tower.encoder.layers
        projector = self.hf.model.multi_modal_projector
        # hidden_states[0] is the embedding, so hidden_states[i] is the output of layer i - 1.
        read = self.hf.config.vision_feature_layer
        read = [read] if isinstance(read, int) else list(read)
        last = max(i if i >= 0 else len(encoder) + 1 + i for i in read)
        return Towers(
            {
                "vision": Tower(
                    mlps=tuple(TowerMLP(layer.mlp.fc1, layer.mlp.fc2) for layer in encoder),
                    width=encoder[0].mlp.fc1.out_features,
                    on_path=tuple(layer < last for layer in range(len(encoder))),
                ),
                "projector": Tower(
                    mlps=(TowerMLP(projector.linear_1, projector.linear_2),),
                    width=projector.linear_1.out_features,
                    on_path=(True,),
                ),
            }
        )

    def token_ids(self, tokenizer: Any | None) -> TokenIds:
        """``<image>`` as placeholder; special: the tokenizer's special ids but image and unknown."""
        image = self.hf.config.image_token_id
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id} if tokenizer else set()
        return TokenIds({"image": image}, frozenset(special - {image}))

    def feature_counts(self, inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, " medium"]]:
        """Features per picture, by the model's own packing of tiles (newlines included)."""
        sizes = inputs.get("image_sizes")
        if sizes is None:
            return {"image": torch.zeros(0, dtype=torch.long)}
        vision: Any = self.hf.config.vision_config
        side = vision.image_size // vision.patch_size
        # One channel is enough to count: packing moves and drops positions, never channels.
        tiles = [torch.zeros(n, side * side, 1) for n in self._tiles(sizes)]
        _, lengths = self.hf.pack_image_features(
            tiles,
            sizes,
            vision_feature_select_strategy=self.hf.config.vision_feature_select_strategy,
            image_newline=torch.zeros(1),
        )
        return {"image": lengths}

    def encode_media(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`Adapter.encode_media`; newer transformers only."""
        takes = "mm_encoder_outputs" in inspect.signature(self.hf.forward).parameters
        if not takes or inputs.get("pixel_values") is None:
            return dict(inputs)
        rest = {name: value for name, value in inputs.items() if name != "pixel_values"}
        features = self.hf.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
        return {**rest, "mm_encoder_outputs": {"image": features}}

    def tower_rows(
        self,
        module: str,  # noqa: ARG002
        inputs: Mapping[str, Any],
        media_rows: Sequence[int],
    ) -> Int[Tensor, " tile"]:
        """Each tile belongs to the row of its picture; padding tiles never reach the tower."""
        tiles = torch.tensor(self._tiles(inputs["image_sizes"]))
        return torch.tensor(media_rows).repeat_interleave(tiles)

    def tower_positions(self, module: str) -> int:
        """CLIP sees the patches of a tile and its class token; the projector what is selected."""
        vision: Any = self.hf.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        selected = self.hf.config.vision_feature_select_strategy == "default"
        return patches if module == "projector" and selected else patches + 1

    def prompt(self, sample: Sample, processor: Any, template: str) -> str:
        """The chat template's prompt, or MMNeuron's bare ``<image>\\n{question}``."""
        if template == "plain":
            image = processor.image_token
            return "".join(f"{image}\n" for _ in sample.images) + sample.text
        content = [{"type": "image"} for _ in sample.images] + [
            {"type": "text", "text": sample.text}
        ]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def process(
        self,
        processor: Any,
        prompts: Sequence[str],
        images: Sequence[Sequence[Any]],
        side: str,
    ) -> dict[str, Any]:
        """See :meth:`Adapter.process`."""
        flat = [image for row in images for image in row]
        return dict(
            processor(
                text=list(prompts),
                images=flat or None,
                padding=True,
                padding_side=side,
                return_tensors="pt",
            )
        )

    def placeholder_lengths(self, processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int]:
        """See :meth:`Adapter.placeholder_lengths`."""
        if not sizes:
            return []
        return list(processor._get_num_multimodal_tokens([list(s) for s in sizes]).num_image_tokens)

    def _tiles(self, sizes: Int[Tensor, "picture 2"]) -> list[int]:
        config: Any = self.hf.config
        return [
            image_size_to_num_patches(
                size, config.image_grid_pinpoints, config.vision_config.image_size
            )
            for size in sizes
        ]
