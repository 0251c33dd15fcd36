"""Tables of a study of token states: separation of the groups, indices, contributions, coordinates.

All metrics are OUR definitions (methods section 6): MINER shows pictures and defines none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlens.adapter import KINDS
from mmlens.errors import SampleError
from mmlens.plots.frames import METRIC_COLUMNS, SCATTER_COLUMNS
from mmlens.states.contributions import contribution_table, mean_interval, mean_over_samples
from mmlens.states.geometry import (
    centroid_cosine,
    cosine_distances,
    neighbour_purity,
    permuted_labels,
    probe_accuracy,
    silhouette,
)
from mmlens.states.projections import Method, principal_axes, tsne
from mmlens.states.reduction import PROBING, TELOMERE, TELOMERE_ANY, chosen_tokens
from mmlens.states.store import KeptTokens, StateStudy
from mmlens.tokens.groups import BASE_GROUPS

#: Ends of the range of a baseline over its permutations.
RANGE = (0.025, 0.975)


def metric_table(study: StateStudy, *, permutations: int | None = None) -> pd.DataFrame:
    """Every metric per condition and layer, with its baseline: MI-9's companions, and MI-11.

    Separation (``silhouette``, ``purity``, ``centroid_cosine``, ``probe``) is of the kept tokens of all
    samples together: of all groups, and of each kind of media with text, in samples that have both.
    The indices (``probing`` of each kind of media, ``telomere``, ``telomere_any``) are means over
    samples of a share of the sample's tokens, with a bootstrap interval over samples. Baselines: mean
    and 95% range over permutations of the labels within each sample (``telomere``: of the text tokens'
    positions).

    Args:
        study: of :func:`mmlens.states.study.study_states`.
        permutations: of the separation; default: as many as the study's.

    Returns:
        Columns :data:`mmlens.plots.frames.METRIC_COLUMNS`. ``groups``: names joined by ``+``; of an index the group itself.
        ``low``, ``high`` are NaN for separation, which is one number of all tokens.
    """
    count = study.plan.permutations if permutations is None else permutations
    found = [row for setting in study.settings for row in _indices(study, setting)]
    for setting, layer in product(study.settings, study.plan.layers):
        if any(row["setting"] == setting for row in study.rows):
            found += _separation(study.kept(setting, layer), setting, layer, count, study.plan.seed)
    return pd.DataFrame(found, columns=list(METRIC_COLUMNS))


def contributions(study: StateStudy) -> pd.DataFrame:
    """:func:`mmlens.states.contributions.contribution_table` of a study, against its first condition.

    Raises:
        SampleError: the study did not record attention.
    """
    if not study.plan.contributions:
        raise SampleError(
            "The study was run with contributions=False; run it with them into another folder."
        )
    return contribution_table(study.rows, study.settings[0], seed=study.plan.seed)


def scatter_table(
    study: StateStudy,
    layers: Sequence[int],
    *,
    methods: Sequence[Method] = ("tsne", "pca"),
    max_tokens: int = 1000,
) -> pd.DataFrame:
    """Coordinates of the kept tokens, for the triptych (MI-9).

    The same tokens in every panel: those of the study's first three conditions. PCA has the axes of
    the untouched condition at each layer, so that its panels can be compared; t-SNE is of each panel
    alone.

    Args:
        study: of :func:`mmlens.states.study.study_states`.
        layers: of the study.
        methods: ``tsne``, ``pca`` or both.
        max_tokens: over all samples; of more, as many of each group.

    Returns:
        Columns :data:`mmlens.plots.frames.SCATTER_COLUMNS`.
    """
    parts = []
    for layer in layers:
        first = study.kept(study.settings[0], layer)
        per_group = max(2, max_tokens // max(1, len(first.labels.unique())))
        mean, axes = principal_axes(first.states, 2)
        for setting in study.settings[:3]:
            tokens = study.kept(setting, layer)
            places = chosen_tokens(tokens.labels, per_group, study.plan.seed)
            states = tokens.states[places]
            for method in methods:
                plane = (
                    tsne(states.float(), seed=study.plan.seed)
                    if method == "tsne"
                    else (states.double() - mean) @ axes
                )
                part = pd.DataFrame(
                    {
                        "group": [BASE_GROUPS[i] for i in tokens.labels[places].tolist()],
                        "id": [tokens.ids[i] for i in tokens.samples[places].tolist()],
                        "position": tokens.positions[places].tolist(),
                        "x": plane[:, 0].tolist(),
                        "y": plane[:, 1].tolist(),
                    }
                )
                parts.append(part.assign(setting=setting, layer=layer, method=method))
    return pd.concat(parts, ignore_index=True).reindex(columns=list(SCATTER_COLUMNS))


def _separation(
    tokens: KeptTokens, setting: str, layer: int, permutations: int, seed: int
) -> Iterator[tuple[object, ...]]:
    """A row per set of groups and metric."""
    for groups in _compared(tokens.labels):
        inside = torch.isin(tokens.labels, torch.tensor(groups))
        if len(groups) == 2:  # of samples that lack one of them, labels could not be permuted
            inside &= _with_all(tokens, groups)
        states, samples = tokens.states[inside], tokens.samples[inside]
        dense = tokens.labels[inside].unique(return_inverse=True)[1]
        labels = torch.cat([dense[None], permuted_labels(dense, samples, permutations, seed)])
        distances = cosine_distances(states)
        measured = {
            "silhouette": silhouette(distances, labels),
            "purity": neighbour_purity(distances, labels),
            "centroid_cosine": centroid_cosine(states, labels),
            "probe": probe_accuracy(states, labels, samples, seed=seed),
        }
        name = "+".join(BASE_GROUPS[group] for group in groups)
        sizes = (len(samples.unique()), len(samples))
        for metric, each in measured.items():
            observed, *permuted = each.tolist()
            yield (
                setting,
                layer,
                metric,
                name,
                observed,
                np.nan,
                np.nan,
                *_range(np.array(permuted)),
                *sizes,
            )


def _compared(labels: Int[Tensor, " token"]) -> list[list[int]]:
    """Sets of groups that are compared: each kind of media with text, and all groups."""
    present = labels.unique().tolist()
    text = BASE_GROUPS.index("text")
    media = [g for g in present if BASE_GROUPS[g] in KINDS]
    pairs = [sorted([text, g]) for g in media if text in present]
    return pairs + ([present] if len(present) > 1 and present not in pairs else [])


def _with_all(tokens: KeptTokens, groups: Sequence[int]) -> Bool[Tensor, " token"]:
    """Whether a token's sample has tokens of each of these groups."""
    there = torch.zeros(len(tokens.ids), len(BASE_GROUPS), dtype=torch.bool)
    there[tokens.samples, tokens.labels] = True
    return there[:, list(groups)].all(1)[tokens.samples]


