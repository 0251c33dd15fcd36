"""The bridge backbone: a decoder that Hugging Face computes, under TransformerBridge's hook points.

Inside the exchange the Hugging Face layers run as they are, with their own kernels, caches, devices
and quantised weights; what their modules take and give passes through the hook points of a
TransformerBridge. So logits equal Hugging Face's bit for bit while nobody changes an activation.

A TransformerBridge puts its components into the module tree that it is built on, for good. This one
is therefore built on a twin of the decoder: other module objects around the same parameters. The
Hugging Face model keeps its own modules; PyTorch hooks come and go with the exchange.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
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
from mmlens.errors import SpliceError, UnsupportedModelError

_NO_ATTENTIONS = (
    "output_attentions is not given inside the splice: cache the hooks "
    "'blocks.{layer}.attn.hook_pattern' instead, or call the model outside it."
)
# Where a decoder layer keeps its parts. TransformerLens's path -> Hugging Face's.
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
_NORMS = ("ln1", "ln1_post", "ln2", "ln2_post")
# Implementations whose scores can be computed explicitly from the mask that the layer gets.
_EXPLICIT = ("sdpa", "eager")
_MODULE_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)

Layout = Mapping[str, str]
Parts = Mapping[str, nn.Module]
#: A part and which side of it, ``in`` or ``out``.
Site = tuple[str, str]
_LAST_SITES: Mapping[str, Site] = {
    "unembed.hook_in": ("unembed", "in"),
    "unembed.hook_out": ("unembed", "out"),
}


class BridgeSplice:
    """The exchange of one Hugging Face model's decoder for itself under hook points.

    Hook points are heard as they stand when the decoder's forward begins: adding one from inside
    another hook takes effect at the next forward.

    Args:
        decoder: gives the decoder as it is now.

    Attributes:
        name: ``bridge``.
        model: the TransformerBridge. On its own it is TransformerLens's plain text model on the
            same parameters; its hooks act on the Hugging Face model only inside the exchange.
        cfg: its config.
        hook_dict: canonical TransformerLens names -> hook points, in the order in which they fire.
        gated: whether the MLPs multiply the activation with an up branch.
        depth: nesting of the exchange.
        passes: forward passes of the first layer so far.

    Raises:
        UnsupportedModelError: the decoder's layers are not of Llama's shape.
    """

    name = "bridge"

    def __init__(self, decoder: Callable[[], Decoder]) -> None:
        self._decoder = decoder
        now = decoder()
        layout = _layout_of(now)
        self._layers: list[Parts] = [_parts(layer, layout) for layer in now.layers]
        self._last: Parts = {"ln_final": now.norm, "unembed": now.head}
        self._modules = _named_modules(now)
        self.gated = "mlp.gate" in layout
        self.model = _build_bridge(now, layout)
        self.cfg: Any = self.model.cfg
        self.hook_dict: dict[str, HookPoint] = _canonical_points(self.model, layout)
        self.depth = 0
        self.passes = 0
        self._wiring = _Wiring()
        self._heard: tuple[str, ...] = ()
        self._attentions: dict[nn.Module, _Attention] = {}
        self._interception = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Enter the exchange; entering it again inside changes nothing."""
        if self.depth:
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1
            return
        self.refresh()
        with ExitStack() as stack:
            self._exchange(stack)
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1

    def refresh(self) -> None:
        """Follow the Hugging Face model to where its weights are now.

        Raises:
            SpliceError: its decoder has other modules than when it was spliced.
        """
        decoder = self._decoder()
        now = _named_modules(decoder)
        if now != self._modules:
            changed = sorted(
                name for name in {*now, *self._modules} if now.get(name) != self._modules.get(name)
            )
            found = now[changed[0]][1].__name__ if changed[0] in now else "gone"
            raise SpliceError(
                f"The decoder's modules changed after splicing (first: {changed[0]!r}, now {found}). "
                "The backbone would ignore that: merge or remove the wrapper, or call mmlens.splice "
                "on the changed model."
            )
        weight = decoder.embed.weight
        self.cfg.dtype, self.cfg.device = weight.dtype, str(weight.device)

    def why_silent(self, name: str) -> str | None:
        """Why an existing hook point cannot fire, in a sentence; None where it can."""
        if not name.endswith(_Attention.NAMES):
            return None
        attention = self._layers[0]["attn"]
        if _interface(attention) is None:
            return (
                f"{name!r} cannot fire: {type(attention).__name__} computes attention by itself, "
                "outside transformers' attention interface."
            )
        kernel = _implementation(attention)
        if name.endswith(_Attention.EXPLICIT) and kernel not in _EXPLICIT:
            return (
                f"{name!r} cannot fire under attention implementation {kernel!r}, which never forms "
                "it: call hf.set_attn_implementation('sdpa') first."
            )
        return None

    # -- the exchange --------------------------------------------------------------------------

    def _exchange(self, stack: ExitStack) -> None:
        decoder = self._decoder()
        if decoder.config.output_attentions:
            raise SpliceError(_NO_ATTENTIONS)
        stack.callback(self._forget)
        stack.callback(self._end)
        for handle in (
            decoder.model.register_forward_pre_hook(self._begin),
            decoder.model.register_forward_hook(self._end, always_call=True),
            decoder.layers[0].register_forward_pre_hook(self._count, with_kwargs=True),
        ):
            stack.callback(handle.remove)

    def _begin(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        self._hear(tuple(n for n, p in self.hook_dict.items() if p.fwd_hooks or p.bwd_hooks))
        if self._attentions:
            for name in self._heard:
                if (why := self.why_silent(name)) is not None:
                    raise SpliceError(why)
            self._interception.enter_context(_intercepted(self._attentions))

    def _end(self, *_: Any) -> None:
        self._interception.close()

    def _count(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("output_attentions"):
            raise SpliceError(_NO_ATTENTIONS)
        self.passes += 1

    def _hear(self, names: tuple[str, ...]) -> None:
        """Wire the hook points of these names, and no others: who is not heard costs nothing."""
        if names == self._heard:
            return
        self._forget()
        points = {name: self.hook_dict[name] for name in names}
        if "hook_embed" in points:
            # TransformerLens's place for it; here projector output is merged in already.
            self._wiring.before(self._layers[0][""], points["hook_embed"])
        for index, parts in enumerate(self._layers):
            prefix = f"blocks.{index}."
            heard = {n.removeprefix(prefix): p for n, p in points.items() if n.startswith(prefix)}
            self._hear_layer(parts, heard)
        _hear_norm(self._wiring, self._last["ln_final"], "ln_final", points)
        _hear_sites(self._wiring, self._last, _LAST_SITES, points)
        self._wiring.connect()
        self._heard = names

    def _forget(self) -> None:
        self._wiring.disconnect()
        self._wiring, self._attentions, self._heard = _Wiring(), {}, ()

    def _hear_layer(self, parts: Parts, heard: Mapping[str, HookPoint]) -> None:
        wiring = self._wiring
        attention = _Attention.of(heard)
        if attention is not None:
            self._attentions[parts["attn"]] = attention
            wiring.at_call(parts["attn"], attention.at_call)
        for norm in _NORMS:
            if norm in parts:
                _hear_norm(wiring, parts[norm], norm, heard)
        middle = _ResidMid(heard["hook_resid_mid"]) if "hook_resid_mid" in heard else None
        if middle is not None:
            wiring.before(parts["ln2"], middle.at_norm)
            wiring.after(parts[""], middle.at_layer)
        _hear_sites(wiring, parts, _layer_sites(parts), heard)
        if middle is not None:
            # After hook_mlp_out, which sits there too.
            wiring.after(parts[_branch_end("mlp", parts)], middle.at_branch)


# -- the decoder's shape --------------------------------------------------------------------------


def _layout_of(decoder: Decoder) -> Layout:
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
        _check_widths(f"layers.{index}", _parts(decoder.layers[index], layout), decoder.config)
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
    for norm in _NORMS:
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
    if "RMSNorm" not in type(norm).__name__ or _epsilon(norm) is None:
        raise UnsupportedModelError(
            f"The bridge serves decoders with RMS norms; {where} is a {type(norm).__name__}."
        )


def _check_widths(where: str, parts: Parts, text: Any) -> None:
    """The config's widths have to be the modules': hook points are shaped by the config."""
    heads, groups, size = _heads(parts["attn"], text)
    wanted = {"attn.q": heads * size, "attn.k": groups * size, "attn.v": groups * size}
    wanted |= {part: text.intermediate_size for part in ("mlp.gate", "mlp.in") if part in parts}
    for part, width in wanted.items():
        # Quantised layers of some libraries do not tell.
        found = getattr(parts[part], "out_features", width)
        if found != width:
            raise UnsupportedModelError(
                f"The bridge serves decoders whose layers have the config's widths; {where}'s {part} "
                f"gives {found} features where the config makes it {width}."
            )


def _parts(layer: nn.Module, layout: Layout) -> Parts:
    """TransformerLens's paths -> modules of one layer; the layer itself at the empty path."""
    return {"": layer, **{ours: layer.get_submodule(path) for ours, path in layout.items()}}


def _heads(attention: nn.Module, text: Any) -> tuple[int, int, int]:
    """Query heads, key and value heads, features per head."""
    heads = text.num_attention_heads
    size = getattr(attention, "head_dim", None) or text.hidden_size // heads
    return heads, getattr(text, "num_key_value_heads", None) or heads, size


def _epsilon(norm: nn.Module) -> float | None:
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))


