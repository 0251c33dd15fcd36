"""The probing and telomere indices: do media reach out to other tokens, do special tokens hang on text.

MINER names *semantic probing* (audio tokens reach out toward text) and *semantic telomeres* (special
tokens attach themselves to the ends of text) from pictures, without a definition (methods 3.8). The
definitions here are OURS (methods section 6). All are of one sample: neighbours are looked for within
its prompt.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Positions apart that count as adjacent.
ADJACENT = 2


def nearest(distances: Float[Tensor, "token token"]) -> Int[Tensor, " token"]:
    """The nearest other token of each token; of a single token, itself."""
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    return distances.masked_fill(itself, torch.inf).argmin(-1)


def probing_hits(
    distances: Float[Tensor, "token token"], labels: Int[Tensor, "labelling token"], group: int
) -> Int[Tensor, " labelling"]:
    """How many tokens of a group probe outwards: the probing index times the group's size.

    A token of the group probes if its nearest neighbour among the tokens of all other groups is
    closer (strictly) than the median distance between two tokens of the group (ours, methods section
    6). -1 where the group has fewer than two tokens, or there are no others.

    With labels permuted within the sample, groups are as near to each other as to themselves: the
    baseline is close to 1, and an index well below it says that the group keeps to itself.

    Args:
        distances: between the tokens of one sample.
        labels: their groups; every labelling has as many tokens of the group as the first.
        group: the group that is looked at.
    """
    inside = labels == group
    members, others = _places(inside), _places(~inside)
    if members.shape[1] < 2 or not others.shape[1]:
        return torch.full((len(labels),), -1, device=labels.device)
    closest = distances[members[:, :, None], others[:, None]].amin(-1)
    first, second = torch.triu_indices(members.shape[1], members.shape[1], 1).to(labels.device)
    median = _median(distances[members[:, first], members[:, second]])
    return (closest < median[:, None]).sum(-1)


def telomere_hits(
    neighbours: Int[Tensor, " token"],
    labels: Int[Tensor, "labelling token"],
    positions: Int[Tensor, "labelling token"],
    special: int,
    text: int,
) -> tuple[Int[Tensor, " labelling"], Int[Tensor, " labelling"]]:
    """How many special tokens have text for their nearest neighbour: adjacent text, and any.

    Adjacent: at most :data:`ADJACENT` positions away in the prompt. Divided by the number of special
    tokens they are the telomere index and its companion (ours, methods section 6).

    Args:
        neighbours: the nearest other token of each token of one sample, of any group (:func:`nearest`).
        labels: groups of the tokens.
        positions: their positions in the prompt.
        special, text: the labels of those groups.

    Returns:
        (adjacent text, any text).
    """
    hangs = (labels == special) & (labels[:, neighbours] == text)
    close = (positions - positions[:, neighbours]).abs() <= ADJACENT
    return (hangs & close).sum(-1), hangs.sum(-1)


def permuted_positions(
    positions: Int[Tensor, " token"], moved: Bool[Tensor, " token"], count: int, seed: int
) -> Int[Tensor, "labelling token"]:
    """Positions of one sample, permuted ``count`` times among the tokens that are ``moved``.

    With the text tokens moved and the special ones kept, every special token keeps the number of
    text positions beside it: only which text stands there is left to chance.
    """
    rng = np.random.default_rng(seed)
    places = torch.nonzero(moved)[:, 0]
    drawn = rng.random((count, len(places))).argsort(-1)
    found = positions.repeat(count, 1)
    found[:, places] = positions[places[torch.from_numpy(drawn).to(places.device)]]
    return found


def _places(where: Bool[Tensor, "labelling token"]) -> Int[Tensor, "labelling inside"]:
    """Positions of the true values, as many in every row."""
    return torch.nonzero(where)[:, 1].reshape(len(where), -1)


def _median(values: Float[Tensor, "labelling pair"]) -> Float[Tensor, " labelling"]:
    """The median along the last axis; the mean of both middle values of an even number."""
    count = values.shape[-1]
    low, high = (count + 1) // 2, count // 2 + 1
    return (values.kthvalue(low, -1).values + values.kthvalue(high, -1).values) / 2
