"""Streaming a model over samples for the largest activations of chosen neurons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from mmlens.data.identity import sources
from mmlens.data.samples import Sample
from mmlens.errors import HookError, SampleError, StatisticsError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.places import tower_rows
from mmlens.neurons import NeuronSet
from mmlens.statistics.top_activations import (
    TopActivations,
    first_maxima,
    histogram,
    largest,
    nothing,
    numbered,
)
from mmlens.streaming.batching import prefetched
from mmlens.streaming.distributed import all_merged, rank_and_world
from mmlens.streaming.plan import CollectPlan, check_failures, make_plan, prepared_or_skipped

# Activations sorted at a time: 64 MiB in float32 with their places.
_ENTRIES = 1 << 22


def top_activations(
    model: HookedMLLM,
    samples: Sequence[Sample],
    neurons: NeuronSet | Sequence[NeuronSet],
    *,
    k: int = 8,
    group: str = "prompt",
    by: str = "domain",
    distinct: str = "media",
    template: str = "auto",
    token_budget: int = 4096,
    max_batch: int = 64,
    max_failures: float = 0.05,
    progress: bool = True,
) -> dict[str, TopActivations]:
    """The samples and positions on which neurons are most active, and how their activations spread.

    One forward per batch of prompts, for all modules together; held are [neuron, key, k] numbers with
    their places and [neuron, key, bin] counts, never activations of more than one layer.

    Under ``torchrun`` or ``accelerate launch`` each process takes every n-th sample, and all of them
    return the merged result.

    Args:
        model: a hooked model.
        samples: what to run; those of one domain are compared with one another.
        neurons: neurons of any modules; several sets of one module are joined.
        k: activations kept per neuron and key.
        group: token group of the language module that counts; other modules count all their real
            positions.
        by: field of the samples whose values are the keys.
        distinct: how far the k entries of a neuron differ. ``media``: one of each picture (or other
            media), its largest, however many questions are asked about it; ``sample``: one of each
            sample; ``position``: any.
        template: prompt template, as in :meth:`HookedMLLM.prepare`.
        token_budget: tokens per batch at most, padding included.
        max_batch: samples per batch at most.
        max_failures: share of samples that may be left out for unreadable media.
        progress: show a progress bar.

    Returns:
        For each module: its neurons' top activations.

    Raises:
        SampleError: an unknown module, group or field; k below one; no neuron; a repeated id.
        StatisticsError: neurons of another model or shape.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    chosen = joined_sets(model, [neurons] if isinstance(neurons, NeuronSet) else neurons)
    if k < 1:
        raise SampleError(f"k, the activations kept, must be at least 1; {k} was given.")
    rank, world = rank_and_world()
    plan = make_plan(
        model, samples, list(chosen), (group,), by, template, token_budget, max_batch, rank, world
    )
    run = _Gathering(model, plan, chosen, sources(samples, distinct), k, distinct)
    bar = tqdm(
        total=sum(map(len, plan.batches)),
        unit="sample",
        desc="top activations",
        disable=None if progress and rank == 0 else True,
    )
    skipped = dict(plan.unreadable)
    check_failures(skipped, len(plan.samples), max_failures)

    def prepared(positions: Sequence[int]) -> tuple[Batch | None, dict[str, str]]:
        return prepared_or_skipped(model, [plan.samples[i] for i in positions], plan.template)

    with bar, torch.no_grad(), run.listening():
        for positions, (batch, reasons) in zip(
            plan.batches, prefetched(plan.batches, prepared), strict=True
        ):
            skipped.update(reasons)
            check_failures(skipped, len(plan.samples), max_failures)
            if batch is not None:
                run.step(batch.to(model.device))
            bar.update(len(positions))
    return {name: all_merged(one, world) for name, one in run.found(skipped).items()}


def joined_sets(model: HookedMLLM, sets: Sequence[NeuronSet]) -> dict[str, NeuronSet]:
    """Module -> the neurons of all sets of that module, checked against the model.

    Raises:
        SampleError: no neuron at all, or a module the model does not have.
        StatisticsError: a set of another model or shape.
    """
    found: dict[str, NeuronSet] = {}
    for one in sets:
        info = model.module(one.module)
        if one.shape != info.shape:
            raise StatisticsError(
                f"{one!r} does not fit this model's {one.module}, which has {info.layers} layers of "
                f"{info.width} neurons."
            )
        if one.model_hash not in (None, model.weight_hash):
            raise StatisticsError(
                f"{one!r} belongs to another model (weights {one.model_hash}; the model at hand has "
                f"{model.weight_hash}); find the neurons anew."
            )
        if len(one):
            found[one.module] = found[one.module] | one if one.module in found else one
    if not found:
        raise SampleError("No neurons were given: the sets are empty.")
    return found


@dataclass(frozen=True)
class Segment:
    """One sample's positions in one pass of a module.

    Attributes:
        sample: the sample's place among all ids.
        key: the key it counts for.
        index: flat positions among the module's activations.
        positions: the number of each within the sample.
    """

    sample: int
    key: int
    index: Int[Tensor, " pos"]
    positions: Int[Tensor, " pos"]


