"""The activations of some neurons along one sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.hook_names import LANGUAGE
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import tower_rows
from mmlens.neurons import NeuronSet


@torch.no_grad()
def activations_of(
    model: HookedMLLM, batch: Batch, neurons: NeuronSet
) -> dict[tuple[int, int], Float[Tensor, " pos"]]:
    """What some neurons of a module do on every position of one sample.

    The activation is that of :class:`mmlens.statistics.top_activations.TopActivations`, and so is the order of
    the positions: those of the prompt without padding, or the sample's real ones in a tower.

    Args:
        model: a hooked model.
        batch: of one sample.
        neurons: of one module.
    """
    module = neurons.module
    seen: dict[int, list[Tensor]] = defaultdict(list)

    def keeper(layer: int, activation: Callable[[Tensor], Tensor] | None) -> Any:
        columns = neurons.per_layer()[layer]

        def keep(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            flat = tensor.detach().flatten(0, -2).index_select(1, columns.to(tensor.device))
            seen[layer].append((flat if activation is None else activation(flat)).float().cpu())

        return keep

    hooks = []
    for layer in neurons.per_layer():
        activation = model.activation(module, layer)
        point = model.module(module).hook(layer, "post" if activation is None else "pre")
        hooks.append((point, keeper(layer, activation)))
    with model.hooks(fwd_hooks=hooks):
        model.forward(batch.to(model.device), logits_to_keep=1)
    if module == LANGUAGE:
        rows = [torch.where(batch.groups.attention.flatten().cpu(), 0, -1)]
    else:
        rows = tower_rows(model, batch, module)
    found = {}
    for layer, columns in neurons.per_layer().items():
        real = [flat[row == 0] for flat, row in zip(seen[layer], rows, strict=True)]
        values = torch.cat(real)
        found |= {(layer, int(n)): values[:, i] for i, n in enumerate(columns)}
    return found
