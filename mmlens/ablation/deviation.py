"""How far a mask moves the hidden states: per layer and token group, beside controls.

MMNeuron measured this without saying how; these are the definitions recommended in the notes on
methods (2.10). Every batch is run once untouched and once per mask; the difference is reduced inside
the hook, so that of the changed run only one layer's hidden states exist at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.ablation.conditions import Condition
from mmlens.ablation.donors import ConditionHooks
from mmlens.ablation.masks import Mask
from mmlens.ablation.passes import KEY, blocks_of, listed, resumed
from mmlens.ablation.tables import facts_of
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import ALL
from mmlens.statistics.moments import Moments
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.streaming.batching import Batching
from mmlens.streaming.sweep import ALONE, Piece, Rows, Share, planned

#: Token groups that are measured by default (methods 2.10).
GROUPS = ("image", "text", "last")
METRICS = ("relative_l2", "cosine_distance")


def relative_l2(
    before: Float[Tensor, "*pos d_model"], after: Float[Tensor, "*pos d_model"]
) -> Float[Tensor, "*pos"]:
    """||h' - h||_2 / ||h||_2 at every position, h before and h' after; at least in float32.

    0 where nothing changed; infinite where a vector of zeros did.
    """
    h, changed = _precise(before), _precise(after)
    moved = (changed - h).norm(dim=-1)
    return torch.where(moved > 0, moved / h.norm(dim=-1), moved)


def cosine_distance(
    before: Float[Tensor, "*pos d_model"], after: Float[Tensor, "*pos d_model"]
) -> Float[Tensor, "*pos"]:
    """1 - cos(h, h') at every position, in [0, 2]; a vector of zeros is at distance 1/2 of others.

    Computed as ||h / |h| - h' / |h'| ||^2 / 2, which is the same and keeps the digits of small
    angles: it is exactly 0 where nothing changed.
    """
    h, changed = (torch.nn.functional.normalize(_precise(x), dim=-1) for x in (before, after))
    return (h - changed).square().sum(-1) / 2


@torch.no_grad()
def deviation(
    model: HookedMLLM,
    samples: Sequence[Sample],
    masks: Sequence[Mask],
    *,
    rows: Path | None = None,
    groups: Sequence[str] = GROUPS,
    full: bool = False,
    statistics: NeuronStatistics | None = None,
    seed: int = 0,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
    share: Share = ALONE,
) -> pd.DataFrame:
    """How far each mask's intervention moves the residual stream after every block.

    For sample s, layer l and token group T: the mean over t in T of :func:`relative_l2` and of
    :func:`cosine_distance` between ``blocks.{l}.hook_resid_post`` under the mask and untouched
    (methods 2.10); a row holds its mean and standard error over samples.

    Memory beside the model's own: the untouched hidden states of one batch, layers x tokens x d_model
    in the model's dtype (Vicuna-7B in bfloat16 with 4096 tokens: 1 GiB); a smaller token budget
    lowers it. Time: one forward per sample and mask that is asked, and one untouched.

    Args:
        model: a hooked model.
        samples: the questions; their prompts are run, nothing is generated.
        masks: masks and their controls, as :func:`mmlens.ablation.masks.domain_masks` makes them.
        rows: a JSON-lines file to which each sample's deviation under each mask is appended as soon as
            it is there. A second call with the same file runs only what is missing; it goes by the
            masks' names, so keep one file for one choice of groups.
        groups: token groups; a sample without such a token does not count in that group.
        full: run every mask on every sample; default: a domain's masks on that domain's samples, those
            of ``all`` on every one.
        statistics: of this model, for the interventions that need them.
        seed: of who is whose donor when resampling.
        batching: how samples become prompts and batches.
        share: this process's part, where several run the pass together.

    Returns:
        A row per mask, layer, group and metric (``relative_l2``, ``cosine_distance``): mask, kind,
        seed, fraction, layer, group, metric, mean, se, n_samples.

    Raises:
        SampleError: a mask has no sample to run on, masks of one name, an unknown group, or an
            intervention that cannot be done or has no token to change.
        StatisticsError: the statistics are of another model, or lack what an intervention needs.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    conditions = _conditions(masks, samples, full)
    hooks = ConditionHooks.of(
        model,
        samples,
        conditions,
        template=batching.template,
        seed=seed,
        statistics=statistics,
    )
    known = Rows(share.file(rows), KEY)
    pieces = planned(model, blocks_of(samples, conditions), batching)
    sweep = resumed(
        model, pieces, known, batching, share, samples=len(samples), description="deviation"
    )
    for piece, batch in sweep:
        for new in _compared(hooks, batch, piece.work, groups):
            known.add(new)
            sweep.advance(len(piece.samples))
    known.merge(share)
    moments = _moments(pieces, known)
    found = (_rows(one, moments[one.name], groups) for one in masks if one.name in moments)
    return pd.DataFrame(chain.from_iterable(found))


def _compared(
    hooks: ConditionHooks, batch: Batch, conditions: Sequence[Condition], groups: Sequence[str]
) -> Iterator[list[dict[str, object]]]:
    """Each condition's deviation from one untouched run of the batch: a row per sample.

    A row is ``setting``, ``id`` and ``values`` [layer][group][metric], None where the sample has no
    token of the group.
    """
    model = hooks.model
    batch = batch.to(model.device)
    encoded = model.encode_media(batch)
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(encoded, names_filter=names, logits_to_keep=1)
    before = {name: cache[name] for name in names}
    where = batch.groups.stack(groups)
    assert batch.samples is not None
    for condition in conditions:
        found: dict[str, Tensor] = {}
        run = encoded if condition.only_language else batch
        changes = [*hooks(condition, run), *_comparing(names, before, where, found)]
        with model.hooks(fwd_hooks=changes):
            model.forward(run, logits_to_keep=1)
        values = torch.stack([found[name] for name in names]).movedim(-1, 0)
        yield [
            {"setting": condition.name, "id": sample.id, "values": listed(each)}
            for sample, each in zip(batch.samples, values.numpy(), strict=True)
        ]


def _moments(pieces: Sequence[Piece[Sequence[Condition]]], rows: Rows) -> dict[str, Moments]:
    """Condition -> moments of its rows, merged batch by batch in the order of the plan.

    So that their bits do not depend on interruptions, nor on how many processes shared the pass.
    """
    moments: dict[str, Moments] = {}
    for piece in pieces:
        for condition in piece.work:
            found = rows.of((condition.name, sample.id) for sample in piece.samples)
            if found:
                values = torch.from_numpy(np.array([row["values"] for row in found], float))
                part = Moments.of(values.movedim(0, -1).contiguous())
                known = moments.get(condition.name)
                moments[condition.name] = part if known is None else known + part
    return moments


def _comparing(
    names: Sequence[str],
    before: Mapping[str, Tensor],
    groups: Bool[Tensor, "group row pos"],
    found: dict[str, Tensor],
) -> list[Hook]:
    """Hooks that put each layer's deviation into ``found``, by hook name."""

    def compare(after: Tensor, hook: HookPoint) -> None:
        assert hook.name is not None
        found[hook.name] = group_means(before[hook.name], after, groups).cpu()

    return [(name, compare) for name in names]


def group_means(
    before: Float[Tensor, "row pos d_model"],
    after: Float[Tensor, "row pos d_model"],
    groups: Bool[Tensor, "group row pos"],
) -> Float[Tensor, "group metric row"]:
    """Mean over each group's tokens of both metrics, per row; NaN where a row has no such token."""
    here = groups.to(after.device)
    both = torch.stack([relative_l2(before, after), cosine_distance(before, after)])
    # Padding may hold anything, NaN too: it is replaced, not multiplied away.
    kept = torch.where(here[:, None], both.double(), 0.0)
    return kept.sum(-1) / here.sum(-1)[:, None]


def _rows(mask: Mask, moments: Moments, groups: Sequence[str]) -> Iterator[dict[str, object]]:
    error = moments.standard_error()
    facts, _ = facts_of(mask)
    for layer, g, m in moments.n.nonzero().tolist():
        yield {
            **facts,
            "layer": layer,
            "group": groups[g],
            "metric": METRICS[m],
            "mean": float(moments.mean[layer, g, m]),
            "se": float(error[layer, g, m]),
            "n_samples": int(moments.n[layer, g, m]),
        }


def _conditions(masks: Sequence[Mask], samples: Sequence[Sample], full: bool) -> list[Condition]:
    """Each mask on the samples of its domain, or on all."""
    found = []
    for one in masks:
        every = full or one.label == ALL
        ids = frozenset(s.id for s in samples if every or str(s.domain) == one.label)
        if not ids:
            present = sorted({str(s.domain) for s in samples})
            raise SampleError(
                f"The mask of {one.label!r} has no sample of that domain to run on; there are "
                f"{', '.join(present) or 'no samples'}."
            )
        found.append(Condition(one.name, one.neurons, ids, one.intervention))
    return found


def _precise(x: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_model"]:
    return x.to(torch.promote_types(x.dtype, torch.float32))
