"""What all changes of activations share: which neurons, which tokens, and writing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.errors import HookError, StatisticsError
from mmlens.neurons import NeuronSet

Hook = tuple[str, Callable[..., Any]]
Neurons = NeuronSet | Iterable[NeuronSet]
#: ``act``: the activation itself; ``glu``: its product with the up branch, at ``hook_post``.
Site = Literal["act", "glu"]


@dataclass(frozen=True)
class Where:
    """The tokens that an intervention is limited to.

    Attributes:
        positions: true where a token is changed, shaped as one run of the module over the prompt;
            None: every token, new ones too.
        new_tokens: with ``positions``, change the tokens that are generated as well.
    """

    positions: Bool[Tensor, "*row pos"] | None = None
    new_tokens: bool = False

    def mask(self, shape: tuple[int, ...]) -> Bool[Tensor, ...] | bool:
        """The mask over a run of that shape [*row, pos]; True or False where it is the same for all.

        A run over one position, where ``positions`` has more, is taken for a new token.

        Raises:
            HookError: ``positions`` does not fit.
        """
        if self.positions is None:
            return True
        if is_step(shape, tuple(self.positions.shape)):
            return self.new_tokens
        return fitted(self.positions, shape, "positions")


def is_step(shape: tuple[int, ...], prompt: tuple[int, ...]) -> bool:
    """Whether a run of ``shape`` [row, pos] generates a new token after a prompt of another shape."""
    return len(shape) == len(prompt) == 2 and shape[1] == 1 < prompt[1]


def fitted(value: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """``value`` [*row, pos, ...] with its rows repeated to those of ``shape`` [*row, pos].

    Raises:
        HookError: the positions differ, or the rows are no multiple.
    """
    given = tuple(value.shape[: len(shape)])
    if given == shape:
        return value
    if len(given) == len(shape) > 1 and given[1:] == shape[1:] and shape[0] % max(given[0], 1) == 0:
        beams = shape[0] // given[0]  # generate repeats each row
        return value.repeat_interleave(beams, 0)
    raise HookError(
        f"{what} of shape {list(given)} do not fit a run of {list(shape)} positions: give them for the "
        "very batch that is run, with its padding (outside the language model: for the tower's own rows)."
    )


def write(
    tensor: Float[Tensor, "*row pos neuron"],
    columns: Int[Tensor, " n"],
    new: Float[Tensor, ...],
    mask: Bool[Tensor, ...] | bool,
) -> Float[Tensor, "*row pos neuron"]:
    """A copy with ``new`` [*row, pos, n], or what broadcasts to it, in the columns where ``mask`` says."""
    old_shape = (*tensor.shape[:-1], len(columns))
    new = new.to(tensor.device, tensor.dtype).expand(old_shape)
    if isinstance(mask, Tensor):
        old = tensor.index_select(-1, columns)
        new = torch.where(mask.to(tensor.device)[..., None], new, old)
    return tensor.index_copy(-1, columns, new)


def edit(
    indices: Int[Tensor, " n"], change: Callable[[Tensor], Tensor], where: Where
) -> Callable[..., Any]:
    """A hook that puts ``change(columns)`` in place of some neurons' columns [*row, pos, n]."""
    on = PerDevice(indices)

    def hook_fn(tensor: Float[Tensor, "*row pos neuron"], hook: HookPoint) -> Tensor | None:  # noqa: ARG001
        mask = where.mask(tuple(tensor.shape[:-1]))
        if mask is False:
            return None
        columns = on(tensor.device)
        return write(tensor, columns, change(tensor.index_select(-1, columns)), mask)

    return hook_fn


class PerDevice:
    """A tensor with a copy on each device that asked for it, made once."""

    def __init__(self, tensor: Tensor) -> None:
        self._on = {tensor.device: tensor}
        self._tensor = tensor

    def __call__(self, device: torch.device) -> Tensor:
        """The tensor on that device."""
        if device not in self._on:
            self._on[device] = self._tensor.to(device)
        return self._on[device]


def as_sets(neurons: Neurons) -> list[NeuronSet]:
    """One set, or several, as a list."""
    return [neurons] if isinstance(neurons, NeuronSet) else list(neurons)


def per_layer(neurons: Neurons) -> Iterator[tuple[str, int, Int[Tensor, " n"]]]:
    """(module, layer, indices) of every layer that has a neuron."""
    for one in as_sets(neurons):
        for layer, indices in one.per_layer().items():
            yield one.module, layer, indices


def parts(
    neurons: Neurons, values: float | Tensor, what: str
) -> Iterator[tuple[str, int, Int[Tensor, " n"], Float[Tensor, ...]]]:
    """(module, layer, indices, their values [n] or []) of every layer that has a neuron.

    Args:
        neurons: a set, or sets of several modules.
        values: one number for all, or one per neuron in the order of ``pairs()``, set after set.
        what: name of the values, for errors.

    Raises:
        StatisticsError: there are more or fewer values than neurons, or one is no finite number.
    """
    sets = as_sets(neurons)
    values = torch.as_tensor(values, dtype=torch.float64)
    count = sum(map(len, sets))
    if values.dim() and values.shape != (count,):
        raise StatisticsError(
            f"{what} of shape {list(values.shape)} for {count} neurons: give one number, or one per neuron "
            "in the order of NeuronSet.pairs()."
        )
    if not values.isfinite().all():
        raise StatisticsError(f"{what} must be finite numbers; at least one is not.")
    start = 0
    for module, layer, indices in per_layer(sets):
        here = values[start : start + len(indices)] if values.dim() else values
        yield module, layer, indices, here
        start += len(indices)
