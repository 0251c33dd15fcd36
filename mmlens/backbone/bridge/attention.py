"""The bridge's attention: transformers' own, through those hook points that have hooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mmlens.backbone.bridge.wiring import passed
from mmlens.backbone.scores import capped_and_masked
from mmlens.errors import SpliceError

# Implementations whose scores can be computed explicitly from the mask that the layer gets.
EXPLICIT_KERNELS = ("sdpa", "eager")


@dataclass
class HookedAttention:
    """One layer's attention between its projections, through those hook points that have hooks.

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
    def of(cls, hooked: Mapping[str, HookPoint]) -> HookedAttention | None:
        """The attention of one layer, by names inside the layer; None if none has a hook."""
        rot_k, rot_q, scores, pattern = (hooked.get(f"attn.{name}") for name in cls.NAMES)
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
        scores, rescored = passed(self.scores or HookPoint(), scores)
        # A row that may attend to nothing (padding) gives 0/0; TransformerLens makes it zero too.
        pattern = F.softmax(scores.float(), dim=-1).nan_to_num(0.0)
        pattern, changed = passed(self.pattern or HookPoint(), pattern)
        if not (rescored or changed):
            return kernel(module, query, key, value, mask, **kwargs)
        dropped = F.dropout(pattern.to(value.dtype), kwargs.get("dropout", 0.0), module.training)
        z = dropped @ _expanded(value, query.shape[1])
        z = rearrange(z, "batch head query d_head -> batch query head d_head")
        return z.contiguous(), pattern


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
    if mask is None and query.shape[2] > 1 and implementation(module) == "sdpa":
        # transformers leaves a mask that is only causal to the kernel.
        square = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        mask = square.tril(key.shape[2] - query.shape[2])
    return capped_and_masked(scores, cap, None if mask is None else mask[..., : key.shape[2]])


def _expanded(
    x: Float[Tensor, "batch group key d_head"], heads: int
) -> Float[Tensor, "batch head key d_head"]:
    if heads == x.shape[1]:
        return x
    repeats = heads // x.shape[1]
    return repeat(x, "batch group key d_head -> batch (group n) key d_head", n=repeats)


def implementation(attention: nn.Module) -> str:
    """The attention implementation that transformers chose, such as ``sdpa``."""
    return cast(Any, attention).config._attn_implementation


def _looked_up(attention: nn.Module, name: str) -> Any:
    """A global name as the attention's forward sees it; None where it has none."""
    forward: Any = inspect.unwrap(type(attention).forward)
    return forward.__globals__.get(name)


def interface_of(attention: nn.Module) -> MutableMapping[str, Callable[..., Any]] | None:
    """transformers' attention interface, where this attention uses it."""
    return _looked_up(attention, "ALL_ATTENTION_FUNCTIONS")


@contextmanager
def intercepted(attentions: Mapping[nn.Module, HookedAttention]) -> Iterator[None]:
    """Lead these modules' attention through hook points, by an entry in transformers' interface.

    The entry overrides the implementation that the modules ask for, so the config, and with it the
    masks that transformers makes, stay as they are. Other modules get what they asked for.
    """
    first = next(iter(attentions))
    interface, name = interface_of(first), implementation(first)
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
