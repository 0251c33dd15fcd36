"""Streaming a model over samples for the largest activations of chosen neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.data.identity import sources
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, StatisticsError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet
from mmlens.statistics.top_activations import (
    TopActivations,
    first_maxima,
    histogram,
    largest,
    load_all,
    nothing,
    numbered,
    save_all,
)
from mmlens.storage.fingerprint import data_fingerprint
from mmlens.streaming.batching import Batching
from mmlens.streaming.distributed import Share
from mmlens.streaming.plan import CollectPlan, make_plan
from mmlens.streaming.runs import Runs
from mmlens.streaming.stream import Stream

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
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: float = 30.0,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
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
        checkpoint: a ``.safetensors`` file that the state is saved to now and then. Started again
            with the same arguments, the pass is resumed and ends with the same bits.
        checkpoint_every: seconds between saves.
        batching: how samples become prompts and batches.

    Returns:
        For each module: its neurons' top activations.

    Raises:
        SampleError: an unknown module, group or field; k below one; no neuron; a repeated id.
        StatisticsError: neurons of another model or shape.
        TooManyFailuresError: more samples unreadable than the cap allows; what was found is saved.
        RunFolderError: the checkpoint is of other arguments, or cannot be written.
    """
    chosen = joined_sets(model, [neurons] if isinstance(neurons, NeuronSet) else neurons)
    if k < 1:
        raise SampleError(f"k, the activations kept, must be at least 1; {k} was given.")
    share = Share.of_launcher()
    plan = make_plan(model, samples, list(chosen), (group,), by, batching=batching, share=share)
    wanted = Wanted(chosen, k, distinct, sources(samples, distinct))
    stream = TopStream(model, plan, wanted, batching, checkpoint, share)
    found = stream.run("top activations", every=checkpoint_every)
    return {name: share.merged(one) for name, one in found.items()}


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
class _Held:
    """What is held of one module; entries lie on the CPU."""

    neurons: NeuronSet
    k: int
    sources: Int[Tensor, " sample"] | None
    values: dict[str, Tensor]
    runs: Runs[Sequence[Segment]] = field(default_factory=lambda: Runs([]))

    def add(self, layer: int, tensor: Tensor, activation: Callable[[Tensor], Tensor]) -> None:
        """Take in what the activation function makes of one layer's tensor [..., neuron]."""
        segments = self.runs.next(layer)
        flat = tensor.detach().flatten(0, -2)
        columns = self.neurons.per_layer()[layer]
        rows = self.neurons.pairs()[:, 0] == layer
        flat = activation(flat.index_select(1, columns.to(flat.device))).float()
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


@dataclass(frozen=True, eq=False)
class Wanted:
    """Which activations are kept; see :func:`top_activations`.

    Attributes:
        neurons: module -> its neurons.
        k, distinct: as there.
        sources: sample id -> what it shares with others of which only the largest activation is
            kept, of the samples of all processes.
    """

    neurons: Mapping[str, NeuronSet]
    k: int
    distinct: str
    sources: Mapping[str, str]


class TopStream(Stream[dict[str, TopActivations]]):
    """A resumable pass for the largest activations; arguments as :class:`Stream`, and what is wanted."""

    def __init__(
        self,
        model: HookedMLLM,
        plan: CollectPlan,
        wanted: Wanted,
        batching: Batching,
        checkpoint: str | PathLike[str] | None,
        share: Share,
    ) -> None:
        self.wanted = wanted
        self._places = {name: place for place, name in enumerate(wanted.sources)}
        super().__init__(model, plan, batching, checkpoint, share)

    def result(self) -> dict[str, TopActivations]:
        """The largest activations so far, by module."""
        return {
            module: replace(one, **self._held[module].values, skipped=dict(self.skipped)).compact()
            for module, one in self._empty().items()
        }

    def _fingerprint(self) -> str:
        neurons = {name: one.pairs().tolist() for name, one in self.wanted.neurons.items()}
        choice = [self.wanted.k, self.wanted.distinct, dict(self.wanted.sources)]
        return data_fingerprint([self.plan.fingerprint(self.model), neurons, *choice])

    def _empty(self) -> dict[str, TopActivations]:
        return {
            module: TopActivations(
                module=module,
                shape=neurons.shape,
                neurons=neurons.pairs(),
                **nothing(len(neurons), len(self.plan.keys), self.wanted.k),
                ids=tuple(self.wanted.sources),
                sources=tuple(self.wanted.sources.values()),
                keys=self.plan.keys,
                by=self.plan.by,
                group=self.plan.groups[module][0],
                distinct=self.wanted.distinct,
                model_hash=self.model.weight_hash,
                skipped=dict(self.plan.unreadable),
            )
            for module, neurons in self.wanted.neurons.items()
        }

    def _begin(self, start: dict[str, TopActivations]) -> None:
        ids, sources = tuple(self.wanted.sources), tuple(self.wanted.sources.values())
        numbers = None if self.wanted.distinct == "position" else numbered(sources)
        self._held = {}
        for module, found in start.items():
            values = found.spread(ids, sources, self.plan.keys).changing()
            neurons = self.wanted.neurons[module]
            self._held[module] = _Held(neurons, self.wanted.k, numbers, values)
            self.skipped = dict(found.skipped)

    def _hooks(self) -> list[Hook]:
        return [
            self.model.activation_hook(module, layer, partial(held.add, layer))
            for module, held in self._held.items()
            for layer in held.neurons.per_layer()
        ]

    def _before(self, batch: Batch) -> None:
        for module, held in self._held.items():
            held.runs = Runs(self._segments(module, batch))

    def _write(self, path: Path, extra: Mapping[str, Any]) -> None:
        save_all(path, self.result(), extra)

    def _read(self, path: Path) -> tuple[dict[str, TopActivations], dict[str, Any]]:
        return load_all(path)

    def _segments(self, module: str, batch: Batch) -> list[list[Segment]]:
        """For each pass of a module, the positions of each row that count."""
        assert batch.samples is not None
        numbers: Tensor | None = None
        if module == LANGUAGE:
            numbers = (batch.groups.attention.cpu().long().cumsum(-1) - 1).flatten()
            wanted = batch.groups.mask(self.plan.groups[module][0]).cpu()
            rows = [torch.where(wanted, torch.arange(len(batch))[:, None], -1).flatten()]
        else:
            rows = self.model.tower_rows(batch, module)
        seen = [0] * len(batch)
        passes = []
        for one in rows:
            segments = []
            for row, sample in enumerate(batch.samples):
                index = (one == row).nonzero()[:, 0]
                if not len(index):
                    continue
                counted = seen[row] + torch.arange(len(index))
                place = counted if numbers is None else numbers[index]
                seen[row] += len(index)
                key = self.plan.key(sample)
                segments.append(Segment(self._places[sample.id], key, index, place))
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
