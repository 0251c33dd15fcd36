"""How far silencing neurons moves the hidden states: per layer and token group, beside controls.

MMNeuron measured this without telling how; these are the definitions recommended in the notes on
methods (2.10). Every batch is run once untouched and once per set; the difference is reduced inside
the hook, so that of the changed run only one layer's hidden states exist at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from mmlens.ablation.masks import ALL, Mask
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook, zero
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.streaming.batching import Batching
from mmlens.streaming.plan import check_failures, planned_batches, prepared_or_skipped

#: Token groups that are told apart by default (methods 2.10).
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


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations from it, of values that come in parts.

    Attributes:
        n: values so far.
        mean: their mean; 0 where there is none.
        m2: sum of (value - mean)^2.
    """

    n: Int[Tensor, "*cell"]
    mean: Float[Tensor, "*cell"]
    m2: Float[Tensor, "*cell"]

    @classmethod
    def of(cls, values: Float[Tensor, "*cell value"]) -> Moments:
        """Of the values along the last axis; NaN is no value. float64 inside."""
        there = ~values.isnan()
        kept = torch.where(there, values.double(), 0.0)
        n = there.sum(-1)
        mean = kept.sum(-1) / n.clamp(min=1)
        m2 = torch.where(there, kept - mean[..., None], 0.0).square().sum(-1)
        return cls(n, mean, m2)

    def __add__(self, other: Moments) -> Moments:
        """Of both parts together (Chan, Golub and LeVeque 1979)."""
        n = self.n + other.n
        share = other.n.double() / n.clamp(min=1)
        gap = other.mean - self.mean
        return Moments(
            n, self.mean + gap * share, self.m2 + other.m2 + gap.square() * self.n * share
        )

    def standard_error(self) -> Float[Tensor, "*cell"]:
        """Sample standard deviation / sqrt(n); NaN for fewer than two values."""
        variance = self.m2 / (self.n - 1)
        return torch.where(self.n > 1, (variance / self.n).sqrt(), torch.nan)


@torch.no_grad()
def deviation(
    model: HookedMLLM,
    samples: Sequence[Sample],
    masks: Sequence[Mask],
    *,
    groups: Sequence[str] = GROUPS,
    full: bool = False,
    template: Any = "auto",
    token_budget: int = 4096,
    max_batch: int = 64,
    max_failures: float = 0.05,
    progress: bool = True,
) -> pd.DataFrame:
    """How far silencing each set moves the residual stream after every block.

    For sample s, layer l and token group T: the mean over t in T of :func:`relative_l2` and of
    :func:`cosine_distance` between ``blocks.{l}.hook_resid_post`` with the set silenced and untouched
    (methods 2.10); a row holds its mean and standard error over samples.

    Memory beside the model's own: the untouched hidden states of one batch, layers x tokens x d_model
    in the model's dtype (Vicuna-7B in bfloat16 with 4096 tokens: 1 GiB); a smaller ``token_budget``
    lowers it. Time: one forward per sample and mask that is asked, and one untouched.

    Args:
        model: a hooked model.
        samples: the questions; their prompts are run, nothing is generated.
        masks: sets and their controls, as :func:`mmlens.ablation.masks.masks_and_controls` makes them.
        groups: token groups; a sample without such a token does not count in that group.
        full: run every mask on every sample; default: a domain's masks on that domain's samples, those
            of ``all`` on every one.
        template, token_budget, max_batch: as in :func:`mmlens.collect`.
        max_failures: share of samples that may be left out for unreadable media.
        progress: show a progress bar.

    Returns:
        A row per mask, layer, group and metric (``relative_l2``, ``cosine_distance``): mask, kind,
        seed, fraction, layer, group, metric, mean, se, n_samples.

    Raises:
        SampleError: a mask has no sample to run on, masks of one name, or an unknown group.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    _check(masks, samples, full)
    moments: dict[str, Moments] = {}
    skipped: dict[str, str] = {}
    blocks = list(_blocks(samples, masks, full))
    total = sum(len(block) * len(asked) for asked, block in blocks)
    with tqdm(total=total, unit="run", desc="deviation", disable=None if progress else True) as bar:
        for asked, block in blocks:
            for chosen in planned_batches(
                model, block, Batching(template, token_budget, max_batch)
            ):
                batch, reasons = prepared_or_skipped(model, chosen, template)
                skipped.update(reasons)
                check_failures(skipped, len(samples), max_failures)
                if batch is not None:
                    for mask, values in _compared(model, batch, asked, groups):
                        part = Moments.of(values)
                        known = moments.get(mask.name)
                        moments[mask.name] = part if known is None else known + part
                bar.update(len(chosen) * len(asked))
    return pd.DataFrame(
        [
            row
            for mask in masks
            if mask.name in moments
            for row in _rows(mask, moments[mask.name], groups)
        ]
    )


def _compared(
    model: HookedMLLM, batch: Batch, masks: Sequence[Mask], groups: Sequence[str]
) -> Iterator[tuple[Mask, Float[Tensor, "layer group metric row"]]]:
    """Each mask's deviation from one untouched run of the batch, per row."""
    batch = batch.to(model.device)
    encoded = model.encode_media(batch)
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(encoded, names_filter=names, logits_to_keep=1)
    before = {name: cache[name] for name in names}
    where = batch.groups.stack(groups)
    for mask in masks:
        found: dict[str, Tensor] = {}
        towers = any(one.module != LANGUAGE and len(one) for one in mask.neurons)
        hooks = [*zero(mask.neurons), *_comparing(names, before, where, found)]
        with model.hooks(fwd_hooks=hooks):
            model.forward(batch if towers else encoded, logits_to_keep=1)
        yield mask, torch.stack([found[name] for name in names])


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
    for layer in range(len(moments.n)):
        for g, group in enumerate(groups):
            for m, metric in enumerate(METRICS):
                if (n := int(moments.n[layer, g, m])) > 0:
                    yield {
                        "mask": mask.mask,
                        "kind": mask.kind,
                        "seed": mask.seed,
                        "fraction": mask.fraction,
                        "layer": layer,
                        "group": group,
                        "metric": metric,
                        "mean": float(moments.mean[layer, g, m]),
                        "se": float(error[layer, g, m]),
                        "n_samples": n,
                    }


def _blocks(
    samples: Sequence[Sample], masks: Sequence[Mask], full: bool
) -> Iterator[tuple[list[Mask], list[Sample]]]:
    """The samples of each domain, with the masks that are run on them."""
    for domain in dict.fromkeys(str(s.domain) for s in samples):
        asked = [one for one in masks if full or one.mask in (domain, ALL)]
        if asked:
            yield asked, [s for s in samples if str(s.domain) == domain]


def _check(masks: Sequence[Mask], samples: Sequence[Sample], full: bool) -> None:
    if len({one.name for one in masks}) != len(masks):
        raise SampleError(
            "Two masks have the same name; kind, domain, fraction and seed tell them."
        )
    present = {str(s.domain) for s in samples}
    for one in masks:
        if not samples or not (full or one.mask == ALL or one.mask in present):
            raise SampleError(
                f"The mask of {one.mask!r} has no sample of that domain to run on; there are "
                f"{', '.join(sorted(present)) or 'no samples'}."
            )


def _precise(x: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_model"]:
    return x.to(torch.promote_types(x.dtype, torch.float32))
