"""The activations of some neurons along one sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.hook_names import LANGUAGE
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet


@torch.no_grad()
def activations_of(
    model: HookedMLLM, batch: Batch, neurons: NeuronSet
) -> dict[tuple[int, int], Float[Tensor, " pos"]]:
    """(layer, index) -> a neuron's activation on every position of one sample.

    Activations and the order of positions are those of
    :class:`mmlens.statistics.top_activations.TopActivations`: the positions of the prompt without
    padding, or the sample's real ones in a tower.

    Args:
        model: a hooked model.
        batch: of one sample.
        neurons: of one module.
    """
    module, layers = neurons.module, neurons.per_layer()
    seen: dict[int, list[Tensor]] = defaultdict(list)

    def keep(layer: int, tensor: Tensor, activation: Callable[[Tensor], Tensor]) -> None:
        flat = tensor.detach().flatten(0, -2)
        chosen = flat.index_select(1, layers[layer].to(flat.device))
        seen[layer].append(activation(chosen).float().cpu())

    hooks = [model.activation_hook(module, layer, partial(keep, layer)) for layer in layers]
    with model.hooks(fwd_hooks=hooks):
        model.forward(batch.to(model.device), logits_to_keep=1)
    if module == LANGUAGE:
        rows = [torch.where(batch.groups.attention.flatten().cpu(), 0, -1)]
    else:
        rows = model.tower_rows(batch, module)
    found = {}
    for layer, columns in layers.items():
        values = torch.cat([flat[row == 0] for flat, row in zip(seen[layer], rows, strict=True)])
        found |= {(layer, int(n)): values[:, i] for i, n in enumerate(columns)}
    return found
