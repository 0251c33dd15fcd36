"""Which Hugging Face decoders a HookedTransformer represents exactly, and how their weights map.

The maps are TransformerLens's own weight conversions, fed with views: no weight is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmlens.adapter import Decoder
from mmlens.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

# Hugging Face's hidden_act -> TransformerLens's act_fn, where the two compute the same function.
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu"}
# Rotary positions of a plain HookedTransformer are tabulated up to here; the splice needs none.
_TABLE = 4096


@dataclass(frozen=True)
class DecoderFamily:
    """How TransformerLens sees a kind of decoder.

    Attributes:
        architecture: its name there.
        conversion: the module and function of TransformerLens's weight conversion.
        biases: the projections whose biases the conversion carries; any other bias is refused.
        always_grouped: the conversion writes grouped keys and values whatever their number.
        qk_norm: queries and keys are normalised head by head.
    """

    architecture: str
    conversion: tuple[str, str]
    biases: frozenset[str] = frozenset()
    always_grouped: bool = False
    qk_norm: bool = False

    @property
    def convert(self) -> Callable[[Any, HookedTransformerConfig], dict[str, Tensor]]:
        """The weight conversion; transformer-lens 4.0 removed them."""
        module, function = self.conversion
        return getattr(
            import_module(f"transformer_lens.pretrained.weight_conversions.{module}"), function
        )


_LLAMA = DecoderFamily("LlamaForCausalLM", ("llama", "convert_llama_weights"))
_MISTRAL = DecoderFamily(
    "MistralForCausalLM", ("mistral", "convert_mistral_weights"), always_grouped=True
)
_QWEN2 = DecoderFamily(
    "Qwen2ForCausalLM",
    ("qwen2", "convert_qwen2_weights"),
    biases=frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}),
    always_grouped=True,
)
_QWEN3 = DecoderFamily("Qwen3ForCausalLM", ("qwen3", "convert_qwen3_weights"), qk_norm=True)

#: ``model_type`` of the text config -> its family. Multimodal rotary positions (M-RoPE) need no
#: family of their own: inside the splice the rotary tables are Hugging Face's.
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "qwen2": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_5_omni_text": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_vl_text": _QWEN3,
}


def hooked_transformer_config(decoder: Decoder) -> HookedTransformerConfig:
    """The HookedTransformer config that equals a Hugging Face decoder.

    Raises:
        UnsupportedModelError: HookedTransformer cannot represent this decoder exactly.
    """
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

    text: Any = decoder.config
    family = _exact_family(decoder)
    heads = text.num_attention_heads
    kv_heads = text.num_key_value_heads
    windows = _windows(text)
    return HookedTransformerConfig(
        model_name=text.model_type,
        original_architecture=family.architecture,
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        n_heads=heads,
        d_head=_head_size(text),
        n_key_value_heads=kv_heads if kv_heads != heads or family.always_grouped else None,
        d_mlp=text.intermediate_size,
        d_vocab=decoder.embed.weight.shape[0],
        n_ctx=min(text.max_position_embeddings, _TABLE),
        act_fn=_ACTIVATIONS[text.hidden_act],
        normalization_type="RMS",
        final_rms=True,
        gated_mlp=True,
        eps=text.rms_norm_eps,
        use_qk_norm=family.qk_norm,
        positional_embedding_type="rotary",
        rotary_dim=_head_size(text),
        rotary_base=text.rope_parameters["rope_theta"],
        rotary_adjacent_pairs=False,
        use_local_attn=any(windows),
        window_size=text.sliding_window if any(windows) else None,
        attn_types=["local" if w else "global" for w in windows] if any(windows) else None,
        init_weights=False,
        dtype=decoder.embed.weight.dtype,
        device=str(_device(decoder.model)),
    )


def hooked_transformer_weights(
    decoder: Decoder, config: HookedTransformerConfig
) -> dict[str, Tensor]:
    """TransformerLens parameter names -> views of the Hugging Face weights, and the buffers.

    Rotary tables come from the decoder's own rotary module, so that every static scaling of
    positions is the model's.
    """
    text: Any = decoder.config
    holder = SimpleNamespace(model=decoder.model, lm_head=decoder.head)
    device = _device(decoder.model)
    rotary: Any = decoder.rotary
    with torch.no_grad():
        weights = FAMILIES[text.model_type].convert(holder, config)
        positions = torch.arange(config.n_ctx, device=device)[None]
        if "mrope_section" in text.rope_parameters:  # text has the same position on all three axes
            positions = positions.expand(3, 1, -1)
        like = torch.empty(0, dtype=config.dtype, device=device)
        cos, sin = (table[0] for table in rotary(like, position_ids=positions))
    for layer in range(config.n_layers):
        prefix = f"blocks.{layer}.attn."
        weights[prefix + "rotary_cos"], weights[prefix + "rotary_sin"] = cos, sin
        weights[prefix + "mask"] = torch.empty((0, 0), dtype=torch.bool)
        weights[prefix + "IGNORE"] = torch.tensor(-torch.inf)
    return {name: value.detach().to(device) for name, value in weights.items()}


def _exact_family(decoder: Decoder) -> DecoderFamily:
    text: Any = decoder.config
    family = FAMILIES.get(text.model_type)
    if family is None:
        raise UnsupportedModelError(
            f"HookedTransformer has no exact equivalent of a {text.model_type!r} decoder here; it "
            f"represents {', '.join(sorted(FAMILIES))}. Use backbone='bridge'."
        )
    if text.hidden_act not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"The decoder's activation {text.hidden_act!r} is not one of {', '.join(_ACTIVATIONS)}, "
            "which HookedTransformer computes alike. Use backbone='bridge'."
        )
    # Zeroing hook_post equals zeroing the activation only where the up projection has no bias, and
    # TransformerLens's conversions leave out every bias but those named.
    biased = [
        name
        for layer in decoder.layers
        for name, module in layer.named_modules()
        if isinstance(getattr(module, "bias", None), Tensor) and name not in family.biases
    ]
    if biased:
        raise UnsupportedModelError(
            f"The decoder's {biased[0]} has a bias, which TransformerLens's conversion of "
            f"{text.model_type!r} weights does not carry. Use backbone='bridge'."
        )
    if text.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError(
            "The decoder rotates only a part of each head, which is not covered. Use backbone='bridge'."
        )
    if getattr(decoder.head, "bias", None) is not None:
        raise UnsupportedModelError(
            "The decoder's head has a bias, which is not covered. Use backbone='bridge'."
        )
    return family


def _windows(text: Any) -> list[bool]:
    """Per layer, whether it attends within a sliding window."""
    if getattr(text, "sliding_window", None) is None:
        return [False] * text.num_hidden_layers
    # Mistral names no types of layers: all of them have its window.
    types = getattr(text, "layer_types", None) or ["sliding_attention"] * text.num_hidden_layers
    return [kind == "sliding_attention" for kind in types]


def _head_size(text: Any) -> int:
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