@dataclass
class _Found:
    """What is held of one module; entries lie on the CPU."""

    neurons: NeuronSet
    k: int
    sources: Int[Tensor, " sample"] | None
    values: dict[str, Tensor]
    passes: list[list[Segment]] = field(default_factory=list)
    fired: Counter[int] = field(default_factory=Counter)

    def add(
        self, layer: int, tensor: Tensor, activation: Callable[[Tensor], Tensor] | None
    ) -> None:
        """Take in one layer's activations, or what its activation function makes of them."""
        turn = self.fired[layer]
        if turn >= len(self.passes):
            raise HookError(
                f"Layer {layer} ran {turn + 1} times in one forward, but its adapter told of "
                f"{len(self.passes)}; activations would be taken for those of other samples."
            )
        self.fired[layer] += 1
        flat = tensor.detach().flatten(0, -2)
        columns = self.neurons.per_layer()[layer]
        rows = self.neurons.pairs()[:, 0] == layer
        flat = flat.index_select(1, columns.to(flat.device))
        flat = (flat if activation is None else activation(flat)).float()
        segments = self.passes[turn]
        for key in sorted({segment.key for segment in segments}):
            some = [segment for segment in segments if segment.key == key]
            here = torch.cat([one.index for one in some]).to(flat.device)
            self.values["histogram"][rows, key] += histogram(flat[here]).cpu()
            for part in _parts(some, 1 if self.sources is not None else len(columns)):
                self._keep(rows, key, flat, part)

    def _keep(
        self, rows: Tensor, key: int, flat: Float[Tensor, "pos neuron"], part: Sequence[Segment]
    ) -> None:
        found = [self._candidates(flat, segment) for segment in part]
        held = [self.values[name][rows, key] for name in ("values", "samples", "positions")]
        joined = [
            torch.cat([h, *new], -1) for h, new in zip(held, zip(*found, strict=True), strict=True)
        ]
        best = largest(*joined, k=self.k, sources=self.sources)
        for name, value in zip(("values", "samples", "positions"), best, strict=True):
            self.values[name][rows, key] = value

    def _candidates(
        self, flat: Float[Tensor, "pos neuron"], segment: Segment
    ) -> tuple[Float[Tensor, "n entry"], Int[Tensor, "n entry"], Int[Tensor, "n entry"]]:
        values = flat[segment.index.to(flat.device)]
        if self.sources is not None:
            top, where = first_maxima(values)
            values, positions = top.cpu()[:, None], segment.positions[where.cpu()][:, None]
        else:
            values = values.T.cpu()
            positions = segment.positions.expand(values.shape)
        return values, torch.full_like(positions, segment.sample), positions


class _Gathering:
    """One pass on its way."""

    def __init__(
        self,
        model: HookedMLLM,
        plan: CollectPlan,
        chosen: Mapping[str, NeuronSet],
        sources: Mapping[str, str],
        k: int,
        distinct: str,
    ) -> None:
        self.model, self.plan, self.sources, self.distinct = model, plan, sources, distinct
        self.places = {name: place for place, name in enumerate(sources)}
        numbers = None if distinct == "position" else numbered(list(sources.values()))
        self.held = {
            module: _Found(neurons, k, numbers, nothing(len(neurons), len(plan.keys), k))
            for module, neurons in chosen.items()
        }

    @contextmanager
    def listening(self) -> Iterator[None]:
        hooks = [
            self._hook(module, layer)
            for module, one in self.held.items()
            for layer in one.neurons.per_layer()
        ]
        with self.model.hooks(fwd_hooks=hooks):
            yield

    def step(self, batch: Batch) -> None:
        for module, one in self.held.items():
            one.passes = self._segments(module, batch)
            one.fired.clear()
        self.model.forward(batch, logits_to_keep=1)

    def found(self, skipped: Mapping[str, str]) -> dict[str, TopActivations]:
        return {
            module: TopActivations(
                module=module,
                shape=one.neurons.shape,
                neurons=one.neurons.pairs(),
                **one.values,
                ids=tuple(self.sources),
                sources=tuple(self.sources.values()),
                keys=self.plan.keys,
                by=self.plan.by,
                group=self.plan.groups[module][0],
                distinct=self.distinct,
                model_hash=self.model.weight_hash,
                skipped=dict(skipped),
            ).compact()
            for module, one in self.held.items()
        }

    def _hook(self, module: str, layer: int) -> Hook:
        activation = self.model.activation(module, layer)
        point = "post" if activation is None else "pre"

        def keep(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            self.held[module].add(layer, tensor, activation)

        return self.model.module(module).hook(layer, point), keep

    def _segments(self, module: str, batch: Batch) -> list[list[Segment]]:
        """For each pass of a module, the positions of each row that count."""
        assert batch.samples is not None
        seen = [0] * len(batch)
        passes = []
        if module == LANGUAGE:
            real = batch.groups.attention.cpu()
            numbers = real.long().cumsum(-1) - 1
            wanted = batch.groups.mask(self.plan.groups[module][0]).cpu()
            rows = [torch.where(wanted, torch.arange(len(batch))[:, None], -1).flatten()]
        else:
            numbers = None
            rows = tower_rows(self.model, batch, module)
        for one in rows:
            segments = []
            for row, sample in enumerate(batch.samples):
                index = (one == row).nonzero()[:, 0]
                if not len(index):
                    continue
                place = (
                    seen[row] + torch.arange(len(index))
                    if numbers is None
                    else numbers.flatten()[index]
                )
                seen[row] += len(index)
                key = self.plan.keys.index(str(sample.get(self.plan.by)))
                segments.append(Segment(self.places[sample.id], key, index, place))
            passes.append(segments)
        return passes


def _parts(segments: Sequence[Segment], each: int) -> Iterator[list[Segment]]:
    """Segments in parts that are small enough to sort, ``each`` entries a position."""
    part: list[Segment] = []
    size = 0
    for one in segments:
        if part and size + len(one.index) * each > _ENTRIES:
            yield part
            part, size = [], 0
        part.append(one)
        size += len(one.index) * each
    if part:
        yield part