def _indices(study: StateStudy, setting: str) -> Iterator[tuple[object, ...]]:
    """A row per index, group and layer: means over the samples that have such tokens."""
    rows = [row for row in study.rows if row["setting"] == setting]
    for metric, group in product((PROBING, TELOMERE, TELOMERE_ANY), BASE_GROUPS):
        found = [
            row["indices"][metric][group] for row in rows if group in row["indices"].get(metric, {})
        ]
        if not found:
            continue
        shares: Float[np.ndarray, "sample layer labelling"] = np.array(
            [np.array(one["hits"]) / one["of"] for one in found]
        )
        shares[shares < 0] = np.nan  # -1 hits: the sample has no others to look at
        sizes = (len(found), sum(one["of"] for one in found))
        observed = np.stack(mean_interval(shares[:, :, 0], seed=study.plan.seed), axis=1)
        chance = mean_over_samples(shares[:, :, 1:])
        for i, layer in enumerate(study.plan.layers):
            yield setting, layer, metric, group, *observed[i].tolist(), *_range(chance[i]), *sizes


def _range(values: Float[np.ndarray, " permutation"]) -> tuple[float, float, float]:
    """Mean and 95% range over permutations; NaN if one of them is."""
    low, high = np.quantile(values, RANGE)
    return float(np.mean(values)), float(low), float(high)
