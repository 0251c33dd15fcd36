"""The bridge backbone: a decoder that Hugging Face computes, under TransformerBridge's hook points.

Inside the exchange the Hugging Face layers run as they are, with their own kernels, caches, devices
and quantised weights; what their modules take and give passes through the hook points of a
TransformerBridge. So logits equal Hugging Face's bit for bit while nobody changes an activation.

A TransformerBridge puts its components into the module tree that it is built on, for good. This one
is therefore built on a twin of the decoder: other module objects around the same parameters. The
Hugging Face model keeps its own modules; PyTorch hooks come and go with the exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import nn
from transformer_lens.hook_points import HookPoint

from mmlens.adapter import Decoder
from mmlens.backbone.bridge.attention import (
    EXPLICIT_KERNELS,
    HookedAttention,
    implementation,
    intercepted,
    interface_of,
)
from mmlens.backbone.bridge.twin import build_bridge, canonical_points
from mmlens.backbone.bridge.wiring import (
    LAST_SITES,
    ResidMid,
    Wiring,
    branch_end,
    layer_sites,
    wire_norm,
    wire_sites,
)
from mmlens.backbone.exchange import NO_ATTENTIONS, Backbone
from mmlens.backbone.layout import NORMS, Parts, layout_of, named_modules, parts_of
from mmlens.errors import SpliceError


class BridgeSplice(Backbone):
    """The exchange of one Hugging Face model's decoder for itself under hook points.

    Hook points are wired as they stand when the decoder's forward begins: adding one from inside
    another hook takes effect at the next forward.

    Args:
        decoder: gives the decoder as it is now.

    Attributes:
        model: the TransformerBridge. On its own it is TransformerLens's plain text model on the
            same parameters; its hooks act on the Hugging Face model only inside the exchange.
        hook_dict: as of every backbone, in the order in which the hook points fire.

    Raises:
        UnsupportedModelError: the decoder's layers are not of Llama's shape.
    """

    name = "bridge"

    def __init__(self, decoder: Callable[[], Decoder]) -> None:
        super().__init__()
        self._decoder = decoder
        now = decoder()
        layout = layout_of(now)
        self._layers: list[Parts] = [parts_of(layer, layout) for layer in now.layers]
        self._last: Parts = {"ln_final": now.norm, "unembed": now.head}
        self._modules = named_modules(now)
        self.gated = "mlp.gate" in layout
        self.model = build_bridge(now, layout)
        self.cfg = self.model.cfg
        self.hook_dict = canonical_points(self.model, layout)
        self._wiring = Wiring()
        self._hooked: tuple[str, ...] = ()
        self._attentions: dict[nn.Module, HookedAttention] = {}
        self._interception = ExitStack()

    def refresh(self) -> None:
        """See :meth:`Backbone.refresh`."""
        decoder = self._decoder()
        now = named_modules(decoder)
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
        """See :meth:`Backbone.why_silent`."""
        if not name.endswith(HookedAttention.NAMES):
            return None
        attention = self._layers[0]["attn"]
        if interface_of(attention) is None:
            return (
                f"{name!r} cannot fire: {type(attention).__name__} computes attention by itself, "
                "outside transformers' attention interface."
            )
        kernel = implementation(attention)
        if name.endswith(HookedAttention.EXPLICIT) and kernel not in EXPLICIT_KERNELS:
            return (
                f"{name!r} cannot fire under attention implementation {kernel!r}, which never forms "
                "it: call hf.set_attn_implementation('sdpa') first."
            )
        return None

    # -- the exchange --------------------------------------------------------------------------

    def _exchange(self, stack: ExitStack) -> None:
        decoder = self._decoder()
        if decoder.config.output_attentions:
            raise SpliceError(NO_ATTENTIONS)
        stack.callback(self._forget)
        stack.callback(self._end)
        for handle in (
            decoder.model.register_forward_pre_hook(self._begin),
            decoder.model.register_forward_hook(self._end, always_call=True),
            decoder.layers[0].register_forward_pre_hook(self._count, with_kwargs=True),
        ):
            stack.callback(handle.remove)

    def _begin(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        self._wire(tuple(n for n, p in self.hook_dict.items() if p.fwd_hooks or p.bwd_hooks))
        if self._attentions:
            for name in self._hooked:
                if (why := self.why_silent(name)) is not None:
                    raise SpliceError(why)
            self._interception.enter_context(intercepted(self._attentions))

    def _end(self, *_: Any) -> None:
        self._interception.close()

    def _count(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("output_attentions"):
            raise SpliceError(NO_ATTENTIONS)
        self.passes += 1

    def _wire(self, names: tuple[str, ...]) -> None:
        """Wire the hook points of these names, and no others: one without a hook costs nothing."""
        if names == self._hooked:
            return
        self._forget()
        points = {name: self.hook_dict[name] for name in names}
        if "hook_embed" in points:
            # TransformerLens's place for it; here projector output is merged in already.
            self._wiring.before(self._layers[0][""], points["hook_embed"])
        for index, parts in enumerate(self._layers):
            prefix = f"blocks.{index}."
            hooked = {n.removeprefix(prefix): p for n, p in points.items() if n.startswith(prefix)}
            self._wire_layer(parts, hooked)
        wire_norm(self._wiring, self._last["ln_final"], "ln_final", points)
        wire_sites(self._wiring, self._last, LAST_SITES, points)
        self._wiring.connect()
        self._hooked = names

    def _forget(self) -> None:
        self._wiring.disconnect()
        self._wiring, self._attentions, self._hooked = Wiring(), {}, ()

    def _wire_layer(self, parts: Parts, hooked: Mapping[str, HookPoint]) -> None:
        wiring = self._wiring
        attention = HookedAttention.of(hooked)
        if attention is not None:
            self._attentions[parts["attn"]] = attention
            wiring.at_call(parts["attn"], attention.at_call)
        for norm in NORMS:
            if norm in parts:
                wire_norm(wiring, parts[norm], norm, hooked)
        middle = ResidMid(hooked["hook_resid_mid"]) if "hook_resid_mid" in hooked else None
        if middle is not None:
            wiring.before(parts["ln2"], middle.at_norm)
            wiring.after(parts[""], middle.at_layer)
        wire_sites(wiring, parts, layer_sites(parts), hooked)
        if middle is not None:
            # After hook_mlp_out, which sits there too.
            wiring.after(parts[branch_end("mlp", parts)], middle.at_branch)
