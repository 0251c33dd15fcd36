"""How far apart token groups lie in the residual stream: four measures and what chance makes of them.

MINER reads from t-SNE pictures that modalities converge in lower layers and gives no number (methods
3.8). The measures here are OUR companions to such a picture (methods section 6). Each takes several
labellings of the same tokens at once, so that a baseline of permuted labels costs one call.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.errors import SampleError

#: Neighbours that the purity looks at.
NEIGHBOURS = 10
#: Strength of the probe's penalty, in units of the mean squared length of a standardised state.
RIDGE = 0.1
FOLDS = 5


def cosine_distances(states: Float[Tensor, "token d_model"]) -> Float[Tensor, "token token"]:
    """1 - cos between all pairs of token states, in [0, 2]; 0 on the diagonal; at least float32.

    Cosine and not Euclidean, because states of one layer differ in length by orders of magnitude
    (the first token above all), and a Euclidean distance would show little else. A state of zeros
    is at distance 1 of all others.
    """
    precise = states.to(torch.promote_types(states.dtype, torch.float32))
    unit = torch.nn.functional.normalize(precise, dim=-1)
    return (1 - unit @ unit.T).clamp(0, 2).fill_diagonal_(0)


def permuted_labels(
    labels: Int[Tensor, " token"], samples: Int[Tensor, " token"], count: int, seed: int
) -> Int[Tensor, "labelling token"]:
    """The labels, permuted ``count`` times among the tokens of each sample.

    Permuting within samples keeps what has nothing to do with the groups' geometry: how many tokens
    of each group a sample has, and that tokens of one sample are alike.

    Args:
        labels: group of each token.
        samples: sample of each token.
        count: permutations.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    which = samples.cpu().numpy()
    keys = rng.random((count, len(which)))
    drawn = np.lexsort((keys, np.broadcast_to(which, keys.shape)), axis=-1)
    places = np.argsort(which, kind="stable")
    source = np.empty_like(drawn)
    source[:, places] = drawn
    return labels[torch.from_numpy(source).to(labels.device)]


def silhouette(
    distances: Float[Tensor, "token token"], labels: Int[Tensor, "labelling token"]
) -> Float[Tensor, " labelling"]:
    """Mean silhouette of the groups, in [-1, 1]; near 0: they overlap; 1: far apart and each tight.

    Of token t: (b - a) / max(a, b), with a its mean distance to the other tokens of its group and b
    the least mean distance to those of another group; 0 where it is alone in its group (Rousseeuw
    1987, as scikit-learn's ``silhouette_score``). NaN of fewer than two groups.
    """
    groups = _one_hot(labels, distances)
    sizes = groups.sum(1)
    flat = groups.transpose(0, 1).flatten(1)  # one product for all labellings
    sums = (distances @ flat).unflatten(1, (len(groups), -1)).transpose(0, 1)
    own = groups.bool()
    size = (groups * sizes[:, None]).sum(-1)
    within = (sums * groups).sum(-1) / (size - 1).clamp(min=1)
    absent = own | (sizes == 0)[:, None]
    to_others = (sums / sizes.clamp(min=1)[:, None]).masked_fill(absent, torch.inf).amin(-1)
    value = (to_others - within) / torch.maximum(to_others, within)
    value = torch.where(size > 1, value, 0.0).nan_to_num(0.0)
    several = (sizes > 0).sum(-1) > 1
    return torch.where(several, value.mean(-1), torch.nan)


def neighbour_purity(
    distances: Float[Tensor, "token token"],
    labels: Int[Tensor, "labelling token"],
    k: int = NEIGHBOURS,
) -> Float[Tensor, " labelling"]:
    """Share of a token's k nearest neighbours that are of its own group, mean over tokens.

    1: groups do not mix; at the baseline: neighbours do not know about groups. Of fewer than k + 1
    tokens all others are neighbours; NaN of one token.

    Raises:
        SampleError: k below 1.
    """
    if k < 1:
        raise SampleError(f"Purity needs at least one neighbour; k = {k} was given.")
    others = min(k, len(distances) - 1)
    if others < 1:
        return torch.full((len(labels),), torch.nan, device=distances.device)
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    near = distances.masked_fill(itself, torch.inf).topk(others, largest=False).indices
    same = labels[:, near] == labels[:, :, None]
    return same.to(distances.dtype).mean((1, 2))


