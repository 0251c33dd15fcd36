"""Streaming a model over samples: one forward per batch, statistics reduced inside the hooks."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from mmlens.accumulate import Accumulator, Weights
from mmlens.batch import Batch
from mmlens.batching import plan_batches, prefetched
from mmlens.distributed import all_merged, rank_and_world
from mmlens.errors import (
    HookError,
    MediaError,
    RunFolderError,
    SampleError,
    TooManyFailuresError,
)
from mmlens.fingerprint import data_fingerprint
from mmlens.groups import ALL
from mmlens.hooks import Hook
from mmlens.hooks.editing import Site
from mmlens.model import HookedMLLM
from mmlens.names import LANGUAGE
from mmlens.prepare import prepare, prompt_lengths
from mmlens.samples import Sample
from mmlens.statistics import ModuleStatistics, NeuronStatistics, load_with_extra
from mmlens.stopping import within


@dataclass(frozen=True)
class CollectPlan:
    """Everything that decides the statistics, fixed before the first forward.

    Attributes:
        samples: this process's share.
        batches: positions in ``samples`` that run together, in order.
        keys: values of the field ``by`` over all samples, sorted.
        by: that field.
        groups: module -> its token groups.
        template: the prompt template.
        site: ``act`` or ``glu``.
        unreadable: sample id -> why it is left out, known from its header.
    """

    samples: tuple[Sample, ...]
    batches: tuple[tuple[int, ...], ...]
    keys: tuple[str, ...]
    by: str
    groups: Mapping[str, tuple[str, ...]]
    template: str
    unreadable: Mapping[str, str]
    site: Site = "act"

    def fingerprint(self, model: HookedMLLM) -> str:
        """A hash of all of it, of the model and of the precision it runs in."""
        chosen = [[self.samples[i] for i in batch] for batch in self.batches]
        rows = [[(s.id, s.text, len(s.images)) for s in batch] for batch in chosen]
        run_by = [model.weight_hash, str(model.dtype)]
        return data_fingerprint(
            [run_by, rows, self.keys, self.by, dict(self.groups), self.template, self.site]
        )


def collect(
    model: HookedMLLM,
    samples: Sequence[Sample],
    *,
    modules: Sequence[str] = (LANGUAGE,),
    groups: Sequence[str] = ("prompt",),
    by: str = "domain",
    site: Site = "act",
    stop_after: Mapping[str, int] | None = None,
    template: str = "auto",
    token_budget: int = 4096,
    max_batch: int = 64,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: float = 30.0,
    max_failures: float = 0.05,
    progress: bool = True,
) -> NeuronStatistics:
    """Stream activation statistics of a model's neurons over samples.

    One forward per batch of prompts, no generation; padding is never counted. For language
    modules the activation is act_fn(``hook_pre``), the gate branch before the product with the up
    branch; for others the output of the non-linearity (methods: MMNeuron section 3, MINER stage 2).

    Under ``torchrun`` or ``accelerate launch`` each process takes every n-th sample, and all of them
    return the merged statistics.

    Args:
        model: a hooked model.
        samples: what to run.
        modules: modules to count in.
        groups: token groups of the language module to count separately; other modules have the one
            group ``all``, their real positions.
        by: field of the samples whose values are the keys.
        site: what is counted and summed: ``act``, the activation; ``glu``, its product with the up
            branch as ``hook_post`` holds it. Without an up branch both are the same (methods
            section 1).
        stop_after: a module or token group -> tokens of it after which a key has enough; None: all
            samples count. Samples are taken in the order given until a key has as many, the one
            that reaches it included (:func:`mmlens.stopping.within`). MMNeuron's code looks at 100,000 vision
            tokens per domain: ``{"vision": 100_000}`` (methods 2.5). What was really counted is in
            the statistics' ``tokens``.
        template: prompt template, as in :meth:`HookedMLLM.prepare`.
        token_budget: tokens per batch at most, padding included.
        max_batch: samples per batch at most.
        checkpoint: a ``.safetensors`` file that the state is saved to on the way. Started again
            with the same arguments, collection goes on from there and ends with the same bits.
        checkpoint_every: seconds between saves.
        max_failures: share of samples that may be left out for unreadable media.
        progress: show a progress bar with rate and remaining time.

    Returns:
        Statistics by key, group, layer and neuron; left-out samples with their reasons.

    Raises:
        SampleError: an unknown module, group or field, or a stop after no token.
        TooManyFailuresError: more samples unreadable than the cap allows; what was counted is saved.
        RunFolderError: the checkpoint is of other arguments, or cannot be written.
    """
    rank, world = rank_and_world()
    plan = make_plan(
        model,
        samples,
        modules,
        groups,
        by,
        template,
        token_budget,
        max_batch,
        rank,
        world,
        site=site,
        stop_after=stop_after,
    )
    run = Collection(model, plan, _part(checkpoint, rank, world), max_failures)
    bar = tqdm(
        total=sum(map(len, plan.batches)),
        initial=run.done_samples,
        unit="sample",
        desc="collect",
        disable=None if progress and rank == 0 else True,
    )
    saved = time.monotonic()
    with bar, torch.no_grad(), run.listening():
        for positions, batch, reasons in run.batches():
            run.step(batch, reasons)
            bar.update(len(positions))
            if time.monotonic() - saved > checkpoint_every:
                run.save()
                saved = time.monotonic()
    run.save()
    return all_merged(run.statistics(), world)


def make_plan(
    model: HookedMLLM,
    samples: Sequence[Sample],
    modules: Sequence[str],
    groups: Sequence[str],
    by: str,
    template: str,
    token_budget: int,
    max_batch: int,
    rank: int = 0,
    world: int = 1,
    *,
    site: Site = "act",
    stop_after: Mapping[str, int] | None = None,
) -> CollectPlan:
    """Decide which samples run together; see :func:`collect` for the arguments and errors."""
    if not samples:
        raise SampleError("There are no samples to collect from.")
    if len({sample.id for sample in samples}) != len(samples):
        raise SampleError("Two samples have the same id; ids must be unique.")
    for module in modules:
        model.module(module)
        if module != LANGUAGE and not any(s.images or s.videos or s.audios for s in samples):
            raise SampleError(
                f"Module {module!r} reads media, but none of the {len(samples)} samples has any; "
                "collect it on samples with media."
            )
    keys = tuple(sorted({str(sample.get(by)) for sample in samples}))
    # Before the samples are shared out, so that any number of processes counts the same ones.
    samples = within(model, samples, stop_after, by, template) if stop_after else samples
    share = tuple(samples[rank::world])
    lengths = prompt_lengths(model, share, template)
    readable = [i for i, length in enumerate(lengths) if isinstance(length, int)]
    batches = plan_batches([int(lengths[i]) for i in readable], token_budget, max_batch)
    return CollectPlan(
        samples=share,
        batches=tuple(tuple(readable[i] for i in batch) for batch in batches),
        keys=keys,
        by=by,
        groups={m: tuple(groups) if m == LANGUAGE else (ALL,) for m in modules},
        template=template,
        site=site,
        unreadable={
            share[i].id: length for i, length in enumerate(lengths) if isinstance(length, str)
        },
    )


class Collection:
    """One collection on its way: accumulators, place in the plan, reasons for left-out samples."""

    def __init__(
        self, model: HookedMLLM, plan: CollectPlan, checkpoint: Path | None, max_failures: float
    ) -> None:
        self.model, self.plan, self.checkpoint = model, plan, checkpoint
        self.max_failures = max_failures
        self.fingerprint = plan.fingerprint(model)
        start, self.done = self._resumed() or (self._empty(), 0)
        self.samples, self.skipped = start.samples.clone(), dict(start.skipped)
        self.accumulators = {
            name: Accumulator(one, model.device) for name, one in start.modules.items()
        }
        self.weights: dict[str, Passes] = {}
        self._check_failures()

    @property
    def done_samples(self) -> int:
        """Samples of the batches that are finished."""
        return sum(map(len, self.plan.batches[: self.done]))

    def batches(self) -> Iterator[tuple[tuple[int, ...], Batch | None, dict[str, str]]]:
        """(positions, batch of the readable ones, reasons for the others), prepared one ahead."""
        left = self.plan.batches[self.done :]
        for positions, (batch, reasons) in zip(left, prefetched(left, self._prepared), strict=True):
            yield positions, batch, reasons

    def step(self, batch: Batch | None, reasons: Mapping[str, str]) -> None:
        """Run one batch and count it."""
        self.skipped.update(reasons)
        self._check_failures()
        if batch is not None:
            batch = batch.to(self.model.device)
            self._weigh(batch)
            for name, passes in self.weights.items():
                for weights in passes.weights:
                    self.accumulators[name].add_tokens(weights)
            self.model.forward(batch, logits_to_keep=1)
            assert batch.samples is not None
            for sample in batch.samples:
                self.samples[self.plan.keys.index(str(sample.get(self.plan.by)))] += 1
        self.done += 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The reducing hooks, inside the exchange."""
        hooks = [hook for name in self.accumulators for hook in self._hooks(name)]
        with self.model.hooks(fwd_hooks=hooks):
            yield

    def save(self) -> None:
        """Write the state, if a checkpoint was asked for."""
        if self.checkpoint is not None:
            extra = {"plan": self.fingerprint, "batches_done": self.done}
            self.statistics().save(self.checkpoint, extra)

    def statistics(self) -> NeuronStatistics:
        """What has been counted so far."""
        modules = {name: one.statistics() for name, one in self.accumulators.items()}
        return replace(
            self._empty(), modules=modules, samples=self.samples.clone(), skipped=dict(self.skipped)
        )

    def _hooks(self, module: str) -> list[Hook]:
        info = self.model.module(module)
        accumulator = self.accumulators[module]

        def hook_for(layer: int, activation: Callable[[Tensor], Tensor]) -> Callable[..., None]:
            def reduce(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                accumulator.add(layer, tensor, activation, self.weights[module].next(layer))

            return reduce

        hooks = []
        for layer in range(info.layers):
            activation = self.model.activation(module, layer)
            if activation is None or self.plan.site == "glu":
                # Without a gate, what the second projection reads is the activation itself.
                hooks.append((info.hook(layer, "post"), hook_for(layer, _identity)))
            else:
                hooks.append((info.hook(layer, "pre"), hook_for(layer, activation)))
        return hooks

    def _weigh(self, batch: Batch) -> None:
        assert batch.samples is not None
        keys = torch.tensor([self.plan.keys.index(str(s.get(self.plan.by))) for s in batch.samples])
        media = self.model.media_rows(batch)
        self.weights.clear()
        for module, groups in self.plan.groups.items():
            if module == LANGUAGE:
                self.weights[module] = Passes([Weights.of(batch.groups.stack(groups), keys)])
            elif any(media.values()):  # a batch of text alone reaches no tower
                device = batch.input_ids.device
                rows = self.model.adapter.tower_rows(module, batch.inputs, media)
                passes = [_tower_weights(one.to(device), keys) for one in rows]
                self.weights[module] = Passes(passes)

    def _prepared(self, positions: Sequence[int]) -> tuple[Batch | None, dict[str, str]]:
        chosen = [self.plan.samples[i] for i in positions]
        return prepared_or_skipped(self.model, chosen, self.plan.template)

    def _check_failures(self) -> None:
        try:
            check_failures(self.skipped, len(self.plan.samples), self.max_failures)
        except TooManyFailuresError:
            self.save()
            raise

    def _empty(self) -> NeuronStatistics:
        keys = len(self.plan.keys)
        modules = {
            name: ModuleStatistics.empty(keys, len(groups), *self.model.module(name).shape)
            for name, groups in self.plan.groups.items()
        }
        return NeuronStatistics(
            modules=modules,
            keys=self.plan.keys,
            groups=self.plan.groups,
            by=self.plan.by,
            samples=torch.zeros(keys, dtype=torch.int64),
            skipped=dict(self.plan.unreadable),
            model_hash=self.model.weight_hash,
            site=self.plan.site,
        )

    def _resumed(self) -> tuple[NeuronStatistics, int] | None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        statistics, extra = load_with_extra(self.checkpoint)
        if extra.get("plan") != self.fingerprint:
            raise RunFolderError(
                f"{self.checkpoint} was made with another model, other samples or other settings; give "
                "another path, or delete it to start anew."
            )
        return statistics, extra["batches_done"]


def check_failures(skipped: Mapping[str, str], total: int, cap: float) -> None:
    """Raise TooManyFailuresError if more than the share ``cap`` of samples could not be read."""
    if len(skipped) > cap * total:
        name, why = next(iter(skipped.items()))
        raise TooManyFailuresError(
            f"{len(skipped)} of {total} samples could not be read, more than the allowed share of "
            f"{cap:.0%}; the first is {name!r}: {why}. Mend the data, or raise max_failures; what was "
            "finished is kept."
        )


def planned_batches(
    model: HookedMLLM,
    samples: Sequence[Sample],
    template: str,
    token_budget: int,
    max_batch: int,
) -> list[list[Sample]]:
    """Samples in batches of like lengths; one that cannot be read counts as of no length.

    Args as in :func:`collect`; reading it fails, and is told, when its batch is prepared.
    """
    lengths = [n if isinstance(n, int) else 0 for n in prompt_lengths(model, samples, template)]
    planned = plan_batches(lengths, token_budget, max_batch)
    return [[samples[i] for i in positions] for positions in planned]


def prepared_or_skipped(
    model: HookedMLLM, samples: Sequence[Sample], template: str
) -> tuple[Batch | None, dict[str, str]]:
    """A batch of the samples whose media can be read, and the reasons for the others."""
    try:
        return prepare(model, tuple(samples), template, "left"), {}
    except MediaError as error:
        if len(samples) == 1:
            return None, {samples[0].id: str(error)}
    kept, reasons = [], {}
    for sample in samples:
        one, why = prepared_or_skipped(model, [sample], template)
        reasons.update(why)
        kept += [] if one is None else [sample]
    return (prepare(model, tuple(kept), template, "left") if kept else None), reasons


def _part(checkpoint: str | PathLike[str] | None, rank: int, world: int) -> Path | None:
    if checkpoint is None:
        return None
    path = Path(os.fspath(checkpoint))
    return path if world == 1 else path.with_name(f"{path.stem}.{rank}-of-{world}{path.suffix}")


def _tower_weights(rows: Int[Tensor, ...], keys: Int[Tensor, " batch"]) -> Weights:
    """One group, all real positions; each position has the key of the row it belongs to."""
    rows = rows.flatten()
    real = rows >= 0
    # A position stands for a row of its own here, since a tower's batch is not the prompts'.
    return Weights.of(real[None, :, None], keys.to(rows.device)[rows.clamp(min=0)])


@dataclass
class Passes:
    """What counts where, for each time that a module runs within one forward.

    A tower may run more than once, over pictures and then over videos.
    """

    weights: Sequence[Weights]
    fired: Counter[int] = field(default_factory=Counter)

    def next(self, layer: int) -> Weights:
        """The weights of the layer's next pass."""
        turn = self.fired[layer]
        if turn >= len(self.weights):
            raise HookError(
                f"Layer {layer} ran {turn + 1} times in one forward, but its adapter told of "
                f"{len(self.weights)}; statistics would count positions of the wrong samples."
            )
        self.fired[layer] += 1
        return self.weights[turn]


def _identity(x: Tensor) -> Any:
    return x
