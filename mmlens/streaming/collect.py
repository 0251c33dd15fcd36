"""Streaming a model over samples: one forward per batch, statistics reduced inside the hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mmlens.data.samples import Sample
from mmlens.errors import HookError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook
from mmlens.hooks.editing import Site
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.statistics.accumulator import Accumulator, PositionIndex
from mmlens.statistics.neuron_statistics import ModuleStatistics, NeuronStatistics, load_with_extra
from mmlens.streaming.distributed import all_merged, rank_and_world
from mmlens.streaming.plan import check_failures, make_plan
from mmlens.streaming.stream import Stream, own_part


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
            that reaches it included (:func:`mmlens.streaming.token_limit.within`). MMNeuron's code looks at 100,000 vision
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
    run = Collection(model, plan, own_part(checkpoint, rank, world), max_failures)
    found = run.run(every=checkpoint_every, progress=progress and rank == 0, description="collect")
    return all_merged(found, world)


def collect_parts(
    model: HookedMLLM,
    halves: Sequence[Sequence[Sequence[Sample]]],
    folder: Path | None = None,
    *,
    max_failures: float = 0.05,
    collector: Callable[..., Any] = collect,
    **options: Any,
) -> list[list[Any]]:
    """:func:`collect` on every part of :func:`mmlens.data.halves.split`: one pass over the data in all.

    The sum of all parts (:func:`mmlens.data.halves.sum_of`) is the statistics of all samples; counts are those of a single
    collection up to signs within rounding of zero, since other samples run together.

    Args:
        model: a hooked model.
        halves: [half][part] -> samples.
        folder: keep each part's statistics there, as ``half0-part0.safetensors``; a second call goes
            on from them. Each file has the size of the whole statistics.
        max_failures: share of all samples that may be left out for unreadable media.
        collector: what collects; :func:`mmlens.importance.collect` gives importance scores.
        options: passed to it: modules, groups, by, template, ...

    Raises:
        TooManyFailuresError: more samples unreadable than the cap allows.
        Others: as :func:`collect`.
    """
    total = sum(len(part) for half in halves for part in half)
    skipped: dict[str, str] = {}
    found: list[list[Any]] = []
    for h, half in enumerate(halves):
        found.append([])
        for p, part in enumerate(half):
            path = None if folder is None else folder / f"half{h}-part{p}.safetensors"
            # The cap is on all samples: of a small part, one unreadable picture is a large share.
            one = collector(model, part, checkpoint=path, max_failures=1.0, **options)
            skipped.update(one.skipped)
            check_failures(skipped, total, max_failures)
            found[-1].append(one)
    return found


class Collection(Stream[NeuronStatistics]):
    """One collection on its way; see :class:`mmlens.streaming.stream.Stream` for the arguments."""

    def result(self) -> NeuronStatistics:
        """What has been counted so far."""
        modules = {name: one.statistics() for name, one in self.accumulators.items()}
        return replace(
            self._empty(), modules=modules, samples=self.samples.clone(), skipped=dict(self.skipped)
        )

    def _begin(self, start: NeuronStatistics) -> None:
        self.samples, self.skipped = start.samples.clone(), dict(start.skipped)
        self.accumulators = {
            name: Accumulator(one, self.model.device) for name, one in start.modules.items()
        }
        self.positions: dict[str, Passes] = {}

    def _hooks(self) -> list[Hook]:
        return [hook for name in self.accumulators for hook in self._module_hooks(name)]

    def _module_hooks(self, module: str) -> list[Hook]:
        info = self.model.module(module)
        accumulator = self.accumulators[module]

        def hook_for(layer: int, activation: Callable[[Tensor], Tensor]) -> Callable[..., None]:
            def reduce(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                accumulator.add(layer, tensor, activation, self.positions[module].next(layer))

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

    def _before(self, batch: Batch) -> None:
        self._index(batch)
        for name, passes in self.positions.items():
            for where in passes.indices:
                self.accumulators[name].add_tokens(where)

    def _after(self, batch: Batch) -> None:
        assert batch.samples is not None
        for sample in batch.samples:
            self.samples[self.plan.keys.index(str(sample.get(self.plan.by)))] += 1

    def _index(self, batch: Batch) -> None:
        assert batch.samples is not None
        keys = torch.tensor([self.plan.keys.index(str(s.get(self.plan.by))) for s in batch.samples])
        media = self.model.media_rows(batch)
        self.positions.clear()
        for module, groups in self.plan.groups.items():
            if module == LANGUAGE:
                self.positions[module] = Passes(
                    [PositionIndex.of(batch.groups.stack(groups), keys)]
                )
            elif any(media.values()):  # a batch of text alone reaches no tower
                device = batch.input_ids.device
                rows = self.model.adapter.tower_rows(module, batch.inputs, media)
                passes = [_tower_positions(one.to(device), keys) for one in rows]
                self.positions[module] = Passes(passes)

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

    def _write(self, path: Path, extra: Mapping[str, Any]) -> None:
        self.result().save(path, extra)

    def _read(self, path: Path) -> tuple[NeuronStatistics, dict[str, Any]]:
        return load_with_extra(path)


def _tower_positions(rows: Int[Tensor, ...], keys: Int[Tensor, " batch"]) -> PositionIndex:
    """One group, all real positions; each position has the key of the row it belongs to."""
    rows = rows.flatten()
    real = rows >= 0
    # A position stands for a row of its own here, since a tower's batch is not the prompts'.
    return PositionIndex.of(real[None, :, None], keys.to(rows.device)[rows.clamp(min=0)])


@dataclass
class Passes:
    """What counts where, for each time that a module runs within one forward.

    A tower may run more than once, over pictures and then over videos.
    """

    indices: Sequence[PositionIndex]
    fired: Counter[int] = field(default_factory=Counter)

    def next(self, layer: int) -> PositionIndex:
        """The positions of the layer's next pass."""
        turn = self.fired[layer]
        if turn >= len(self.indices):
            raise HookError(
                f"Layer {layer} ran {turn + 1} times in one forward, but its adapter reported "
                f"{len(self.indices)} runs; statistics would count positions of the wrong samples."
            )
        self.fired[layer] += 1
        return self.indices[turn]


def _identity(x: Tensor) -> Any:
    return x