def _named_modules(decoder: Decoder) -> dict[str, tuple[nn.Module, type]]:
    """The decoder's modules and their types: quantising and parametrising change the type alone."""
    roots = {"layers": decoder.layers, "norm": decoder.norm, "head": decoder.head}
    roots["embed"] = decoder.embed
    return {
        f"{root}.{name}".rstrip("."): (module, type(module))
        for root, top in roots.items()
        for name, module in top.named_modules()
    }


# -- the TransformerBridge ------------------------------------------------------------------------


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
        norms = {one: RMSNormalizationBridge(path[one], cfg) for one in _NORMS if one in layout}
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


def _build_bridge(decoder: Decoder, layout: Layout) -> TransformerBridge:
    text: Any = decoder.config
    heads, groups, size = _heads(decoder.layers[0].get_submodule(layout["attn"]), text)
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
        eps=cast(float, _epsilon(decoder.norm)),
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


def _canonical_points(bridge: TransformerBridge, layout: Layout) -> dict[str, HookPoint]:
    """Canonical names -> the bridge's hook points, which answer to these names from now on."""
    layer = [
        "hook_resid_pre",
        *_norm_names("ln1"),
        *(f"attn.hook_{one}" for one in ("q", "k", "v", "rot_k", "rot_q", "attn_scores")),
        *("attn.hook_pattern", "attn.hook_z"),
        *(_norm_names("ln1_post") if "ln1_post" in layout else ()),
        *("hook_attn_out", "hook_resid_mid"),
        *_norm_names("ln2"),
        "mlp.hook_pre",
        *(("mlp.hook_pre_linear",) if "mlp.gate" in layout else ()),
        "mlp.hook_post",
        *(_norm_names("ln2_post") if "ln2_post" in layout else ()),
        *("hook_mlp_out", "hook_resid_post"),
    ]
    names = [f"blocks.{index}.{name}" for index in range(bridge.cfg.n_layers) for name in layer]
    every = bridge.hook_dict
    last = (*_norm_names("ln_final"), "unembed.hook_in", "unembed.hook_out")
    points = {name: every[name] for name in ("hook_embed", *names, *last)}
    for name, point in points.items():
        # TransformerBridge's own name is the module's; hooks here are told the canonical one.
        point.name = name
    return points


