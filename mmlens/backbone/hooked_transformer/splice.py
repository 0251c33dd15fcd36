"""The exchange: inside a context the hooked backbone computes in the Hugging Face decoder's place.

The Hugging Face model drives: it merges the projector's output into the embeddings, makes
positions, masks and caches, and generates. Its layers, final norm and head stay where they are,
with their parameters, hooks and output capturing; only what they compute is exchanged, by an
instance attribute ``forward`` that is taken away on leaving.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from transformer_lens import HookedTransformer

from mmlens.adapter import Adapter
from mmlens.backbone.exchange import NO_ATTENTIONS, Backbone
from mmlens.backbone.hooked_transformer.attention import LayerCall, SpliceContext
from mmlens.backbone.hooked_transformer.build import build_hooked_transformer, share_weights
from mmlens.errors import SpliceError

# Hook points that TransformerLens itself switches on by a flag of the config.
_SWITCHES = {
    "attn.hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_mlp_in": "use_hook_mlp_in",
    "hook_attn_in": "use_attn_in",
    "hook_tokens": "use_hook_tokens",
}
Fingerprint = tuple[tuple[tuple[str, type], ...], tuple[tuple[Any, ...], ...]]


class Splice(Backbone):
    """The exchange of one Hugging Face model's decoder for a HookedTransformer's blocks.

    Args:
        adapter: the adapter of the Hugging Face model.

    Raises:
        UnsupportedModelError: HookedTransformer cannot represent the decoder exactly.
    """

    name = "hooked_transformer"
    gated = True

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter, self.context = adapter, SpliceContext()
        config = adapter.backbone_config()
        self.model: HookedTransformer = build_hooked_transformer(
            config, adapter.backbone_weights(config), self.context
        )
        self.cfg = self.model.cfg
        self.hook_dict = dict(self.model.hook_dict)
        self._built_from = self._fingerprint()

    def why_silent(self, name: str) -> str | None:
        """See :meth:`Backbone.why_silent`; TransformerLens switches some off by its config."""
        for ending, flag in _SWITCHES.items():
            if name.endswith(ending) and not getattr(self.cfg, flag):
                return (
                    f"{name!r} is switched off: call model.backbone.set_{flag}(True) first, as in "
                    "TransformerLens."
                )
        return None

    def refresh(self) -> None:
        """See :meth:`Backbone.refresh`."""
        now = self._fingerprint()
        if now[0] != self._built_from[0]:
            old, new = dict(self._built_from[0]), dict(now[0])
            changed = sorted(n for n in {*old, *new} if old.get(n) is not new.get(n))
            raise SpliceError(
                f"The decoder's modules changed after splicing (first: {changed[0]!r}, now "
                f"{new[changed[0]].__name__ if changed[0] in new else 'gone'}). The backbone would "
                "ignore that: merge or remove the wrapper, or call mmlens.splice on the merged model."
            )
        if now[1] != self._built_from[1]:
            self._share()
            self._built_from = now

    def _share(self) -> None:
        weight = self.adapter.decoder().embed.weight
        self.cfg.dtype, self.cfg.device = weight.dtype, str(weight.device)
        share_weights(self.model, self.adapter.backbone_weights(self.cfg))

    def _fingerprint(self) -> Fingerprint:
        decoder = self.adapter.decoder()
        parts = {"layers": decoder.layers, "norm": decoder.norm, "head": decoder.head}
        parts["embed"] = decoder.embed
        modules, parameters = [], []
        for part, root in parts.items():
            for name, module in root.named_modules():
                modules.append((f"{part}.{name}", type(module)))
            for p in root.parameters():
                parameters.append((p.data_ptr(), p.dtype, p.device))
        return tuple(modules), tuple(parameters)

    def _exchange(self, stack: ExitStack) -> None:
        decoder = self.adapter.decoder()
        if decoder.config.output_attentions:
            raise SpliceError(NO_ATTENTIONS)
        for index, (layer, block) in enumerate(zip(decoder.layers, self.model.blocks, strict=True)):
            _replace_forward(stack, layer, self._layer_forward(index, block))
        _replace_forward(stack, decoder.norm, self.model.ln_final.__call__)
        _replace_forward(stack, decoder.head, self.model.unembed.__call__)
        _use_sdpa(stack, decoder.config)

    def _layer_forward(self, index: int, block: nn.Module) -> Any:
        context, hook_embed = self.context, self.model.hook_embed

        def forward(
            hidden_states: Tensor,
            attention_mask: Tensor | None = None,
            past_key_values: Any | None = None,
            position_embeddings: tuple[Tensor, Tensor] | None = None,
            output_attentions: bool = False,
            **_: Any,
        ) -> Tensor:
            if output_attentions:
                raise SpliceError(NO_ATTENTIONS)
            if position_embeddings is None:
                raise SpliceError("The decoder handed no rotary tables to its layer.")
            if index == 0:
                # TransformerLens's place for it; here projector output is merged in already.
                hidden_states = hook_embed(hidden_states)
                self.passes += 1
            context.call = LayerCall(*position_embeddings, attention_mask, past_key_values, index)
            try:
                return block(hidden_states)
            finally:
                context.call = None

        return forward


def _replace_forward(stack: ExitStack, module: nn.Module, forward: Callable[..., Any]) -> None:
    if "forward" in module.__dict__:
        raise SpliceError(
            f"{type(module).__name__} already has a forward of its own (device_map and other wrappers "
            "set one); load the model without it."
        )
    module.forward = forward
    stack.callback(module.__dict__.pop, "forward", None)


def _use_sdpa(stack: ExitStack, config: Any) -> None:
    """Masks come in the form that the attention implementation wants: ask for SDPA's."""
    before = config._attn_implementation
    if before != "sdpa":
        config._attn_implementation = "sdpa"
        stack.callback(setattr, config, "_attn_implementation", before)
