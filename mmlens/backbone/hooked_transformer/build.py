"""The hooked language backbone: a HookedTransformer over the Hugging Face weights, without copies."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

from mmlens.backbone.hooked_transformer.attention import SpliceContext, spliced_attention


def build_hooked_transformer(
    config: HookedTransformerConfig, weights: Mapping[str, Tensor], context: SpliceContext
) -> HookedTransformer:
    """A HookedTransformer whose parameters are the given tensors themselves.

    It is laid out without memory of its own, so there is one copy of the weights at any time.

    Args:
        config: its config.
        weights: TransformerLens parameter and buffer names -> tensors.
        context: what its attention modules follow inside a splice.
    """
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", DeprecationWarning)
        backbone = HookedTransformer(config, move_to_device=False)
        for block in backbone.blocks:
            block.attn = spliced_attention(block.attn, context)  # pyright: ignore[reportAttributeAccessIssue]
    backbone.setup()  # the hook points of the new attention modules, by name
    share_weights(backbone, weights)
    return backbone.eval()


def share_weights(backbone: HookedTransformer, weights: Mapping[str, Tensor]) -> None:
    """Make the backbone's parameters the given tensors themselves, and its config their dtype."""
    backbone.load_state_dict(weights, strict=True, assign=True)
    embedding = weights["embed.W_E"]
    backbone.cfg.dtype, backbone.cfg.device = embedding.dtype, str(embedding.device)
