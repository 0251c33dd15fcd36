"""Interventions by a factor. ``hook_post`` scales as the activation does, gated or not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.hook_names import mlp_hook
from mmlens.hooks.editing import Hook, Neurons, PerDevice, Where, as_sets, edit, parts
from mmlens.neurons import NeuronSet, union


def zero(
    neurons: Neurons,
    *,
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Silence neurons: their activation is 0, by default at every token and while generating.

    Equals zeroing the neurons' columns of the down projection, since a gated MLP multiplies the
    activation with its up branch (MMNeuron and MINER, official codes).

    Args:
        neurons: a set, or sets of several modules.
        positions, new_tokens: which tokens; see :mod:`mmlens.hooks`.

    Returns:
        (hook name, function) pairs, one per layer that has a neuron; none for an empty set.
    """
    return scale(neurons, 0.0, positions=positions, new_tokens=new_tokens)


def scale(
    neurons: Neurons,
    factor: float | Float[Tensor, " n"],
    *,
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Multiply the activation of neurons by a factor; 0 silences, 1 does nothing.

    Args:
        neurons: a set, or sets of several modules.
        factor: one for all, or one per neuron in the order of ``neurons.pairs()``, set after set.
        positions, new_tokens: which tokens; see :mod:`mmlens.hooks`.

    Raises:
        StatisticsError: there are more or fewer factors than neurons, or one is not finite.
    """
    where = Where(positions, new_tokens)
    return [
        (mlp_hook(module, layer, "post"), edit(indices, _times(one), where))
        for module, layer, indices, one in parts(neurons, factor, "Factors")
    ]


def keep_only(
    neurons: Neurons,
    *,
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Silence every neuron of the sets' modules, in all their layers, but these (MINER's complementary mask)."""
    kept: dict[str, list[NeuronSet]] = {}
    for one in as_sets(neurons):
        kept.setdefault(one.module, []).append(one)
    others = [~union(sets) for sets in kept.values()]
    return zero(others, positions=positions, new_tokens=new_tokens)


def soft_factors(expertise: Float[Tensor, " n"], strength: float = 1.0) -> Float[Tensor, " n"]:
    """factor[u] = 1 - strength x expertise[u]: the more of an expert, the softer (ours, after SGM).

    SGM (arXiv 2512.15052) rescales expert neurons by a factor weighted with their expertise instead
    of silencing them; its formula was not available to us, so this linear one is our own.

    Args:
        expertise: of each neuron, in [0, 1].
        strength: in [0, 1]; 0 changes nothing, 1 silences a neuron of expertise 1.

    Raises:
        StatisticsError: a value lies outside [0, 1].

    >>> soft_factors(torch.tensor([0.0, 0.5, 1.0]), 0.5).tolist()
    [1.0, 0.75, 0.5]
    """
    if not 0 <= strength <= 1 or not ((expertise >= 0) & (expertise <= 1)).all():
        raise StatisticsError(
            f"Expertise and strength must lie in [0, 1]; strength {strength} and expertise from "
            f"{float(expertise.min()):.4g} to {float(expertise.max()):.4g} were given."
        )
    return 1 - strength * expertise


def soft_scale(
    neurons: Neurons,
    expertise: Float[Tensor, " n"],
    strength: float = 1.0,
    *,
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Scale each neuron by :func:`soft_factors` of its expertise, in the order of ``neurons.pairs()``."""
    factors = soft_factors(expertise, strength)
    return scale(neurons, factors, positions=positions, new_tokens=new_tokens)


def _times(factor: Float[Tensor, ...]) -> Callable[[Tensor], Tensor]:
    moved = PerDevice(factor)

    def change(old: Float[Tensor, "*row pos n"]) -> Float[Tensor, "*row pos n"]:
        # A factor is not rounded to bfloat16 before it is used.
        wide = torch.promote_types(old.dtype, torch.float32)
        by = moved(old.device).to(wide)
        # 0 is 0 even where the activation is not finite.
        return torch.where(by == 0, by.new_zeros(()), old.to(wide) * by)

    return change
