"""Interventions that give activations a value: a number, a mean, a minimum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.errors import HookError
from mmlens.hook_names import mlp_hook
from mmlens.hooks.editing import (
    Hook,
    Neurons,
    PerDevice,
    Site,
    Where,
    as_sets,
    edit,
    parts,
    per_layer,
    write,
)
from mmlens.statistics.neuron_statistics import NeuronStatistics


def set_to(
    neurons: Neurons,
    value: float | Float[Tensor, " n"],
    *,
    site: Site = "act",
    model: Any = None,
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Give neurons an activation of that value, before the product with the up branch.

    With an up branch u the product becomes value x u, so the hooks read ``hook_pre_linear`` and
    write ``hook_post``: two per layer. TransformerLens's own GatedMLP adds a bias b_in after the
    product, which stays (it is 0 in every released model).

    Args:
        neurons: a set, or sets of several modules.
        value: one for all, or one per neuron in the order of ``neurons.pairs()``, set after set;
            taken in the model's dtype.
        site: ``act`` sets the activation, ``glu`` the product with the up branch itself.
        model: what the hooks are for, anything with TransformerLens's ``hook_dict``; it shows
            which MLPs have an up branch. None: all of them have one, as decoders of Llama's shape.
        positions, new_tokens: which tokens; see :mod:`mmlens.hooks`.

    Raises:
        StatisticsError: there are more or fewer values than neurons, or one is not finite.
        HookError: when run, the MLP has no up branch although ``model`` was not given.
    """
    where = Where(positions, new_tokens)
    hooks: list[Hook] = []
    for module, layer, indices, one in parts(neurons, value, "Values"):
        post = mlp_hook(module, layer, "post")
        linear = mlp_hook(module, layer, "pre_linear")
        if site == "glu" or (model is not None and linear not in model.hook_dict):
            hooks.append((post, edit(indices, _constant(one), where)))
            continue
        product = _Product(linear, indices, one, _bias_after(model, layer, indices))
        hooks += [(linear, product.read), (post, edit(indices, product.change, where))]
    return hooks