def centroid_cosine(
    states: Float[Tensor, "token d_model"], labels: Int[Tensor, "labelling token"]
) -> Float[Tensor, " labelling"]:
    """Mean cosine between the mean states of two groups, over all pairs of groups; NaN of one group."""
    precise = states.to(torch.promote_types(states.dtype, torch.float32))
    groups = _one_hot(labels, precise)
    sizes = groups.sum(1)
    centroids = groups.transpose(1, 2) @ precise / sizes.clamp(min=1)[..., None]
    unit = torch.nn.functional.normalize(centroids, dim=-1)
    first, second = torch.triu_indices(groups.shape[-1], groups.shape[-1], 1).to(labels.device)
    cosines = (unit[:, first] * unit[:, second]).sum(-1)
    there = (sizes[:, first] > 0) & (sizes[:, second] > 0)
    return (cosines * there).sum(-1) / there.sum(-1)  # 0 / 0 where there is no pair


def probe_accuracy(
    states: Float[Tensor, "token d_model"],
    labels: Int[Tensor, "labelling token"],
    samples: Int[Tensor, " token"],
    *,
    folds: int = FOLDS,
    ridge: float = RIDGE,
    seed: int = 0,
) -> Float[Tensor, " labelling"]:
    """How well a linear probe recognises a token's group, on samples it was not fitted on.

    Features are standardised on the training tokens; one-hot labels are regressed on them with
    penalty ``ridge`` x d_model (a ridge classifier: closed form, so that every labelling is one more
    right-hand side); the largest output wins. Balanced accuracy: the mean over groups of the share
    of its tokens that are recognised, so that chance is 1 / groups whatever their sizes. Folds are
    of whole samples: tokens of one sample are never on both sides. NaN of fewer than two samples or
    groups.

    Args:
        states: residual stream of some tokens.
        labels: their groups, in one or several labellings.
        samples: the sample of each token.
        folds: folds at most; never more than samples.
        ridge: above 0.
        seed: of the assignment of samples to folds.

    Raises:
        SampleError: a penalty of 0 or below, or fewer than two folds.
    """
    if ridge <= 0 or folds < 2:
        raise SampleError(
            f"A probe needs a penalty above 0 and two folds or more; {ridge} and {folds} were given."
        )
    precise = states.to(torch.promote_types(states.dtype, torch.float32))
    groups = _one_hot(labels, precise)
    sizes = groups.sum(1)
    names, which = samples.unique(return_inverse=True)
    if len(names) < 2:
        return torch.full((len(labels),), torch.nan, device=precise.device)
    order = np.random.default_rng(seed).permutation(len(names)) % folds
    fold = torch.from_numpy(order).to(which.device)[which]
    right = torch.zeros_like(groups)
    for one in range(min(folds, len(names))):
        test = fold == one
        predicted = _probe_outputs(precise[~test], groups[:, ~test], precise[test], ridge).argmax(
            -1
        )
        hit = torch.nn.functional.one_hot(predicted, groups.shape[-1]) * groups[:, test]
        right[:, test] = hit.to(right.dtype)
    present = sizes > 0
    recall = right.sum(1) / sizes.clamp(min=1)
    accuracy = (recall * present).sum(-1) / present.sum(-1)
    return torch.where(present.sum(-1) > 1, accuracy, torch.nan)


def _probe_outputs(
    train: Float[Tensor, "seen d_model"],
    groups: Float[Tensor, "labelling seen group"],
    test: Float[Tensor, "unseen d_model"],
    ridge: float,
) -> Float[Tensor, "labelling unseen group"]:
    """Outputs of ridge regressions of one-hot labels on standardised states, one per labelling."""
    mean, spread = train.mean(0), train.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    x, new = (train - mean) / spread, (test - mean) / spread
    targets = groups.permute(1, 0, 2).flatten(1)
    offset = targets.mean(0)
    penalty = ridge * x.shape[1]
    # (X'X + aI)^-1 X' = X' (XX' + aI)^-1: the smaller of both is solved.
    if x.shape[1] <= x.shape[0]:
        gram = x.T @ x
        weights = torch.linalg.solve(_plus(gram, penalty), x.T @ (targets - offset))
    else:
        weights = x.T @ torch.linalg.solve(_plus(x @ x.T, penalty), targets - offset)
    outputs = new @ weights + offset
    return outputs.unflatten(1, (groups.shape[0], groups.shape[2])).permute(1, 0, 2)


def _plus(gram: Float[Tensor, "n n"], penalty: float) -> Float[Tensor, "n n"]:
    return gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def _one_hot(
    labels: Int[Tensor, "labelling token"], like: Tensor
) -> Float[Tensor, "labelling token group"]:
    count = int(labels.max()) + 1 if labels.numel() else 1
    return torch.nn.functional.one_hot(labels.long(), count).to(like.device, like.dtype)
