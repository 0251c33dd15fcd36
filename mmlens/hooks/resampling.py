"""Resampling: a neuron takes the activations it has on another sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint

from mmlens.errors import HookError
from mmlens.hook_names import mlp_hook
from mmlens.hooks.editing import (
    Hook,
    Neurons,
    PerDevice,
    Site,
    Where,
    fitted,
    is_step,
    per_layer,
    write,
)


def resample(
    neurons: Neurons,
    donor: ActivationCache | Mapping[str, Tensor] | Int[Tensor, " row"],
    *,
    site: Site = "act",
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Give neurons the activations they have on other samples, position by position.

    An activation is exchanged by its pre-activation, at ``hook_pre``; for ``site="glu"`` the
    product with the up branch is, at ``hook_post``.

    Shapes: a cache holds ``hook_pre`` (``glu``: ``hook_post``) of each layer that has a neuron,
    [*row, pos, neuron], of a run with the same positions (its padding included) and as many rows,
    or one row for all; it has no new tokens, which keep their own activations. Rows of the same batch,
    named by their order, may be other rows' padding: limit ``positions`` to
    ``attention & attention[order]``.

    Args:
        neurons: a set, or sets of several modules.
        donor: the cache of another run (``model.run_with_cache(other, names)[1]``, or any mapping
            from hook name to tensor), or the order of the batch's own rows: row i takes the
            activations of row ``donor[i]``.
        site: what is exchanged.
        positions, new_tokens: which tokens; see :mod:`mmlens.hooks`. New tokens can be exchanged
            between rows only.

    Raises:
        HookError: the cache lacks a layer; new tokens are asked for of a cache; an order names
            rows that do not exist; or, when run, the shapes do not fit.
    """
    where = Where(positions, new_tokens)
    if isinstance(donor, Tensor):
        if len(donor) and (donor.min() < 0 or donor.max() >= len(donor)):
            raise HookError(
                f"An order of {len(donor)} rows names rows 0 to {len(donor) - 1}; "
                f"{donor.tolist()} was given."
            )
    elif new_tokens:
        raise HookError(
            "A cache of another run has no new tokens: resample them with new_tokens=False."
        )
    hooks: list[Hook] = []
    point = "pre" if site == "act" else "post"
    for module, layer, indices in per_layer(neurons):
        name = mlp_hook(module, layer, point)
        if isinstance(donor, Tensor):
            hooks.append((name, _of_rows(indices, donor, where)))
            continue
        if name not in donor.keys():  # noqa: SIM118  (an ActivationCache takes short names for `in`)
            raise HookError(
                f"The donor's cache lacks {name!r}: cache the hook_{point} of every layer that has a "
                "neuron."
            )
        hooks.append((name, _of_cache(indices, donor[name][..., indices], where)))
    return hooks


def _of_cache(
    indices: Int[Tensor, " n"], donor: Float[Tensor, "*row pos n"], where: Where
) -> Callable[..., Any]:
    on, values = PerDevice(indices), PerDevice(donor)

    def hook_fn(tensor: Float[Tensor, "*row pos neuron"], hook: HookPoint) -> Tensor | None:  # noqa: ARG001
        shape = tuple(tensor.shape[:-1])
        mask = where.mask(shape)
        if mask is False or is_step(shape, tuple(donor.shape[:-1])):
            return None
        new = fitted(values(tensor.device), shape, "Activations of a donor")
        return write(tensor, on(tensor.device), new, mask)

    return hook_fn


def _of_rows(
    indices: Int[Tensor, " n"], order: Int[Tensor, " row"], where: Where
) -> Callable[..., Any]:
    on = PerDevice(indices)
    longest = 0

    def hook_fn(tensor: Float[Tensor, "*row pos neuron"], hook: HookPoint) -> Tensor | None:  # noqa: ARG001
        nonlocal longest
        rows, pos = tensor.shape[:2]
        if tensor.dim() != 3 or rows % max(len(order), 1):
            raise HookError(
                f"An order of {len(order)} rows does not fit a run of shape {list(tensor.shape)}."
            )
        if pos == 1 < longest and not where.new_tokens:
            return None
        longest = max(longest, pos)
        mask = where.mask((rows, pos))
        beams = rows // len(order)
        taken = (order[:, None] * beams + torch.arange(beams, device=order.device)).flatten()
        columns = on(tensor.device)
        new = tensor.index_select(-1, columns)[taken.to(tensor.device)]
        return None if mask is False else write(tensor, columns, new, mask)

    return hook_fn
