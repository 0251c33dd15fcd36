"""Where a decoder of Llama's shape keeps its parts, in TransformerLens's terms and Hugging Face's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmlens.adapter import Decoder
from mmlens.errors import UnsupportedModelError

# TransformerLens's path -> Hugging Face's.
_ATTENTION = {
    "ln1": "input_layernorm",
    "attn": "self_attn",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj",
}
_PRE_NORMS = {"ln2": "post_attention_layernorm"}
_SANDWICH_NORMS = {
    "ln1_post": "post_attention_layernorm",
    "ln2": "pre_feedforward_layernorm",
    "ln2_post": "post_feedforward_layernorm",
}
_MLPS = (
    {"mlp.gate": "mlp.gate_proj", "mlp.in": "mlp.up_proj", "mlp.out": "mlp.down_proj"},
    {"mlp.in": "mlp.up_proj", "mlp.out": "mlp.down_proj"},
    {"mlp.in": "mlp.fc1", "mlp.out": "mlp.fc2"},
)
NORMS = ("ln1", "ln1_post", "ln2", "ln2_post")
Layout = Mapping[str, str]
Parts = Mapping[str, nn.Module]


def layout_of(decoder: Decoder) -> Layout:
    """Where the decoder's layers keep their parts.

    Raises:
        UnsupportedModelError: a layer is not of Llama's shape, or layers differ.
    """
    layouts = [_layer_layout(f"layers.{i}", layer) for i, layer in enumerate(decoder.layers)]
    for index, layout in enumerate(layouts):
        if layout != layouts[0]:
            raise UnsupportedModelError(
                f"The bridge serves decoders whose layers are alike, but layers.{index} has "
                f"{', '.join(layout.values())}; layers.0 has {', '.join(layouts[0].values())}."
            )
        _check_widths(f"layers.{index}", parts_of(decoder.layers[index], layout), decoder.config)
    _check_norm("norm", decoder.norm)
    return layouts[0]


def _layer_layout(where: str, layer: nn.Module) -> Layout:
    names = {name for name, _ in layer.named_modules()}
    norms = _SANDWICH_NORMS if "pre_feedforward_layernorm" in names else _PRE_NORMS
    mlp = next((one for one in _MLPS if names.issuperset(one.values())), _MLPS[0])
    layout = {**_ATTENTION, **norms, "mlp": "mlp", **mlp}
    _check_children(where, layer, _below("", layout))
    if getattr(layer, "residual_multiplier", None) is not None:
        raise UnsupportedModelError(
            f"The bridge serves decoders of Llama's shape, but {where} ({type(layer).__name__}) "
            "scales what it adds to the residual stream."
        )
    for parent, optional in (("self_attn", ("q_norm", "k_norm")), ("mlp", ())):
        module = layer.get_submodule(parent)
        _check_children(f"{where}.{parent}", module, _below(parent, layout), optional)
    for norm in NORMS:
        if norm in layout:
            _check_norm(f"{where}.{layout[norm]}", layer.get_submodule(layout[norm]))
    return layout


def _below(parent: str, layout: Layout) -> list[str]:
    split = [path.rpartition(".") for path in layout.values()]
    return [name for owner, _, name in split if owner == parent]


def _check_children(
    where: str, module: nn.Module, needed: list[str], optional: tuple[str, ...] = ()
) -> None:
    """Children with weights have to be the needed ones: what else there is would go unseen."""
    children = dict(module.named_children())
    lacking = [name for name in needed if name not in children]
    strange = [
        name
        for name, child in children.items()
        if name not in (*needed, *optional) and next(child.parameters(), None) is not None
    ]
    if not lacking and not strange:
        return
    problem = f"lacks {', '.join(lacking)}" if lacking else f"has {', '.join(strange)} beside them"
    if "gate_proj" in lacking:
        problem += " (or fc1, fc2 of an MLP without a gate)"
    raise UnsupportedModelError(
        f"The bridge serves decoders of Llama's shape, with {', '.join(needed)}; {where}, a "
        f"{type(module).__name__} of {', '.join(children) or 'no parts'}, {problem}."
    )


def _check_norm(where: str, norm: nn.Module) -> None:
    if "RMSNorm" not in type(norm).__name__ or epsilon_of(norm) is None:
        raise UnsupportedModelError(
            f"The bridge serves decoders with RMS norms; {where} is a {type(norm).__name__}."
        )


def _check_widths(where: str, parts: Parts, text: Any) -> None:
    """The config's widths have to be the modules': hook points are shaped by the config."""
    heads, groups, size = head_sizes(parts["attn"], text)
    wanted = {"attn.q": heads * size, "attn.k": groups * size, "attn.v": groups * size}
    wanted |= {part: text.intermediate_size for part in ("mlp.gate", "mlp.in") if part in parts}
    for part, width in wanted.items():
        # Quantised layers of some libraries do not say.
        found = getattr(parts[part], "out_features", width)
        if found != width:
            raise UnsupportedModelError(
                f"The bridge serves decoders whose layers have the config's widths; {where}'s {part} "
                f"gives {found} features where the config makes it {width}."
            )


def parts_of(layer: nn.Module, layout: Layout) -> Parts:
    """TransformerLens's paths -> modules of one layer; the layer itself at the empty path."""
    return {"": layer, **{ours: layer.get_submodule(path) for ours, path in layout.items()}}


def head_sizes(attention: nn.Module, text: Any) -> tuple[int, int, int]:
    """Query heads, key and value heads, features per head."""
    heads = text.num_attention_heads
    size = getattr(attention, "head_dim", None) or text.hidden_size // heads
    return heads, getattr(text, "num_key_value_heads", None) or heads, size


def norm_names(norm: str) -> tuple[str, str]:
    """The hook points of a norm."""
    return f"{norm}.hook_scale", f"{norm}.hook_normalized"


def epsilon_of(norm: nn.Module) -> float | None:
    """What an RMS norm adds to the mean square; None where it does not say."""
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))


def named_modules(decoder: Decoder) -> dict[str, tuple[nn.Module, type]]:
    """The decoder's modules and their types: quantising and parametrising change the type alone."""
    roots = {"layers": decoder.layers, "norm": decoder.norm, "head": decoder.head}
    roots["embed"] = decoder.embed
    return {
        f"{root}.{name}".rstrip("."): (module, type(module))
        for root, top in roots.items()
        for name, module in top.named_modules()
    }