def _norm_names(norm: str) -> tuple[str, str]:
    return f"{norm}.hook_scale", f"{norm}.hook_normalized"


# -- hook points at modules -----------------------------------------------------------------------


class _Wiring:
    """Functions at the inputs and outputs of modules, called in the order in which they came."""

    def __init__(self) -> None:
        self._before: defaultdict[nn.Module, list[Callable[[Tensor], Tensor]]]
        self._before = defaultdict(list)
        self._after: defaultdict[nn.Module, list[Callable[[Tensor, Tensor], Tensor]]]
        self._after = defaultdict(list)
        self._handles: list[RemovableHandle] = []

    def before(self, module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        """``function(input)`` takes the place of the module's input."""
        self._before[module].append(function)

    def after(self, module: nn.Module, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        """``function(output, input)`` takes the place of the module's output."""
        self._after[module].append(function)

    def at_call(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """A plain forward pre-hook with keyword arguments."""
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def connect(self) -> None:
        """Install everything as PyTorch hooks."""
        for module, functions in self._before.items():
            self.at_call(module, _before_hook(functions))
        for module, functions in self._after.items():
            # First among hooks: transformers' capturing of hidden states reads what comes out.
            handle = module.register_forward_hook(
                _after_hook(functions), with_kwargs=True, prepend=True
            )
            self._handles.append(handle)

    def disconnect(self) -> None:
        """Take every PyTorch hook away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _before_hook(functions: list[Callable[[Tensor], Tensor]]) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = _input(args, kwargs)
        for function in functions:
            x = function(x)
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

    return hook


def _after_hook(functions: list[Callable[[Tensor, Tensor], Tensor]]) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x, y = _input(args, kwargs), output[0] if isinstance(output, tuple) else output
        for function in functions:
            y = function(y, x)
        return (y, *output[1:]) if isinstance(output, tuple) else y

    return hook


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _hear_sites(
    wiring: _Wiring, parts: Parts, sites: Mapping[str, Site], points: Mapping[str, HookPoint]
) -> None:
    """Wire the hook points that are a module's input or output."""
    for name, (part, side) in sites.items():
        if (point := points.get(name)) is None:
            continue
        if side == "in":
            wiring.before(parts[part], point)
        else:
            wiring.after(parts[part], lambda output, _, point=point: point(output))


def _layer_sites(parts: Parts) -> dict[str, Site]:
    """Where a layer's hook points sit that are a module's input or output."""
    pre = "mlp.gate" if "mlp.gate" in parts else "mlp.in"
    return {
        "hook_resid_pre": ("", "in"),
        "attn.hook_q": ("attn.q", "out"),
        "attn.hook_k": ("attn.k", "out"),
        "attn.hook_v": ("attn.v", "out"),
        "attn.hook_z": ("attn.o", "in"),
        "hook_attn_out": (_branch_end("attn", parts), "out"),
        "mlp.hook_pre": (pre, "out"),
        "mlp.hook_pre_linear": ("mlp.in", "out"),
        "mlp.hook_post": ("mlp.out", "in"),
        "hook_mlp_out": (_branch_end("mlp", parts), "out"),
        "hook_resid_post": ("", "out"),
    }


def _branch_end(branch: str, parts: Parts) -> str:
    """The part whose output is added to the residual stream: a norm where one follows."""
    post = {"attn": "ln1_post", "mlp": "ln2_post"}[branch]
    return post if post in parts else branch


def _passed(point: HookPoint, value: Tensor) -> tuple[Tensor, bool]:
    """What a hook point makes of a value, and whether that differs from it.

    A hook may give another tensor or write into the one it got.
    """
    before = value.clone() if value.is_inference() else value._version
    result = point(value)
    if result is not value:
        return result, True
    if isinstance(before, Tensor):
        return result, not torch.equal(before, value)
    return result, value._version != before


class _ResidMid:
    """The residual stream after attention, of one layer.

    A layer adds its MLP's output to the stream that it took before ``ln2``. A module's input is all
    that a hook can exchange, so a changed stream is put under the MLP's output afterwards.
    """

    def __init__(self, point: HookPoint) -> None:
        self._point = point
        self._changed: tuple[Tensor, Tensor] | None = None
        self._branch: Tensor | None = None

    def at_norm(self, stream: Tensor) -> Tensor:
        """Through the hook point, at the input of ``ln2``."""
        result = self._point(stream)
        # Written in place, the layer's own tensor has changed already.
        self._changed = None if result is stream else (stream, result)
        return result

    def at_branch(self, output: Tensor, _: Tensor) -> Tensor:
        """Remember what the MLP adds."""
        self._branch = output
        return output

    def at_layer(self, output: Tensor, _: Tensor) -> Tensor:
        """The layer's output on the changed stream."""
        changed, branch = self._changed, self._branch
        self._changed = self._branch = None
        if changed is None or branch is None:
            return output
        before, after = changed
        if not torch.equal(output, before + branch):
            raise SpliceError(
                "hook_resid_mid cannot be changed here: the layer's output is not the sum of the "
                "residual stream and the MLP's output."
            )
        return after + branch


def _hear_norm(
    wiring: _Wiring, norm: nn.Module, name: str, points: Mapping[str, HookPoint]
) -> None:
    """Wire the hook points of an RMS norm, those of them that are heard.

    The norm's own output stands unless a hook changes something. Its gain is what it makes of ones,
    so weights stay where they are: offloaded, or stored as an offset from 1.
    """
    heard = [points.get(one) for one in _norm_names(name)]
    if not any(heard):
        return
    at_scale, at_normalized = (point or HookPoint() for point in heard)
    epsilon = cast(float, _epsilon(norm))

    def through(output: Tensor, x: Tensor) -> Tensor:
        x = x if x.dtype == torch.float64 else x.float()
        scale = (x.square().mean(-1, keepdim=True) + epsilon).sqrt()
        scale, rescaled = _passed(at_scale, scale)
        normalized, changed = _passed(at_normalized, x / scale)
        if not (rescaled or changed):
            return output
        ones = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
        gain = norm.forward(ones) * (1 + epsilon) ** 0.5
        return (normalized * gain).to(output.dtype)

    wiring.after(norm, through)


# -- attention ------------------------------------------------------------------------------------


@dataclass
class _Attention:
    """One layer's attention between its projections, through those hook points that are heard.

    Attributes:
        rot_k, rot_q: new keys and queries after rotation, [batch, head, pos, d_head].
        scores, pattern: [batch, head, query, key].
        cached: whether the layer keeps its keys in a cache.
    """

    NAMES: ClassVar = ("hook_rot_k", "hook_rot_q", "hook_attn_scores", "hook_pattern")
    EXPLICIT: ClassVar = NAMES[2:]

    rot_k: HookPoint | None
    rot_q: HookPoint | None
    scores: HookPoint | None
    pattern: HookPoint | None
    cached: bool = False

    @classmethod
    def of(cls, heard: Mapping[str, HookPoint]) -> _Attention | None:
        """The attention of one layer, by names inside the layer; None if nobody listens there."""
        rot_k, rot_q, scores, pattern = (heard.get(f"attn.{name}") for name in cls.NAMES)
        anyone = rot_k or rot_q or scores or pattern
        return cls(rot_k, rot_q, scores, pattern) if anyone else None

    def at_call(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """New keys pass their hook point before a cache keeps them."""
        cache = kwargs.get("past_key_values")
        self.cached = cache is not None
        if self.rot_k is None or cache is None:
            return None
        return args, {**kwargs, "past_key_values": _KeysThrough(cache, self.rot_k)}

    def __call__(
        self,
        kernel: Callable[..., Any],
        module: nn.Module,
        query: Float[Tensor, "batch head query d_head"],
        key: Float[Tensor, "batch group key d_head"],
        value: Float[Tensor, "batch group key d_head"],
        mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "batch query head d_head"], Tensor | None]:
        """As transformers' attention functions; ``kernel`` is the one that would compute.

        The kernel's result stands unless a hook changes scores or pattern.
        """
        key = self.rot_k(key) if self.rot_k is not None and not self.cached else key
        query = self.rot_q(query) if self.rot_q is not None else query
        if self.scores is None and self.pattern is None:
            return kernel(module, query, key, value, mask, **kwargs)
        scores = _scores(module, query, key, mask, **kwargs)
        scores, rescored = _passed(self.scores or HookPoint(), scores)
        # A row that may attend to nothing (padding) gives 0/0; TransformerLens makes it zero too.
        pattern = F.softmax(scores.float(), dim=-1).nan_to_num(0.0)
        pattern, changed = _passed(self.pattern or HookPoint(), pattern)
        if not (rescored or changed):
            return kernel(module, query, key, value, mask, **kwargs)
        dropped = F.dropout(pattern.to(value.dtype), kwargs.get("dropout", 0.0), module.training)
        z = dropped @ _expanded(value, query.shape[1])
        return z.transpose(1, 2).contiguous(), pattern


class _KeysThrough:
    """A Hugging Face cache whose new keys pass a hook point first."""

    def __init__(self, cache: Any, point: HookPoint) -> None:
        self._cache, self._point = cache, point

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the cache's ``update``."""
        return self._cache.update(self._point(keys), values, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


def _scores(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch group key d_head"],
    mask: Tensor | None,
    **kwargs: Any,
) -> Float[Tensor, "batch head query key"]:
    """Attention scores, scaled, capped and masked as the kernel's are."""
    strange = [name for name in ("position_bias", "s_aux") if kwargs.get(name) is not None]
    if strange:
        raise SpliceError(
            f"hook_attn_scores and hook_pattern do not know attention's {strange[0]}."
        )
    scale, cap = kwargs.get("scaling"), kwargs.get("softcap")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ _expanded(key, query.shape[1]).transpose(-1, -2) * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if mask is None and query.shape[2] > 1 and _implementation(module) == "sdpa":
        # transformers leaves a mask that is only causal to the kernel.
        square = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        mask = square.tril(key.shape[2] - query.shape[2])
    if mask is None:
        return scores
    mask = mask[..., : key.shape[2]]
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def _expanded(
    x: Float[Tensor, "batch group key d_head"], heads: int
) -> Float[Tensor, "batch head key d_head"]:
    return x.repeat_interleave(heads // x.shape[1], dim=1) if heads != x.shape[1] else x


def _implementation(attention: nn.Module) -> str:
    return cast(Any, attention).config._attn_implementation


def _looked_up(attention: nn.Module, name: str) -> Any:
    """A global name as the attention's forward sees it; None where it has none."""
    forward: Any = inspect.unwrap(type(attention).forward)
    return forward.__globals__.get(name)


def _interface(attention: nn.Module) -> MutableMapping[str, Callable[..., Any]] | None:
    """transformers' attention interface, where this attention uses it."""
    return _looked_up(attention, "ALL_ATTENTION_FUNCTIONS")


@contextmanager
def _intercepted(attentions: Mapping[nn.Module, _Attention]) -> Iterator[None]:
    """Lead these modules' attention through hook points, by an entry in transformers' interface.

    The entry overrides the implementation that the modules ask for, so the config, and with it the
    masks that transformers makes, stay as they are. Other modules get what they asked for.
    """
    first = next(iter(attentions))
    interface, name = _interface(first), _implementation(first)
    assert interface is not None
    plain = interface.get(name)  # None: eager, which each model's file has of its own

    def attend(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        kernel = plain or _looked_up(module, "eager_attention_forward")
        if (attention := attentions.get(module)) is None:
            return kernel(module, *args, **kwargs)
        return attention(kernel, module, *args, **kwargs)

    interface[name] = attend
    try:
        yield
    finally:
        del interface[name]
        if interface.get(name) is not plain and plain is not None:
            interface[name] = plain  # somebody else's override
