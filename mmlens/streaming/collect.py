"""Streaming a model over samples: one forward per batch, statistics reduced inside the hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mmlens.data.samples import Sample
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook
from mmlens.hooks.editing import Site
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.statistics.accumulator import Accumulator, PositionIndex
from mmlens.statistics.neuron_statistics import ModuleStatistics, NeuronStatistics, load_with_extra
from mmlens.streaming.batching import Batching
from mmlens.streaming.distributed import Share
from mmlens.streaming.plan import check_failures, make_plan
from mmlens.streaming.runs import Runs
from mmlens.streaming.stream import Stream


def collect(
    model: HookedMLLM,
    samples: Sequence[Sample],
    *,
    modules: Sequence[str] = (LANGUAGE,),
    groups: Sequence[str] = ("prompt",),
    by: str = "domain",
    site: Site = "act",
    stop_after: Mapping[str, int] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: float = 30.0,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
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
            samples count (:func:`mmlens.streaming.token_limit.within`). MMNeuron's code looks at
            100,000 vision tokens per domain: ``{"vision": 100_000}`` (methods 2.5). What was really
            counted is in the statistics' ``tokens``.
        checkpoint: a ``.safetensors`` file that the state is saved to now and then. Started again
            with the same arguments, collection is resumed and ends with the same bits.
        checkpoint_every: seconds between saves.
        batching: how samples become prompts and batches.

    Returns:
        Statistics by key, group, layer and neuron; left-out samples with their reasons.

    Raises:
        SampleError: an unknown module, group or field, or a stop after no token.
        TooManyFailuresError: more samples unreadable than the cap allows; what was counted is saved.
        RunFolderError: the checkpoint is of other arguments, or cannot be written.
    """
    share = Share.of_launcher()
    plan = make_plan(
        model,
        samples,
        modules,
        groups,
        by,
        batching=batching,
        share=share,
        site=site,
        stop_after=stop_after,
    )
    stream = Collection(model, plan, batching, checkpoint, share)
    return share.merged(stream.run("collect", every=checkpoint_every))


def collect_parts(
    model: HookedMLLM,
    halves: Sequence[Sequence[Sequence[Sample]]],
    folder: Path | None = None,
    *,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
    collector: Callable[..., Any] = collect,
    **options: Any,
) -> list[list[Any]]:
    """:func:`collect` on every part of :func:`mmlens.data.halves.split`: one pass over the data in all.

    The sum of all parts (:func:`mmlens.data.halves.sum_of`) is the statistics of all samples; counts
    are those of a single collection up to signs within rounding of zero, since other samples run
    together.

    Args:
        model: a hooked model.
        halves: [half][part] -> samples.
        folder: keep each part's statistics there, as ``half0-part0.safetensors``; a second call
            resumes from them. Each file has the size of the whole statistics.
        batching: how samples become prompts and batches; ``max_failures`` is of all samples.
        collector: what collects; :func:`mmlens.importance.collect` gives importance scores.
        options: passed to it: modules, groups, by, ...

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
            uncapped = replace(batching, max_failures=1.0)
            one = collector(model, part, checkpoint=path, batching=uncapped, **options)
            skipped.update(one.skipped)
            check_failures(skipped, total, batching.max_failures)
            found[-1].append(one)
    return found


class Collection(Stream[NeuronStatistics]):
    """A resumable collection; see :class:`mmlens.streaming.stream.Stream` for the arguments."""

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
        self.positions: dict[str, Runs[PositionIndex]] = {}

    def _hooks(self) -> list[Hook]:
        return [
            self.model.activation_hook(name, layer, partial(self._add, name, layer), self.plan.site)
            for name in self.accumulators
            for layer in range(self.model.module(name).layers)
        ]

    def _add(
        self, module: str, layer: int, tensor: Tensor, activation: Callable[[Tensor], Tensor]
    ) -> None:
        where = self.positions[module].next(layer)
        self.accumulators[module].add(layer, tensor, activation, where)

    def _before(self, batch: Batch) -> None:
        assert batch.samples is not None
        keys = torch.tensor([self.plan.key(sample) for sample in batch.samples])
        for module, groups in self.plan.groups.items():
            if module == LANGUAGE:
                found = [PositionIndex.of(batch.groups.stack(groups), keys)]
            else:
                device = batch.input_ids.device
                rows = self.model.tower_rows(batch, module)
                found = [_tower_positions(one.to(device), keys) for one in rows]
            self.positions[module] = Runs(found)
            for where in found:
                self.accumulators[module].add_tokens(where)

    def _after(self, batch: Batch) -> None:
        assert batch.samples is not None
        for sample in batch.samples:
            self.samples[self.plan.key(sample)] += 1

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


def _tower_positions(rows: Int[Tensor, " pos"], keys: Int[Tensor, " batch"]) -> PositionIndex:
    """One group, all real positions; each position has the key of the row it belongs to."""
    real = rows >= 0
    # A position stands for a row of its own here, since a tower's batch is not the prompts'.
    return PositionIndex.of(real[None, :, None], keys.to(rows.device)[rows.clamp(min=0)])
