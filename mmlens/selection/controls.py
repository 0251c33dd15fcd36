"""Fair random controls for neuron sets: what silencing as many other neurons does.

Masking a handful of strongly active neurons can break a model whatever they encode (CAN, arXiv
2512.00918), so a set is compared with random sets of the same size per layer, and with random sets
that are also matched in how often their neurons are active.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet

#: How many of the nearest candidates in frequency a matched neuron is drawn from.
NEAREST = 8


def random_like(neurons: NeuronSet, *, avoid: NeuronSet, seed: int) -> NeuronSet:
    """As many neurons per layer, drawn uniformly without replacement from those not in ``avoid``.

    Args:
        neurons: the set to be compared with.
        avoid: neurons that may not be drawn, usually every selected one.
        seed: of the draw; the same seed gives the same set.

    Raises:
        StatisticsError: a layer has too few other neurons.
    """
    return _drawn(
        neurons,
        avoid,
        seed,
        lambda _, wanted, free, rng: rng.choice(free, size=len(wanted), replace=False),
    )


def matched_like(
    neurons: NeuronSet,
    frequency: Float[Tensor, "layer neuron"],
    *,
    avoid: NeuronSet,
    seed: int,
) -> NeuronSet:
    """As many neurons per layer, each with nearly the activation frequency of one in the set.

    Each neuron of the set, in random order, is given one of the ``NEAREST`` unused neurons of its
    layer that are closest in frequency, drawn at random.

    Args:
        neurons: the set to be compared with.
        frequency: activation probability of every neuron, on the data that the set is compared on.
        avoid: neurons that may not be drawn, usually every selected one.
        seed: of the draw.

    Raises:
        StatisticsError: a layer has too few other neurons.
    """
    values = frequency.double().cpu().numpy()

    def draw(
        layer: int, wanted: np.ndarray, free: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        taken, left = [], free
        for index in rng.permutation(wanted):
            distance = np.abs(values[layer, left] - values[layer, index])
            nearest = np.argsort(distance, kind="stable")[:NEAREST]
            pick = rng.choice(nearest)
            taken.append(left[pick])
            left = np.delete(left, pick)
        return np.array(taken)

    return _drawn(neurons, avoid, seed, draw)


def mean_measure(
    sets: Sequence[NeuronSet], measures: Mapping[str, Float[Tensor, "layer neuron"]]
) -> float:
    """Mean of a measure over the neurons of all sets; 0 where there is none.

    Args:
        sets: one per module.
        measures: module -> measure of every neuron of it.
    """
    sizes, means = [], []
    for one in sets:
        pairs = one.pairs()
        sizes.append(len(pairs) or 1e-9)
        inside = measures[one.module][pairs[:, 0], pairs[:, 1]]
        means.append(float(inside.mean()) if len(pairs) else 0.0)
    return float(np.average(means, weights=sizes))


def root_mean_square(
    squares: Float[Tensor, "layer neuron"], tokens: int
) -> Float[Tensor, "layer neuron"]:
    """sqrt(mean of a squared) over tokens: how strongly a neuron is active, whatever its sign.

    Args:
        squares: sum of a squared over the tokens.
        tokens: how many there are.
    """
    return (squares / max(tokens, 1)).sqrt()


def _drawn(
    neurons: NeuronSet,
    avoid: NeuronSet,
    seed: int,
    draw: Callable[[int, np.ndarray, np.ndarray, np.random.Generator], np.ndarray],
) -> NeuronSet:
    if (neurons.module, neurons.shape) != (avoid.module, avoid.shape):
        raise StatisticsError(f"{neurons!r} and {avoid!r} are sets of different modules.")
    generator = np.random.default_rng(seed)
    layers, width = neurons.shape
    blocked = avoid.per_layer()
    pairs: list[tuple[int, int]] = []
    for layer, wanted in neurons.per_layer().items():
        used = blocked.get(layer, torch.empty(0, dtype=torch.long)).numpy()
        free = np.setdiff1d(np.arange(width), used)
        if len(free) < len(wanted):
            raise StatisticsError(
                f"Layer {layer} has only {len(free)} neurons that are not selected, too few for a control "
                f"of {len(wanted)}; select a smaller fraction."
            )
        pairs += [(layer, int(i)) for i in draw(layer, wanted.numpy(), free, generator)]
    return NeuronSet(pairs, neurons.module, (layers, width), neurons.model_hash)
