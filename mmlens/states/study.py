"""Token states and the last token's attention over a data set, under several conditions (MI-9 to MI-11).

One forward per sample and condition. Inside the hooks every layer's states become counts of the sample
(probing, telomeres), a bounded number of its tokens is kept on disk for what needs many samples at
once (separation, pictures), and the attention becomes a share per token group. What is measured is
OUR definition throughout: see :mod:`mmlens.states.geometry`, :mod:`mmlens.states.indices` and
:mod:`mmlens.states.contributions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
from mmlens.ablation.passes import KEY, resumed
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.states.contributions import shares_of, split_last
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
    groups = [name for name in BASE_GROUPS if name in _groups_of(model)]
    quota = max(1, pooled_tokens // max(1, len(samples) * len(groups)))
    chosen_layers = tuple(range(EMBEDDED, model.cfg.n_layers)) if layers is None else tuple(layers)
    plan = StatePlan(chosen_layers, permutations, group_tokens, quota, contributions, seed)
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
    sweep = resumed(
        model,
        planned(model, [(conditions, samples)], batching),
        rows,
        batching,
        share,
        samples=len(samples),
        description="states",
    )
    tokens = 0
    for piece, batch in sweep:
        whole = batch.to(model.device)
        encoded = model.encode_media(whole)
        for one in piece.work:
            recorder = _Recorder(plan, folder, encoded if one.only_language else whole)
            found = recorder.run(model, one, hooks)
            rows.add([{**row, "mark": marks[one.name]} for row in found])
            tokens += int(batch.groups.attention.sum())
            sweep.advance(len(piece.samples))
    rows.merge(share)
    wanted = ((one.name, x.id) for one in conditions for x in samples if x.id in one.ids)
    names = tuple(one.name for one in conditions)
    skipped = dict(share.merged(list(sweep.skipped.items())))
    return StateStudy(plan, names, tuple(rows.of(wanted)), folder, skipped, tokens)


@dataclass(frozen=True)
class _Recorder:
    """Runs one batch under a condition and reduces what its hooks see."""

    plan: StatePlan
    folder: Path
    batch: Batch

    def run(
        self, model: HookedMLLM, condition: Condition, hooks: ConditionHooks
    ) -> list[dict[str, Any]]:
        """Rows of the batch; its kept tokens are on disk before a row says that they are."""
        batch, plan = self.batch, self.plan
        assert batch.samples is not None
        reducers = [_reducer(batch, row, plan) for row in range(len(batch.samples))]
        changes = [*hooks(condition, batch), *_state_hooks(batch, plan, reducers)]
        last = batch.groups.mask("last")
        groups = split_last(batch.groups.base, last)
        shares: dict[int, dict[str, Float[Tensor, "batch group"]]] = {}

        def record(layer: int, read: LastToken) -> None:
            stacked = torch.stack(list(groups.values()))
            shares[layer] = {name: x.cpu() for name, x in shares_of(read, stacked).items()}

        with ExitStack() as stack:
            if plan.contributions:
                changes += stack.enter_context(
                    listening(model, last, plan.attention_layers, record)
                )
            with model.hooks(fwd_hooks=changes):
                model.forward(batch, logits_to_keep=1)
        found = []
        for i, (sample, reducer) in enumerate(zip(batch.samples, reducers, strict=True)):
            if sample.id not in condition.ids:
                continue
            kept, path = reducer.kept(), kept_path(self.folder, condition.name, sample.id)
            write_atomically(path, lambda to, kept=kept: save_file(kept, to))
            row = {"setting": condition.name, "id": sample.id, "layers": list(plan.layers)}
            row["attention_layers"] = list(plan.attention_layers) if plan.contributions else []
            found.append(row | reducer.row() | {"shares": _shares(shares, list(groups), i)})
        return found


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


def _shares(
    shares: Mapping[int, Mapping[str, Float[Tensor, "batch group"]]], groups: list[str], row: int
) -> dict[str, dict[str, list[float | None]]]:
    """Measure -> group -> share per layer of one row; None where nothing contributes."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for layer in sorted(shares):
        for measure, values in shares[layer].items():
            for group, value in zip(groups, values[row].tolist(), strict=True):
                curve = found.setdefault(measure, {}).setdefault(group, [])
                curve.append(None if math.isnan(value) else value)
    return found


def _groups_of(model: HookedMLLM) -> set[str]:
    return {"text", "special", *model.adapter.placeholders()}


def _check(
    model: HookedMLLM, samples: Sequence[Sample], conditions: Sequence[Condition], plan: StatePlan
) -> None:
    names = [one.name for one in conditions]
    ids = [sample.id for sample in samples]
    problem = None
    if not names or not ids:
        problem = "needs at least one sample and one condition"
    elif len(set(names)) != len(names) or len(set(ids)) != len(ids):
        problem = "needs conditions of different names, and samples of different ids"
    elif strange := {one for c in conditions for one in c.ids} - set(ids):
        problem = f"was given a condition for the sample {sorted(strange)[0]!r}, which is not there"
    elif not plan.layers or not set(plan.layers) <= set(range(EMBEDDED, model.cfg.n_layers)):
        problem = (
            f"was given the layers {list(plan.layers)}; there are {EMBEDDED} (what enters the first "
            f"block) and 0 to {model.cfg.n_layers - 1}"
        )
    elif plan.permutations < 1 or plan.group_tokens < 2:
        problem = "needs at least one permutation, and two tokens of a group for the probing index"
    elif plan.layers != tuple(sorted(set(plan.layers))):
        problem = f"takes layers in rising order, each once; {list(plan.layers)} were given"
    if problem:
        raise SampleError(f"A study of token states {problem}.")