def mean(
    neurons: Neurons,
    statistics: NeuronStatistics,
    *,
    group: str | None = None,
    keys: Sequence[str] | None = None,
    model: Any = None,
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Replace each neuron's activation by its mean over the tokens that the statistics counted.

    Args:
        neurons: a set, or sets of several modules.
        statistics: of :func:`mmlens.collect`; their ``site`` is what is set.
        group: the token group the mean is over; default: the module's first.
        keys: the keys (domains) it is over; default: all, each token counting once.
        model, positions, new_tokens: as in :func:`set_to`.

    Raises:
        StatisticsError: the module, group or a key was not collected, or has no token.
    """
    values = _measured(neurons, lambda module: statistics.means(module, group, keys))
    site = statistics.site
    return set_to(
        neurons, values, site=site, model=model, positions=positions, new_tokens=new_tokens
    )


def minimum(
    neurons: Neurons,
    statistics: NeuronStatistics,
    *,
    over: Literal["neuron", "layer"] = "neuron",
    group: str | None = None,
    keys: Sequence[str] | None = None,
    model: Any = None,
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Replace each neuron's activation by the smallest one in the statistics.

    MINER's value -1 is the smallest of the layer in the very run: :func:`layer_minimum`.

    Args:
        neurons: a set, or sets of several modules.
        statistics: of :func:`mmlens.collect`; their ``site`` is what is set.
        over: the smallest of the ``neuron``, or of all neurons of its ``layer``.
        group, keys: the tokens it is over, as in :func:`mean`.
        model, positions, new_tokens: as in :func:`set_to`.

    Raises:
        StatisticsError: the module, group or a key was not collected, or has no token.
    """

    def lowest(module: str) -> Float[Tensor, "layer neuron"]:
        values = statistics.minima(module, group, keys)
        return values if over == "neuron" else values.amin(-1, keepdim=True).expand_as(values)

    values = _measured(neurons, lowest)
    site = statistics.site
    return set_to(
        neurons, values, site=site, model=model, positions=positions, new_tokens=new_tokens
    )


def layer_minimum(
    neurons: Neurons,
    activation: Callable[[str, int], Callable[[Tensor], Tensor] | None],
    *,
    real: Bool[Tensor, "*row pos"] | None = None,
    positions: Bool[Tensor, "*row pos"] | None = None,
    new_tokens: bool = False,
) -> list[Hook]:
    """Replace activations by the layer's smallest one in the same run, row by row (MINER's value -1).

    MINER (official code, ``deactivation_val=-1``) writes the minimum of the activation function's
    output over all tokens and neurons; it runs one sample at a time, and while generating that is
    the minimum over the one new token. Here each row has its own minimum, so batching changes
    nothing where ``real`` names the padding.

    Args:
        neurons: a set, or sets of several modules.
        activation: (module, layer) -> activation function, or None where ``hook_post`` is the
            activation: ``model.activation`` of a HookedMLLM, or
            ``lambda module, layer: transformer.blocks[layer].mlp.act_fn``.
        real: tokens that the minimum is over (``batch.groups.attention``); None: all.
        positions, new_tokens: which tokens are changed; see :mod:`mmlens.hooks`.
    """
    where, among = Where(positions, new_tokens), Where(real, new_tokens=True)
    return [
        _minimising(module, layer, indices, activation(module, layer), where, among)
        for module, layer, indices in per_layer(neurons)
    ]


def _minimising(
    module: str,
    layer: int,
    indices: Int[Tensor, " n"],
    activation: Callable[[Tensor], Tensor] | None,
    where: Where,
    among: Where,
) -> Hook:
    """The pre-activation whose activation is lowest is written: no up branch needs to be known."""
    on = PerDevice(indices)

    def hook_fn(tensor: Float[Tensor, "*row pos neuron"], hook: HookPoint) -> Tensor | None:  # noqa: ARG001
        shape = tuple(tensor.shape[:-1])
        mask, real = where.mask(shape), among.mask(shape)
        if mask is False:
            return None
        values = tensor if activation is None else activation(tensor)
        if isinstance(real, Tensor):
            values = values.masked_fill(~real.to(values.device)[..., None], torch.inf)
        lowest = values.flatten(-2).argmin(-1, keepdim=True)
        chosen = tensor.flatten(-2).gather(-1, lowest)[..., None]
        return write(tensor, on(tensor.device), chosen, mask)

    return mlp_hook(module, layer, "post" if activation is None else "pre"), hook_fn


class _Product:
    """value x up branch, of what one layer's ``hook_pre_linear`` held last.

    Args:
        name: that hook point.
        indices: the neurons.
        value: the activation they get.
        bias: what the MLP adds after the product.
    """

    def __init__(
        self,
        name: str,
        indices: Int[Tensor, " n"],
        value: Float[Tensor, ...],
        bias: Float[Tensor, " n"] | None,
    ) -> None:
        self._name, self._indices, self._value = name, PerDevice(indices), PerDevice(value)
        self._bias = None if bias is None else PerDevice(bias)
        self._up: Tensor | None = None

    def read(self, linear: Float[Tensor, "*row pos neuron"], hook: HookPoint) -> None:  # noqa: ARG002
        self._up = linear.index_select(-1, self._indices(linear.device))

    def change(self, old: Float[Tensor, "*row pos n"]) -> Float[Tensor, "*row pos n"]:
        if self._up is None:
            raise HookError(
                f"{self._name!r} did not fire before its product, so there is no up branch to multiply the "
                "value with: pass model=, which knows which MLPs have one, or site='glu'."
            )
        up, self._up = self._up, None
        product = self._value(old.device).to(up.dtype) * up
        return product if self._bias is None else product + self._bias(old.device)


def _constant(value: Float[Tensor, ...]) -> Callable[[Tensor], Tensor]:
    moved = PerDevice(value)
    return lambda old: moved(old.device)


def _bias_after(model: Any, layer: int, indices: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
    # A bridge's b_in belongs to the up projection, and is in hook_pre_linear already.
    mlp: Any = model.blocks[layer].mlp if hasattr(model, "blocks") else None
    if type(mlp).__name__ != "GatedMLP":
        return None
    return mlp.b_in.detach()[indices.to(mlp.b_in.device)]


def _measured(
    neurons: Neurons, values: Callable[[str], Float[Tensor, "layer neuron"]]
) -> Float[Tensor, " n"]:
    """The values of the neurons, set after set, of each module's [layer, neuron]."""
    chosen = [values(one.module)[tuple(one.pairs().T)] for one in as_sets(neurons)]
    return torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.float64)
