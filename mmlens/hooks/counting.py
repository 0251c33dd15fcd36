"""Hooks that count activations above zero (MMNeuron section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE, mlp_hook
from mmlens.hooks.editing import Hook


class Counter(list[Hook]):
    """Counting hooks, and what they have counted.

    It is itself the list of (hook name, function) pairs; give it to ``hooks`` or
    ``run_with_hooks`` of any TransformerLens model.

    Args:
        layers: layers to count in.
        groups: masks over [batch, pos] of the tokens to count, one per group; None counts all
            tokens in one group. They must fit the batches that the model is run on.
        module: the module's name.
        decode_steps: inside ``generate``, count the new tokens too, one position at a time; only
            without ``groups``, which name positions of the prompt. A forward over one position that
            follows a longer one is taken for such a step.

    Raises:
        SampleError: decode steps are asked for together with groups.
    """

    def __init__(
        self,
        layers: Iterable[int],
        groups: Bool[Tensor, "group batch pos"] | None = None,
        module: str = LANGUAGE,
        decode_steps: bool = False,
    ) -> None:
        if decode_steps and groups is not None:
            raise SampleError(
                "Groups name positions of the prompt, so new tokens belong to none: count decode steps "
                "with groups=None."
            )
        self.groups, self.decode_steps = groups, decode_steps
        self._longest: dict[int, int] = {}
        self._counts: dict[int, Int[Tensor, "group neuron"]] = {}
        super().__init__(
            (mlp_hook(module, layer, "pre"), self._counting(layer)) for layer in layers
        )

    def counts(self) -> Int[Tensor, "layer group neuron"]:
        """How often each neuron's activation was above zero, over all runs so far."""
        return torch.stack([self._counts[layer] for layer in sorted(self._counts)])

    def _counting(self, layer: int) -> Callable[..., None]:
        def hook_fn(pre: Float[Tensor, "batch pos neuron"], hook: HookPoint) -> None:  # noqa: ARG001
            is_step = pre.shape[1] == 1 < self._longest.get(layer, 0)
            self._longest[layer] = max(self._longest.get(layer, 0), pre.shape[1])
            if is_step and not self.decode_steps:
                return
            # SiLU, GELU and ReLU are above zero exactly where their input is.
            counted = positive_counts(pre, self.groups)
            self._counts[layer] = self._counts.get(layer, torch.zeros_like(counted)) + counted

        return hook_fn


def count(
    layers: Iterable[int],
    groups: Bool[Tensor, "group batch pos"] | None = None,
    module: str = LANGUAGE,
    decode_steps: bool = False,
) -> Counter:
    """Hooks that count activations above zero; see :class:`Counter`.

    >>> counter = count(range(2))
    >>> [name for name, function in counter]
    ['blocks.0.mlp.hook_pre', 'blocks.1.mlp.hook_pre']
    """
    return Counter(layers, groups, module, decode_steps)


def positive_counts(
    pre: Float[Tensor, "batch pos neuron"], groups: Bool[Tensor, "group batch pos"] | None
) -> Int[Tensor, "group neuron"]:
    """Per group of tokens and neuron, how many values are strictly above zero."""
    above = pre > 0
    if groups is None:
        return above.flatten(0, 1).sum(0)[None]
    return torch.stack([above[mask].sum(0) for mask in groups.to(pre.device)])
