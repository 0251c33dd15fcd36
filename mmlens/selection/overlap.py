"""How far neuron sets overlap: shares, Jaccard, labels per neuron, exact combinations.

For MMNeuron's domain sets (MM-3 in the notes on methods: counts, how many labels a neuron carries,
``|A & B| / |B|``) and for any other sets of one module, by name. Pure functions on sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet, union
from mmlens.plots.frames import COMBINATION_COLUMNS


def jaccard(a: NeuronSet, b: NeuronSet) -> float:
    """|A & B| / |A | B|, in [0, 1]; NaN where both sets are empty.

    Raises:
        StatisticsError: sets of different modules, shapes or models.
    """
    return _ratio(len(a & b), len(a | b))


def chance_jaccard(a: NeuronSet, b: NeuronSet) -> float:
    """The Jaccard index of random sets as large as A and B, drawn from the same module.

    With N neurons in the module E|A & B| = |A| |B| / N, and what is given is E|A & B| over
    |A| + |B| - E|A & B|: the ratio of the means, which the mean ratio is close to for large sets.
    """
    both = len(a) * len(b) / prod(a.shape)
    return _ratio(both, len(a) + len(b) - both)


def counts_table(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Neurons per set: all, only in this set, and in others too.

    Columns: module, domain, n_neurons, exclusive, shared, share (of the module's neurons, 0..1).

    Raises:
        StatisticsError: no sets, or sets of different modules, shapes or models.
    """
    labels = _labels(sets)
    alone = labels.sum(-1) == 1
    size = labels.shape[0] * labels.shape[1]
    exclusive = (labels & alone[..., None]).flatten(0, 1).sum(0).tolist()
    return pd.DataFrame(
        [
            {
                "module": one.module,
                "domain": name,
                "n_neurons": len(one),
                "exclusive": n_alone,
                "shared": len(one) - n_alone,
                "share": len(one) / size,
            }
            for (name, one), n_alone in zip(sets.items(), exclusive, strict=True)
        ]
    )


def multiplicity_table(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """How many neurons carry 1, 2, ..., k labels, of k sets.

    Columns: module, n_labels (1..k, also those that no neuron has), n_neurons, share (of the
    neurons in any set, 0..1; NaN where there are none).

    Raises:
        StatisticsError: as in :func:`counts_table`.
    """
    labels = _labels(sets)
    found = labels.sum(-1).flatten().bincount(minlength=len(sets) + 1)[1:].tolist()
    module = next(iter(sets.values())).module
    return pd.DataFrame(
        [
            {
                "module": module,
                "n_labels": n,
                "n_neurons": count,
                "share": _ratio(count, sum(found)),
            }
            for n, count in enumerate(found, start=1)
        ]
    )


def overlap_table(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Every ordered pair of sets, a set with itself too.

    Columns: module, a, b, n_a, n_b, both = |A & B|, share_of_b = |A & B| / |B| (the measure of
    MMNeuron's code, NaN where B is empty), jaccard (NaN where both are), chance (the Jaccard index of
    random sets of these sizes).

    Raises:
        StatisticsError: as in :func:`counts_table`.

    >>> sets = {"x": NeuronSet([(0, 0), (0, 1)], "m", (1, 4)), "y": NeuronSet([(0, 1)], "m", (1, 4))}
    >>> overlap_table(sets)[["a", "b", "both", "share_of_b", "jaccard"]].values.tolist()[1]
    ['x', 'y', 1, 1.0, 0.5]
    """
    _labels(sets)
    return pd.DataFrame(
        [
            {
                "module": one.module,
                "a": a,
                "b": b,
                "n_a": len(one),
                "n_b": len(other),
                "both": (both := len(one & other)),
                "share_of_b": _ratio(both, len(other)),
                "jaccard": jaccard(one, other),
                "chance": chance_jaccard(one, other),
            }
            for a, one in sets.items()
            for b, other in sets.items()
        ]
    )


def cross_table(
    domains: Mapping[str, NeuronSet], modalities: Mapping[str, NeuronSet]
) -> pd.DataFrame:
    """Every set of one method against every set of another: how many neurons both find.

    For MMNeuron's domain sets against MINER's modality sets, of one module. Columns: module, domain,
    modality, n_domain = |A|, n_modality = |B|, both = |A & B|, expected = |A| |B| / N, the mean of
    |A & B| over random sets of these sizes among the module's N neurons, jaccard. The table is ours.

    Raises:
        StatisticsError: as in :func:`counts_table`.
    """
    _labels(domains)
    _labels(modalities)
    return pd.DataFrame(
        [
            {
                "module": one.module,
                "domain": domain,
                "modality": modality,
                "n_domain": len(one),
                "n_modality": len(other),
                "both": len(one & other),
                "expected": len(one) * len(other) / prod(one.shape),
                "jaccard": jaccard(one, other),
            }
            for domain, one in domains.items()
            for modality, other in modalities.items()
        ]
    )


def combinations_table(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Neurons by the exact combination of sets they are in, largest first: an UpSet plot's bars.

    Columns: module, domains (joined by ``;``, in the sets' order), n_domains, n_neurons. Every neuron
    of any set is counted in one row.

    Raises:
        StatisticsError: as in :func:`counts_table`, or a name with ``;`` in it.
    """
    labels, names = _labels(sets), list(sets)
    if broken := [name for name in names if ";" in name]:
        raise StatisticsError(
            f"The name {broken[0]!r} has a ';', which separates names in the table."
        )
    found, counts = labels[labels.any(-1)].unique(dim=0, return_counts=True)
    rows: list[dict[str, Any]] = [
        {
            "module": next(iter(sets.values())).module,
            "domains": ";".join(name for name, there in zip(names, row, strict=True) if there),
            "n_domains": sum(row),
            "n_neurons": count,
        }
        for row, count in zip(found.tolist(), counts.tolist(), strict=True)
    ]
    rows.sort(key=lambda r: (-r["n_neurons"], r["n_domains"], r["domains"]))
    return pd.DataFrame(rows, columns=list(COMBINATION_COLUMNS))


def _labels(sets: Mapping[str, NeuronSet]) -> Bool[Tensor, "layer neuron set"]:
    """Which sets each neuron is in; checks that the sets belong together."""
    if not sets:
        raise StatisticsError("No neuron sets were given; at least one is needed.")
    union(list(sets.values()))
    return torch.stack([one.mask() for one in sets.values()], dim=-1)


def _ratio(part: int | float, whole: int | float) -> float:
    return part / whole if whole else float("nan")
