"""Token states and the last token's attention over a data set, under several conditions (MI-9 to MI-11).

One forward per sample and condition. Inside the hooks every layer's states become counts of the sample
(probing, telomeres), a bounded number of its tokens is kept on disk for what needs many samples at
once (separation, pictures), and the attention becomes a share per token group. What is measured is
OUR definition throughout: see :mod:`mmlens.states.geometry`, :mod:`mmlens.states.indices` and
:mod:`mmlens.states.contributions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.ablation.conditions import Condition
from mmlens.ablation.decoding import seed_of
from mmlens.ablation.donors import ConditionHooks
from mmlens.ablation.passes import KEY, blocks_of, listed, resumed
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.states.contributions import MEASURES, shares_of, split_last
from mmlens.states.last_token import LastToken, listening
from mmlens.states.reduction import SampleStates, SampleTokens, chosen_tokens
from mmlens.states.store import EMBEDDED, ROWS, StatePlan, StateStudy, kept_path, mark_of, rows_of
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.storage.atomic import write_atomically
from mmlens.streaming.batching import Batching
from mmlens.streaming.sweep import ALONE, Rows, Share, planned
from mmlens.tokens.groups import BASE_GROUPS


@torch.no_grad()
def study_states(
    model: HookedMLLM,
    samples: Sequence[Sample],
    conditions: Sequence[Condition],
    folder: Path,
    *,
    layers: Sequence[int] | None = None,
    permutations: int = 100,
    group_tokens: int = 128,
    pooled_tokens: int = 2000,
    contributions: bool = True,
    seed: int = 0,
    statistics: NeuronStatistics | None = None,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
    share: Share = ALONE,
) -> StateStudy:
    """Run samples under each condition and keep what MI-9 to MI-11 need of them.

    Memory beside the model's own: one layer's states and distances of one prompt at a time, and the
    kept tokens of one batch. A second call on the same folder runs only what is missing.

    Args:
        model: a hooked model.
        samples: the paper takes 100.
        conditions: such as :func:`mmlens.states.conditions.mask_conditions` makes; the first one is the
            untouched model.
        folder: gets ``states.jsonl`` and ``tokens/``.
        layers: blocks whose output is read, :data:`EMBEDDED` (-1) for the first one's input; default:
            that and all blocks.
        permutations: see :class:`StatePlan`.
        group_tokens: see :class:`StatePlan`.
        pooled_tokens: tokens kept of all samples together, as evenly over samples and groups as there
            are; at least one of each group a sample has.
        contributions: record the last token's attention; turn it off where that is not possible.
        seed: of all draws, and of who is whose donor when resampling.
        statistics: for interventions that need them.
        batching: how samples become prompts and batches.
        share: this process's part, where several run the pass together on one folder.

    Raises:
        SampleError: no sample or condition, names that occur twice, an unknown layer, an intervention
            that cannot be done or has no token to change.
        StatisticsError: the statistics are of another model, or lack what an intervention needs.
        RunFolderError: the folder was written with another plan or model.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    present = {"text", "special", *model.adapter.placeholders()}.intersection(BASE_GROUPS)
    quota = max(1, pooled_tokens // max(1, len(samples) * len(present)))
    chosen = tuple(range(EMBEDDED, model.cfg.n_layers) if layers is None else layers)
    plan = StatePlan(chosen, permutations, group_tokens, quota, contributions, seed)
    _check(model, samples, conditions, plan)
    hooks = ConditionHooks.of(
        model,
        samples,
        conditions,
        template=batching.template,
        seed=seed,
        statistics=statistics,
    )
    marks = {one.name: mark_of(one.neurons, one.intervention.name) for one in conditions}
    path = share.file(folder / ROWS)
    assert path is not None
    rows = Rows(path, KEY, rows_of(path, plan, model.weight_hash, marks))
    pieces = planned(model, blocks_of(samples, conditions), batching)
    sweep = resumed(
        model, pieces, rows, batching, share, samples=len(samples), description="states"
    )
    tokens = 0
    for piece, batch in sweep:
        tokens += int(batch.groups.attention.sum()) * len(piece.work)
        whole = batch.to(model.device)
        encoded = model.encode_media(whole)
        for one in piece.work:
            found = _recorded(hooks, one, encoded if one.only_language else whole, plan, folder)
            rows.add([{**row, "mark": marks[one.name]} for row in found])
            sweep.advance(len(found))
    rows.merge(share)
    wanted = ((one.name, x.id) for one in conditions for x in samples if x.id in one.ids)
    names = tuple(one.name for one in conditions)
    skipped = dict(share.merged(list(sweep.skipped.items())))
    return StateStudy(plan, names, tuple(rows.of(wanted)), folder, skipped, tokens)


def _recorded(
    hooks: ConditionHooks, condition: Condition, batch: Batch, plan: StatePlan, folder: Path
) -> list[dict[str, Any]]:
    """Rows of a batch under a condition; kept tokens are on disk before a row says that they are."""
    assert batch.samples is not None
    reducers = [_reducer(batch, row, plan) for row in range(len(batch))]
    last = batch.groups.mask("last")
    groups = split_last(batch.groups.base, last)
    masks = torch.stack(list(groups.values()))
    shares: dict[int, dict[str, Float[Tensor, "batch group"]]] = {}

    def record(layer: int, read: LastToken) -> None:
        shares[layer] = {measure: x.cpu() for measure, x in shares_of(read, masks).items()}

    attention = (
        listening(hooks.model, last, plan.attention_layers, record)
        if plan.contributions
        else nullcontext([])
    )
    changes = [*hooks(condition, batch), *_state_hooks(batch, plan, reducers)]
    with attention as reading, hooks.model.hooks(fwd_hooks=[*changes, *reading]):
        hooks.model.forward(batch, logits_to_keep=1)
    rows = []
    for i, (sample, reducer) in enumerate(zip(batch.samples, reducers, strict=True)):
        kept, path = reducer.kept(), kept_path(folder, condition.name, sample.id)
        write_atomically(path, lambda to, kept=kept: save_file(kept, to))
        row = {"setting": condition.name, "id": sample.id, "layers": list(plan.layers)}
        row["attention_layers"] = list(plan.attention_layers)
        rows.append(row | reducer.row() | {"shares": _curves(shares, list(groups), i)})
    return rows


def _reducer(batch: Batch, row: int, plan: StatePlan) -> SampleStates:
    assert batch.samples is not None
    real = batch.groups.attention[row].cpu()
    labels = torch.full(real.shape, -1)
    for group, mask in batch.groups.base.items():
        labels[mask[row].cpu()] = BASE_GROUPS.index(group)
    seed = seed_of(plan.seed, batch.samples[row].id)
    labels = labels[real]
    tokens = SampleTokens(
        labels,
        chosen_tokens(labels, plan.group_tokens, seed),
        chosen_tokens(labels, plan.kept_tokens, seed + 1),
    )
    return SampleStates(tokens, plan.permutations, seed)


def _state_hooks(batch: Batch, plan: StatePlan, reducers: Sequence[SampleStates]) -> list[Hook]:
    real: Bool[Tensor, "batch pos"] = batch.groups.attention

    def reduce(states: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
        here = real.to(states.device)
        for row, reducer in enumerate(reducers):
            reducer.add(states[row][here[row]])

    # They fire in the order of the layers, and a reducer takes them in that order.
    return [(plan.hook(layer), reduce) for layer in sorted(plan.layers)]


def _curves(
    shares: Mapping[int, Mapping[str, Float[Tensor, "batch group"]]],
    groups: Sequence[str],
    row: int,
) -> dict[str, dict[str, list[float | None]]]:
    """Measure -> group -> share per layer of one row; None where nothing contributes."""
    found = {}
    for measure in MEASURES if shares else ():
        curves = torch.stack([shares[layer][measure][row] for layer in sorted(shares)], dim=1)
        found[measure] = dict(zip(groups, listed(curves.numpy()), strict=True))
    return found


def _check(
    model: HookedMLLM, samples: Sequence[Sample], conditions: Sequence[Condition], plan: StatePlan
) -> None:
    """Raise SampleError for what :class:`ConditionHooks` does not check."""
    problem = None
    if not samples or not conditions:
        problem = "needs at least one sample and one condition"
    elif not plan.layers or not set(plan.layers) <= set(range(EMBEDDED, model.cfg.n_layers)):
        problem = (
            f"was given the layers {list(plan.layers)}; there are {EMBEDDED} (what enters the first "
            f"block) and 0 to {model.cfg.n_layers - 1}"
        )
    elif plan.permutations < 1 or plan.group_tokens < 2:
        problem = "needs at least one permutation, and two tokens of a group for the probing index"
    elif list(plan.layers) != sorted(set(plan.layers)):
        problem = f"takes layers in rising order, each once; {list(plan.layers)} were given"
    if problem:
        raise SampleError(f"A study of token states {problem}.")
