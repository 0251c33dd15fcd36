"""A TransformerBridge on a twin of the decoder: other module objects around the same parameters."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    BlockBridge,
    EmbeddingBridge,
    GatedMLPBridge,
    LinearBridge,
    MLPBridge,
    RMSNormalizationBridge,
    UnembeddingBridge,
)
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformers.modeling_outputs import CausalLMOutputWithPast

from mmlens.adapter import Decoder
from mmlens.backbone.layout import NORMS, Layout, epsilon_of, head_sizes, norm_names
from mmlens.errors import SpliceError

_MODULE_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class _Unembedding(UnembeddingBridge):
    """Without the bias of zeros that TransformerLens adds to the head: the head is not ours."""

    def set_original_component(self, original_component: nn.Module) -> None:
        """See :class:`GeneralizedComponent`."""
        GeneralizedComponent.set_original_component(self, original_component)


class _LlamaShape(ArchitectureAdapter):
    """Tells TransformerBridge where a decoder of this layout keeps its parts."""

    # It would fold norms into the weights, which are the Hugging Face model's.
    supports_compatibility_mode = False

    def __init__(self, cfg: TransformerBridgeConfig, layout: Layout, embed: str, norm: str) -> None:
        super().__init__(cfg)
        self._set_rms_rotary_defaults()
        cfg.gated_mlp = "mlp.gate" in layout
        path = {ours: theirs.rpartition(".")[2] for ours, theirs in layout.items()}
        linear: dict[str, dict[str, GeneralizedComponent]] = {
            parent: {
                ours.rpartition(".")[2]: LinearBridge(name=path[ours])
                for ours in layout
                if ours.startswith(f"{parent}.")
            }
            for parent in ("attn", "mlp")
        }
        mlp = GatedMLPBridge if cfg.gated_mlp else MLPBridge
        norms = {one: RMSNormalizationBridge(path[one], cfg) for one in NORMS if one in layout}
        attention = AttentionBridge(
            path["attn"],
            cfg,
            submodules=linear["attn"],
            maintain_native_attention=True,
            requires_position_embeddings=True,
        )
        block = {**norms, "attn": attention, "mlp": mlp(path["mlp"], cfg, linear["mlp"])}
        self.component_mapping = {
            "embed": EmbeddingBridge(name=f"model.{embed}"),
            "blocks": BlockBridge(name="model.layers", config=cfg, submodules=block),
            "ln_final": RMSNormalizationBridge(f"model.{norm}", cfg),
            "unembed": _Unembedding(name="lm_head"),
        }


class _TextModel(nn.Module):
    """What the TransformerBridge stands on: twins of the decoder and the head, without weights."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        twins: dict[int, nn.Module] = {}
        self.config = decoder.config
        self.model = _twin(decoder.model, twins)
        self.lm_head = _twin(decoder.head, twins)
        self.training = decoder.model.training

    def forward(self, input_ids: Tensor | None = None, **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits of plain text, computed by the TransformerBridge's components."""
        if any("forward" in module.__dict__ for module in self.modules()):
            raise SpliceError(
                "A backbone whose weights are spread over devices or offloaded does not run alone: "
                "its modules are led by the Hugging Face model's. Call the model."
            )
        out = self.model(input_ids=input_ids, **kwargs)
        logits = self.lm_head(out.last_hidden_state)
        return CausalLMOutputWithPast(
            logits=logits, past_key_values=getattr(out, "past_key_values", None)
        )


def _twin(module: nn.Module, twins: dict[int, nn.Module]) -> nn.Module:
    """Another module object around the same parameters, buffers and attributes.

    The dictionaries of parameters and buffers are shared, so the twin follows when tensors are
    moved, cast or loaded; children and PyTorch hooks are its own.
    """
    if id(module) in twins:
        return twins[id(module)]
    twin = twins[id(module)] = cast(nn.Module, object.__new__(type(module)))
    own = {name: OrderedDict() for name in _MODULE_HOOKS}
    twin.__dict__.update(module.__dict__ | own | {"_modules": {}})
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _twin(child, twins)
    return twin


def build_bridge(decoder: Decoder, layout: Layout) -> TransformerBridge:
    """The TransformerBridge of a decoder; the decoder's own module tree stays as it is."""
    text: Any = decoder.config
    heads, groups, size = head_sizes(decoder.layers[0].get_submodule(layout["attn"]), text)
    activations = ("hidden_activation", "hidden_act", "activation_function")
    cfg = TransformerBridgeConfig(
        model_name=text.model_type,
        architecture=type(decoder.model).__name__,
        original_architecture=type(decoder.model).__name__,
        n_layers=len(decoder.layers),
        n_ctx=text.max_position_embeddings,
        d_model=text.hidden_size,
        n_heads=heads,
        n_key_value_heads=groups,
        d_head=size,
        d_mlp=text.intermediate_size,
        d_vocab=decoder.embed.num_embeddings,
        act_fn=next(getattr(text, a) for a in activations if getattr(text, a, None)),
        eps=cast(float, epsilon_of(decoder.norm)),
        # Gemma's norms multiply by 1 + weight.
        rmsnorm_uses_offset="Gemma" in type(decoder.norm).__name__,
        use_normalization_before_and_after="ln1_post" in layout,
        dtype=decoder.embed.weight.dtype,
        device=str(decoder.embed.weight.device),
        init_weights=False,
    )
    names = {id(module): name for name, module in decoder.model.named_modules()}
    adapter = _LlamaShape(cfg, layout, names[id(decoder.embed)], names[id(decoder.norm)])
    return TransformerBridge(_TextModel(decoder), adapter, None)


def canonical_points(bridge: TransformerBridge, layout: Layout) -> dict[str, HookPoint]:
    """Canonical names -> the bridge's hook points, which answer to these names from now on."""
    layer = [
        "hook_resid_pre",
        *norm_names("ln1"),
        *(f"attn.hook_{one}" for one in ("q", "k", "v", "rot_k", "rot_q", "attn_scores")),
        *("attn.hook_pattern", "attn.hook_z"),
        *(norm_names("ln1_post") if "ln1_post" in layout else ()),
        *("hook_attn_out", "hook_resid_mid"),
        *norm_names("ln2"),
        "mlp.hook_pre",
        *(("mlp.hook_pre_linear",) if "mlp.gate" in layout else ()),
        "mlp.hook_post",
        *(norm_names("ln2_post") if "ln2_post" in layout else ()),
        *("hook_mlp_out", "hook_resid_post"),
    ]
    names = [f"blocks.{index}.{name}" for index in range(bridge.cfg.n_layers) for name in layer]
    every = bridge.hook_dict
    last = (*norm_names("ln_final"), "unembed.hook_in", "unembed.hook_out")
    points = {name: every[name] for name in ("hook_embed", *names, *last)}
    for name, point in points.items():
        # TransformerBridge's own name is the module's; hooks here get the canonical one.
        point.name = name
    return points
