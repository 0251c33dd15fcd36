"""Which Hugging Face decoders a HookedTransformer represents exactly, and how their weights map.

The maps are TransformerLens's own weight conversions, fed with views: no weight is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
from transformer_lens.pretrained.weight_conversions.mistral import convert_mistral_weights

from mmlens.adapter import Decoder, own_device
from mmlens.errors import UnsupportedModelError

# Hugging Face's hidden_act -> TransformerLens's act_fn, where the two compute the same function.
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu"}
# Rotary positions of a plain HookedTransformer are tabulated up to here; the splice needs none.
_TABLE = 4096


@dataclass(frozen=True)
class DecoderFamily:
    """A ``model_type`` of decoder: its TransformerLens architecture and weight conversion."""

    architecture: str
    convert: Callable[[Any, HookedTransformerConfig], dict[str, Tensor]]


FAMILIES = {
    "llama": DecoderFamily("LlamaForCausalLM", convert_llama_weights),
    "mistral": DecoderFamily("MistralForCausalLM", convert_mistral_weights),
}


def hooked_transformer_config(decoder: Decoder) -> HookedTransformerConfig:
    """The HookedTransformer config that equals a Hugging Face decoder.

    Raises:
        UnsupportedModelError: HookedTransformer cannot represent this decoder exactly.
    """
    text = decoder.config
    _refuse_inexact(decoder)
    heads = text.num_attention_heads
    kv_heads = text.num_key_value_heads
    # Mistral's TransformerLens conversion always writes grouped keys and values.
    grouped = kv_heads if kv_heads != heads or text.model_type == "mistral" else None
    window = getattr(text, "sliding_window", None) if text.model_type == "mistral" else None
    rope = text.rope_parameters
    return HookedTransformerConfig(
        model_name=text.model_type,
        original_architecture=FAMILIES[text.model_type].architecture,
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        n_heads=heads,
        d_head=_head_size(text),
        n_key_value_heads=grouped,
        d_mlp=text.intermediate_size,
        d_vocab=decoder.embed.weight.shape[0],
        n_ctx=min(text.max_position_embeddings, _TABLE),
        act_fn=_ACTIVATIONS[text.hidden_act],
        normalization_type="RMS",
        final_rms=True,
        gated_mlp=True,
        eps=text.rms_norm_eps,
        positional_embedding_type="rotary",
        rotary_dim=_head_size(text),
        rotary_base=rope["rope_theta"],
        rotary_adjacent_pairs=False,
        use_local_attn=window is not None,
        window_size=window,
        attn_types=["local"] * text.num_hidden_layers if window is not None else None,
        init_weights=False,
        dtype=decoder.embed.weight.dtype,
        device=str(own_device(decoder.model)),
    )


def hooked_transformer_weights(
    decoder: Decoder, config: HookedTransformerConfig
) -> dict[str, Tensor]:
    """TransformerLens parameter names -> views of the Hugging Face weights, and the buffers.

    Rotary tables come from the decoder's own rotary module, so that every static scaling of
    positions is the model's.
    """
    holder = SimpleNamespace(model=decoder.model, lm_head=decoder.head)
    device = own_device(decoder.model)
    with torch.no_grad():
        weights = FAMILIES[decoder.config.model_type].convert(holder, config)
        positions = torch.arange(config.n_ctx, device=device)[None]
        like = torch.empty(0, dtype=config.dtype, device=device)
        cos, sin = (table[0] for table in decoder.rotary(like, position_ids=positions))
    for layer in range(config.n_layers):
        prefix = f"blocks.{layer}.attn."
        weights[prefix + "rotary_cos"], weights[prefix + "rotary_sin"] = cos, sin
        weights[prefix + "mask"] = torch.empty((0, 0), dtype=torch.bool)
        weights[prefix + "IGNORE"] = torch.tensor(-torch.inf)
    return {name: value.detach().to(device) for name, value in weights.items()}


def _refuse_inexact(decoder: Decoder) -> None:
    text = decoder.config
    if text.model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"HookedTransformer has no exact equivalent of a {text.model_type!r} decoder here; it "
            f"represents {', '.join(sorted(FAMILIES))}."
        )
    if text.hidden_act not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"The decoder's activation {text.hidden_act!r} is not one of {', '.join(_ACTIVATIONS)}."
        )
    # Zeroing hook_post equals zeroing the activation only where the up projection has no bias;
    # TransformerLens's conversions leave all of these biases out.
    biased = [
        name
        for layer in decoder.layers
        for name, module in layer.named_modules()
        if isinstance(getattr(module, "bias", None), Tensor)
    ]
    if biased:
        raise UnsupportedModelError(
            f"The decoder's {biased[0]} has a bias, which TransformerLens's conversion of "
            f"{text.model_type!r} weights does not carry."
        )
    if text.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError(
            "The decoder rotates only a part of each head, which is not covered."
        )
    if type(getattr(decoder.head, "bias", None)) is not type(None):
        raise UnsupportedModelError("The decoder's head has a bias, which is not covered.")


def _head_size(text: Any) -> int:
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
