"""One sample's token states, reduced layer by layer: counts of the indices, and the tokens that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.adapter import KINDS
from mmlens.states.geometry import cosine_distances, permuted_labels
from mmlens.states.indices import nearest, permuted_positions, probing_hits, telomere_hits
from mmlens.tokens.groups import BASE_GROUPS

PROBING, TELOMERE, TELOMERE_ANY = "probing", "telomere", "telomere_any"
_TEXT, _SPECIAL = BASE_GROUPS.index("text"), BASE_GROUPS.index("special")


def chosen_tokens(
    labels: Int[Tensor, " token"], per_group: int, seed: int
) -> Int[Tensor, " chosen"]:
    """Places of at most ``per_group`` tokens of each group, drawn with a seed, in rising order."""
    rng = np.random.default_rng(seed)
    found = []
    for group in labels.unique().tolist():
        places = torch.nonzero(labels == group)[:, 0].numpy()
        found.append(rng.permutation(places)[:per_group])
    return torch.from_numpy(np.sort(np.concatenate(found)))


@dataclass(frozen=True, eq=False)
class SampleTokens:
    """The tokens of one prompt, padding left out.

    Attributes:
        labels: places in ``mmlens.tokens.groups.BASE_GROUPS``.
        probed: places of the tokens that the probing index looks at.
        kept: places of the tokens whose states are kept.
    """

    labels: Int[Tensor, " token"]
    probed: Int[Tensor, " probed"]
    kept: Int[Tensor, " kept"]


class SampleStates:
    """Takes one sample's states, layer after layer, and keeps what is needed of them.

    Labellings and orders are drawn once, so that all layers and conditions are compared with the same.

    Args:
        tokens: of the sample.
        permutations: of labels, and of text positions, for the baselines.
        seed: of their draw.
    """

    def __init__(self, tokens: SampleTokens, permutations: int, seed: int) -> None:
        self._tokens = tokens
        labels = tokens.labels
        self._positions = torch.arange(len(labels))
        self._labels = _with_permuted(labels, permutations, seed)
        probed = labels[tokens.probed]
        self._probed = _with_permuted(probed, permutations, seed + 1)
        moved = permuted_positions(self._positions, labels == _TEXT, permutations, seed + 2)
        self._orders = torch.cat([self._positions[None], moved])
        media = map(BASE_GROUPS.index, KINDS)
        self._media = [group for group in media if int((probed == group).sum()) > 1]
        self._hits: dict[str, dict[str, list[list[int]]]] = {}
        self._states: list[Float[Tensor, "kept d_model"]] = []

    def add(self, states: Float[Tensor, "token d_model"]) -> None:
        """Take the states of the next layer."""
        tokens = self._tokens
        device = states.device
        distances = cosine_distances(states)
        places = tokens.probed.to(device)
        among = distances[places[:, None], places]
        for group in self._media:
            hits = probing_hits(among, self._probed.to(device), group)
            self._note(PROBING, BASE_GROUPS[group], hits)
        if bool((tokens.labels == _SPECIAL).any()):
            near, labels = nearest(distances), self._labels.to(device)
            own = labels[:1].expand(len(self._orders), -1)
            orders = self._orders.to(device)
            adjacent, _ = telomere_hits(near, own, orders, _SPECIAL, _TEXT)
            _, anywhere = telomere_hits(near, labels, orders[:1].expand_as(own), _SPECIAL, _TEXT)
            self._note(TELOMERE, "special", adjacent)
            self._note(TELOMERE_ANY, "special", anywhere)
        self._states.append(states[tokens.kept.to(device)].cpu())

    def _note(self, metric: str, group: str, hits: Int[Tensor, " labelling"]) -> None:
        self._hits.setdefault(metric, {}).setdefault(group, []).append(hits.tolist())

    def row(self) -> dict[str, Any]:
        """Tokens of each group; metric -> group -> tokens counted, and hits per layer.

        Of the hits of a layer the first is the observed number, the others are of the permutations.
        """
        counts = {g: int((self._tokens.labels == i).sum()) for i, g in enumerate(BASE_GROUPS)}
        probed = self._tokens.labels[self._tokens.probed]
        found: dict[str, Any] = {}
        for metric, groups in self._hits.items():
            whole = probed if metric == PROBING else self._tokens.labels
            found[metric] = {
                group: {"of": int((whole == BASE_GROUPS.index(group)).sum()), "hits": hits}
                for group, hits in groups.items()
            }
        return {"tokens": {g: n for g, n in counts.items() if n}, "indices": found}

    def kept(self) -> dict[str, Tensor]:
        """``states`` [layer kept d_model] in the model's dtype, their ``labels`` and ``positions``."""
        places = self._tokens.kept
        return {
            "states": torch.stack(self._states),
            "labels": self._tokens.labels[places],
            "positions": self._positions[places],
        }


def _with_permuted(
    labels: Int[Tensor, " token"], count: int, seed: int
) -> Int[Tensor, "labelling token"]:
    """The labels as they are, then permuted."""
    return torch.cat([labels[None], permuted_labels(labels, torch.zeros_like(labels), count, seed)])
