"""Token states and the last token's attention over a data set, under several settings (MI-9 to MI-11).

One forward per sample and setting. Inside the hooks every layer's states become counts of the sample
(probing, telomeres), a bounded number of its tokens is kept on disk for what needs many samples at
once (separation, pictures), and the attention becomes a share per token group. What is measured is
OUR definition throughout: see :mod:`mmlens.states.geometry`, :mod:`mmlens.states.indices` and
:mod:`mmlens.states.contributions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from mmlens.ablation.decoding import seed_of
from mmlens.ablation.evaluate import Setting
from mmlens.ablation.intervention import Intervention
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet
from mmlens.selection.controls import random_like
from mmlens.states.contributions import shares_of, split_last
from mmlens.states.last_token import LastToken, listening
from mmlens.states.reduction import SampleStates, SampleTokens, chosen_tokens
from mmlens.states.store import EMBEDDED, ROWS, StatePlan, StateStudy, kept_path, mark_of, resumed
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.storage.atomic import append_jsonl, write_atomically
from mmlens.streaming.batching import Batching
from mmlens.streaming.plan import check_failures, planned_batches, prepared_or_skipped
from mmlens.tokens.groups import BASE_GROUPS

NONE, MASK, COMPLEMENT, RANDOM = "none", "mask", "complement", "random"


def mask_settings(
    samples: Sequence[Sample],
    neurons: Sequence[NeuronSet],
    *,
    avoid: Sequence[NeuronSet] | None = None,
    intervention: Intervention = Intervention(),  # noqa: B008  (frozen)
    seed: int = 0,
) -> list[Setting]:
    """The settings of the triptych: none, mask, complement, and a random control of the mask.

    Complement silences all neurons of the sets' modules but these (methods 3.5). The control is as
    many other neurons of each layer.

    Args:
        samples: what they are run on.
        neurons: sets of different modules.
        avoid: neurons that the control may not have, one set per module; default: ``neurons``.
        intervention: what is done to the mask and to the control.
        seed: of the control's draw.

    Raises:
        SampleError: no neuron at all.
        StatisticsError: a layer has too few other neurons for a control.
    """
    if not any(len(one) for one in neurons):
        raise SampleError("A mask of no neurons has nothing to show: give sets with neurons.")
    ids = frozenset(sample.id for sample in samples)
    pairs = zip(neurons, avoid or neurons, strict=True)
    control = tuple(random_like(one, avoid=other, seed=seed) for one, other in pairs)
    return [
        Setting(NONE, (), ids),
        Setting(MASK, tuple(neurons), ids, intervention),
        Setting(COMPLEMENT, tuple(neurons), ids, Intervention("keep_only")),
        Setting(RANDOM, control, ids, intervention),
    ]


@torch.no_grad()
def study_states(
    model: HookedMLLM,
    samples: Sequence[Sample],
    settings: Sequence[Setting],
    folder: Path,
    *,
    layers: Sequence[int] | None = None,
    permutations: int = 100,
    group_tokens: int = 128,
    pooled_tokens: int = 2000,
    contributions: bool = True,
    seed: int = 0,
    statistics: NeuronStatistics | None = None,
    template: Any = "auto",
    token_budget: int = 4096,
    max_batch: int = 64,
    max_failures: float = 0.05,
    progress: bool = True,
) -> StateStudy:
    """Run samples under each setting and keep what MI-9 to MI-11 need of them.

    Memory beside the model's own: one layer's states and distances of one prompt at a time, and the
    kept tokens of one batch. A second call on the same folder runs only what is missing.

    Args:
        model: a hooked model.
        samples: the paper takes 100.
        settings: such as :func:`mask_settings` makes; the first one is the untouched model.
        folder: gets ``states.jsonl`` and ``tokens/``.
        layers: blocks whose output is read, :data:`EMBEDDED` (-1) for the first one's input; default:
            that and all blocks.
        permutations: see :class:`StatePlan`.
        group_tokens: see :class:`StatePlan`.
        pooled_tokens: tokens kept of all samples together, as evenly over samples and groups as there
            are; at least one of each group a sample has.
        contributions: listen to the last token's attention; turn it off where that is not possible.
        seed: of all draws.
        statistics: for interventions that need them.
        template, token_budget, max_batch: as in :func:`mmlens.collect`.
        max_failures: share of samples that may be left out for unreadable media.
        progress: show a progress bar.

    Raises:
        SampleError: no sample or setting, names that occur twice, an unknown layer, an intervention
            that cannot be done.
        RunFolderError: the folder was written with another plan or model.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    groups = [name for name in BASE_GROUPS if name in _groups_of(model)]
    quota = max(1, pooled_tokens // max(1, len(samples) * len(groups)))
    chosen_layers = tuple(range(EMBEDDED, model.cfg.n_layers)) if layers is None else tuple(layers)
    plan = StatePlan(chosen_layers, permutations, group_tokens, quota, contributions, seed)
    _check(model, samples, settings, plan)
    marks = {s.name: mark_of(s.neurons, s.intervention.name) for s in settings}
    rows = resumed(folder, plan, model.weight_hash, marks)
    skipped: dict[str, str] = {}
    tokens = 0
    bar = tqdm(
        total=sum(len(s.ids) for s in settings), unit="run", desc="states",
        disable=None if progress else True,
    )  # fmt: skip
    with bar:
        for chosen in planned_batches(model, samples, Batching(template, token_budget, max_batch)):
            asked = [s for s in settings if any(_missing(s, x, rows) for x in chosen)]
            bar.update(sum(x.id in s.ids for s in settings if s not in asked for x in chosen))
            if not asked:
                continue
            batch, reasons = prepared_or_skipped(model, chosen, template)
            skipped.update(reasons)
            check_failures(skipped, len(samples), max_failures)
            if batch is not None:
                batch = batch.to(model.device)
                encoded = model.encode_media(batch)
                for setting in asked:
                    towers = any(one.module != LANGUAGE for one in setting.neurons)
                    run = batch if towers else encoded
                    found = _run(model, setting, run, plan, folder, statistics)
                    found = [{**row, "mark": marks[setting.name]} for row in found]
                    rows.update({(row["setting"], row["id"]): row for row in found})
                    append_jsonl(folder / ROWS, found)
                    tokens += int(batch.groups.attention.sum())
            bar.update(sum(x.id in s.ids for s in asked for x in chosen))
    wanted = [(s.name, x.id) for s in settings for x in samples if x.id in s.ids]
    ordered = tuple(rows[key] for key in wanted if key in rows)
    return StateStudy(plan, tuple(s.name for s in settings), ordered, folder, skipped, tokens)


def _run(
    model: HookedMLLM,
    setting: Setting,
    batch: Batch,
    plan: StatePlan,
    folder: Path,
    statistics: NeuronStatistics | None,
) -> list[dict[str, Any]]:
    """Rows of one batch under one setting; its kept tokens are on disk before they are told of."""
    assert batch.samples is not None
    reducers = [_reducer(batch, row, plan) for row in range(len(batch.samples))]
    hooks: list[Hook] = list(setting.intervention.hooks(setting.neurons, model, batch, statistics))
    hooks += _state_hooks(batch, plan, reducers)
    last = batch.groups.mask("last")
    groups = split_last(batch.groups.base, last)
    shares: dict[int, dict[str, Float[Tensor, "batch group"]]] = {}

    def hear(layer: int, heard: LastToken) -> None:
        stacked = torch.stack(list(groups.values()))
        shares[layer] = {name: x.cpu() for name, x in shares_of(heard, stacked).items()}

    with ExitStack() as stack:
        if plan.contributions:
            hooks += stack.enter_context(listening(model, last, plan.attention_layers, hear))
        with model.hooks(fwd_hooks=hooks):
            model.forward(batch, logits_to_keep=1)
    found = []
    for i, (sample, reducer) in enumerate(zip(batch.samples, reducers, strict=True)):
        if sample.id not in setting.ids:
            continue
        kept = reducer.kept()
        write_atomically(
            kept_path(folder, setting.name, sample.id), lambda to, kept=kept: save_file(kept, to)
        )
        row = {"setting": setting.name, "id": sample.id, "layers": list(plan.layers)}
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


def _missing(
    setting: Setting, sample: Sample, rows: Mapping[tuple[str, str], Mapping[str, Any]]
) -> bool:
    return sample.id in setting.ids and (setting.name, sample.id) not in rows


def _check(
    model: HookedMLLM, samples: Sequence[Sample], settings: Sequence[Setting], plan: StatePlan
) -> None:
    names = [setting.name for setting in settings]
    ids = [sample.id for sample in samples]
    problem = None
    if not names or not ids:
        problem = "needs at least one sample and one setting"
    elif len(set(names)) != len(names) or len(set(ids)) != len(ids):
        problem = "needs settings of different names, and samples of different ids"
    elif strange := {one for s in settings for one in s.ids} - set(ids):
        problem = f"was given a setting for the sample {sorted(strange)[0]!r}, which is not there"
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
