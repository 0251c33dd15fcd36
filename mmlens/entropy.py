"""Domain-specific neurons by the entropy of activation probabilities (MMNeuron, arXiv 2406.11193).

The statistic and the selection go back to LAPE (arXiv 2402.16438), with domains in place of
languages. Pure functions on tensors; all logarithms natural unless bits are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.neurons import NeuronSet, union

#: Entropies are in nats by default, as in MMNeuron's code (methods 9.4).
Unit = Literal["nats", "bits"]
_NATS_PER = {"nats": 1.0, "bits": log(2.0)}


def activation_probability(
    n_positive: Int[Tensor, "layer neuron domain"], n_tokens: Int[Tensor, " domain"]
) -> Float[Tensor, "layer neuron domain"]:
    """p[u, i] = M[u, i] / N[i]: the share of domain i's tokens on which neuron u is above zero.

    M counts activations > 0 (strictly), N all tokens of the domain that passed the module
    (MMNeuron section 3; float64, so that the division loses nothing of the counts).

    Raises:
        StatisticsError: a domain without tokens, or a count above its number of tokens.
    """
    if (n_tokens <= 0).any():
        raise StatisticsError(
            f"Every domain needs at least one token; the token totals given are {n_tokens.tolist()}."
        )
    if (n_positive < 0).any() or (n_positive > n_tokens).any():
        raise StatisticsError("A neuron's count of activations must lie between 0 and the tokens.")
    return n_positive.double() / n_tokens.double()


def activation_entropy(
    probabilities: Float[Tensor, "layer neuron domain"], *, unit: Unit = "nats"
) -> Float[Tensor, "layer neuron"]:
    """Domain activation probability entropy (DAPE) of every neuron, in nats or bits.

    With p'[u, i] = p[u, i] / sum_j p[u, j]:  DAPE[u] = - sum_i p'[u, i] ln p'[u, i], where
    0 ln 0 := 0. It lies in [0, ln k] for k domains. A neuron that is never active has no p';
    its entropy is 0, and the filter of :func:`select` leaves it out (MMNeuron section 3,
    official code ``identify.py``).

    Args:
        probabilities: activation probabilities, one column per domain.
        unit: of the entropy; 1 bit is ln 2 nats.
    """
    total = probabilities.sum(-1, keepdim=True)
    share = torch.where(total > 0, probabilities / total, torch.zeros_like(probabilities))
    return torch.special.entr(share).sum(-1) / _NATS_PER[unit]


def selectivity(
    probabilities: Float[Tensor, "layer neuron domain"],
) -> Float[Tensor, "layer neuron"]:
    """1 - DAPE / ln k of every neuron: 0 equally active on all k domains, 1 active on one alone.

    Our own expertise in [0, 1], for :func:`mmlens.hooks.soft_scale`. A neuron that is never active
    has 0.

    Args:
        probabilities: activation probabilities, one column per domain.

    Raises:
        StatisticsError: fewer than two domains.
    """
    domains = probabilities.shape[-1]
    if domains < 2:
        raise StatisticsError(f"Selectivity compares domains: two at least, {domains} was given.")
    active = (probabilities > 0).any(-1)
    share = 1 - activation_entropy(probabilities) / log(domains)
    return torch.where(active, share, 0.0).clamp(0, 1)


@dataclass(frozen=True)
class Selection:
    """Domain-specific neurons of one module, with the thresholds that made them.

    Attributes:
        sets: domain -> its neurons; a neuron may belong to several domains.
        entropy: domain activation probability entropy of every neuron, in ``unit``.
        passes: where some domain's activation probability lies above ``tau``.
        tau: the quantile of all activation probabilities of the module: filter and label bar.
        cut: the largest entropy among the selected neurons, in ``unit`` (NaN if none was selected).
        fraction: the share of the module's neurons that was asked for.
        unit: of the entropies.
    """

    sets: dict[str, NeuronSet]
    entropy: Float[Tensor, "layer neuron"]
    passes: Bool[Tensor, "layer neuron"]
    tau: float
    cut: float
    fraction: float
    unit: Unit = "nats"

    def in_unit(self, unit: Unit) -> Selection:
        """The same selection with its entropies in nats or bits, for showing them."""
        by = _NATS_PER[self.unit] / _NATS_PER[unit]
        return replace(self, entropy=self.entropy * by, cut=self.cut * by, unit=unit)

    @property
    def union(self) -> NeuronSet:
        """Every selected neuron, whatever its domains."""
        return union(list(self.sets.values()))


def select(
    n_positive: Int[Tensor, "layer neuron domain"],
    n_tokens: Int[Tensor, " domain"],
    domains: Sequence[str],
    *,
    fraction: float = 0.01,
    quantile: float = 0.95,
    module: str = "language",
    model_hash: str | None = None,
    among: NeuronSet | None = None,
) -> Selection:
    """Select the domain-specific neurons of a module, exactly as MMNeuron's ``identify.py`` does.

    1. tau: the ``round(quantile * n)``-th smallest of all n = layers x neurons x domains
       probabilities p.
    2. A neuron passes if p[u, i] > tau (strictly) for some domain i.
    3. The K = ``round(fraction * layers * neurons)`` neurons of lowest entropy among those that
       pass; K is a share of all neurons, so fewer are left where fewer pass. Equal entropies
       (to 1e-12 nats, so that rounding decides nothing) are taken in the order of (layer, index).
    4. A selected neuron belongs to every domain i with p[u, i] > tau: multi-label.

    Args:
        n_positive: counts of activations above zero.
        n_tokens: tokens per domain.
        domains: names, in the order of the last axis.
        fraction: share of the module's neurons to select, in (0, 1].
        quantile: the quantile for tau, in (0, 1].
        module: the module's name, for the sets.
        model_hash: fingerprint of the model, for the sets.
        among: the neurons to consider, e.g. ``model.on_path("vision")`` without those that cannot
            influence the output; quantile and share are then of these. None: all, as the paper does.

    Raises:
        StatisticsError: names and counts do not fit, or a share is out of range.
    """
    _check(n_positive, n_tokens, domains, fraction, quantile)
    probability = activation_probability(n_positive, n_tokens)
    considered = torch.ones_like(probability[..., 0], dtype=torch.bool)
    if among is not None:
        if among.shape != considered.shape:
            raise StatisticsError(f"{among!r} does not fit counts of {tuple(considered.shape)}.")
        considered = among.mask()
    flat = probability[considered].flatten()
    tau = flat.kthvalue(max(1, round(quantile * flat.numel()))).values
    above = (probability > tau) & considered[..., None]
    passes = above.any(-1)
    entropy = activation_entropy(probability)

    ranked = torch.where(passes, entropy.round(decimals=12), torch.inf).flatten()
    chosen = ranked.argsort(stable=True)[: round(fraction * int(considered.sum()))]
    chosen = chosen[ranked[chosen].isfinite()]
    selected = torch.zeros_like(ranked, dtype=torch.bool)
    selected[chosen] = True
    labels = above & selected.view_as(entropy)[..., None]
    return Selection(
        sets={
            domain: NeuronSet.from_mask(labels[..., i], module, model_hash)
            for i, domain in enumerate(domains)
        },
        entropy=entropy,
        passes=passes,
        tau=float(tau),
        cut=float(entropy.flatten()[chosen].max()) if len(chosen) else float("nan"),
        fraction=fraction,
    )


def domain_neurons(
    n_positive: Int[Tensor, "layer neuron domain"],
    n_tokens: Int[Tensor, " domain"],
    domains: Sequence[str],
    fraction: float = 0.01,
    quantile: float = 0.95,
    module: str = "language",
) -> dict[str, NeuronSet]:
    """Domain -> its neurons: :func:`select` without the thresholds. See there for every rule.

    >>> positive = torch.tensor([[[9, 0], [5, 5], [0, 9], [1, 0]]])
    >>> sets = domain_neurons(positive, torch.tensor([10, 10]), ["a", "b"], 0.5, 0.5)
    >>> {domain: neurons.pairs().tolist() for domain, neurons in sets.items()}
    {'a': [[0, 0]], 'b': [[0, 2]]}
    """
    return select(
        n_positive, n_tokens, domains, fraction=fraction, quantile=quantile, module=module
    ).sets


def _check(
    n_positive: Tensor, n_tokens: Tensor, domains: Sequence[str], fraction: float, quantile: float
) -> None:
    counted = {n_positive.shape[-1], len(n_tokens)}
    if counted != {len(domains)} or len(set(domains)) != len(domains):
        raise StatisticsError(
            f"{n_positive.shape[-1]} domains were counted, but the names given are {list(domains)}; "
            "give one distinct name per domain."
        )
    for name, value in (("fraction", fraction), ("quantile", quantile)):
        if not 0 < value <= 1:
            raise StatisticsError(f"{name} must lie in (0, 1], {value} was given.")
