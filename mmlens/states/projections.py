"""Token states in the plane: PCA, and t-SNE after PCA, with a fixed seed.

MINER's figure 5a shows t-SNE pictures of token states; its settings are not known (methods 3.8), so
these are OURS (methods section 6).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from sklearn.manifold import TSNE
from torch import Tensor

from mmlens.errors import SampleError

Method = Literal["pca", "tsne"]
#: Principal components that t-SNE starts from.
COMPONENTS = 50
PERPLEXITY = 30.0


def principal_axes(
    states: Float[Tensor, "token d_model"], components: int
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, "d_model component"]]:
    """Mean and leading principal axes, in float64; of each axis the largest entry is positive.

    Fewer axes than asked for where there are fewer tokens or features.
    """
    x = states.double()
    mean = x.mean(0)
    axes = torch.linalg.svd(x - mean, full_matrices=False).Vh[:components]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return mean, (axes * torch.where(largest < 0, -1.0, 1.0)).T


def pca(
    states: Float[Tensor, "token d_model"], components: int = 2
) -> Float[Tensor, "token component"]:
    """Coordinates along the principal axes of the states themselves, float64."""
    mean, axes = principal_axes(states, components)
    return (states.double() - mean) @ axes


def tsne(
    states: Float[Tensor, "token d_model"],
    *,
    perplexity: float = PERPLEXITY,
    components: int = COMPONENTS,
    seed: int = 0,
) -> Float[Tensor, "token 2"]:
    """t-SNE of the leading principal components (scikit-learn's, ``init="pca"``), float64.

    Distances between far groups, and the size of a group, mean nothing in such a picture.

    Args:
        states: token states of one layer; at most some thousand, the time grows with n log n.
        perplexity: lowered to a third of the tokens where those are few.
        components: principal components that it starts from.
        seed: of the optimisation.

    Raises:
        SampleError: fewer than four tokens, or scikit-learn is not installed.
    """
    if len(states) < 4:
        raise SampleError(f"t-SNE needs at least four tokens; {len(states)} were given.")
    start = pca(states, components)
    if start.shape[1] < 2:  # of one feature
        start = torch.nn.functional.pad(start, (0, 2 - start.shape[1]))
    usual = min(perplexity, (len(states) - 1) / 3)
    engine = TSNE(n_components=2, perplexity=usual, init="pca", random_state=seed)
    return torch.from_numpy(engine.fit_transform(start.cpu().numpy())).double()
