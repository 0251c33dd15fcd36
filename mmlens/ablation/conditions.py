"""Settings of changed neurons, and how a batch is answered under several of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import LogitsProcessorList

from mmlens.ablation.decoding import SeededSampling, seed_of
from mmlens.ablation.intervention import Intervention
from mmlens.adapter import KINDS
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks import Hook, on_rows
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.streaming.plan import prepared_or_skipped


@dataclass(frozen=True)
class Setting:
    """One intervention and the questions it is evaluated on.

    Attributes:
        name: unique among the settings.
        neurons: the sets that are changed; none for the untouched model.
        ids: ids of the samples to answer.
        intervention: what is done to them; by default they are silenced.
    """

    name: str
    neurons: tuple[NeuronSet, ...]
    ids: frozenset[str]
    intervention: Intervention = Intervention()

    @property
    def only_language(self) -> bool:
        """Whether it leaves the towers alone, so that media need not be encoded anew."""
        return all(one.module == LANGUAGE for one in self.neurons)

    @property
    def beside_others(self) -> bool:
        """Whether it can run as rows of a batch beside other settings: no towers, no donors."""
        return self.only_language and self.intervention.kind != "resample"

    @property
    def limited_to(self) -> str | None:
        """The token group that its changes are limited to; None: no limit, or nothing is changed."""
        return self.intervention.group if self.neurons else None


def ids_with(model: HookedMLLM, samples: Sequence[Sample], group: str) -> frozenset[str]:
    """Ids of the samples whose prompts have tokens of a group, told by their media alone.

    Groups that are no modality (``text``, ``special``, ...) are taken to be in every prompt.
    """
    kinds = [kind for kind in model.adapter.modalities if model.adapter.group_of(kind) == group]
    return frozenset(
        one.id
        for one in samples
        if group not in KINDS or any(getattr(one, f"{kind}s") for kind in kinds)
    )


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; see :func:`mmlens.ablation.evaluate.evaluate`."""

    max_new_tokens: int
    temperature: float
    seed: int

    def options(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments of ``generate`` for the rows of a batch."""
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        options["num_beams"] = 1  # a checkpoint's own settings may ask for beams
        if self.temperature:
            assert batch.samples is not None
            seeds = [seed_of(self.seed, sample.id) for sample in batch.samples]
            drawn = LogitsProcessorList([SeededSampling(seeds, self.temperature)])
            options["logits_processor"] = drawn
        return options


@dataclass(frozen=True)
class Donors:
    """Whose activations a sample takes when neurons are resampled: the next one of a shuffled ring.

    Attributes:
        ring: the samples that resampling settings ask, in random order.
        template: the prompt template.
    """

    ring: tuple[Sample, ...]
    template: str

    @classmethod
    def of(
        cls, samples: Sequence[Sample], settings: Sequence[Setting], template: str, seed: int
    ) -> Donors:
        """Of all samples that some resampling setting asks.

        Raises:
            SampleError: there is only one.
        """
        asked = {i for s in settings if s.intervention.kind == "resample" for i in s.ids}
        if len(asked) == 1:
            raise SampleError(
                "Resampling takes activations of another sample; one alone was asked."
            )
        order = sorted((s for s in samples if s.id in asked), key=lambda s: seed_of(seed, s.id))
        return cls(tuple(order), template)

    def batch(self, model: HookedMLLM, batch: Batch) -> Batch:
        """One donor per row of a batch; one that cannot be read gives way to the next.

        Raises:
            SampleError: no other sample can be read.
        """
        assert batch.samples is not None
        places = {sample.id: place for place, sample in enumerate(self.ring)}
        chosen = [self._next(places[sample.id], 1) for sample in batch.samples]
        ready, reasons = prepared_or_skipped(model, chosen, self.template)
        if ready is not None and not reasons:
            return ready.to(model.device)
        chosen = [self._readable(model, places[sample.id]) for sample in batch.samples]
        return model.preparer.batch(chosen, self.template).to(model.device)

    def _next(self, place: int, step: int) -> Sample:
        return self.ring[(place + step) % len(self.ring)]

    def _readable(self, model: HookedMLLM, place: int) -> Sample:
        for step in range(1, len(self.ring)):
            one = self._next(place, step)
            if prepared_or_skipped(model, [one], self.template)[0] is not None:
                return one
        raise SampleError(
            f"No sample beside {self.ring[place].id!r} can be read, so it has no donor."
        )


@dataclass(frozen=True)
class Asker:
    """Asks batches of questions under settings; see :func:`mmlens.ablation.evaluate.evaluate` for the fields."""

    model: HookedMLLM
    decoding: Decoding
    donors: Donors
    statistics: NeuronStatistics | None = None
    token_budget: int = 4096
    max_batch: int = 64
    together: bool = True
    keep_unaffected: bool = False

    def answers(self, batch: Batch, settings: Sequence[Setting]) -> Iterator[list[dict[str, Any]]]:
        """The answers of every question under every setting, run by run; media are encoded once.

        A row is ``setting``, ``id``, ``prediction``.

        Raises:
            SampleError: a row has no token of the group that a setting is limited to.
        """
        if not self.keep_unaffected:
            for setting in settings:
                refuse_unaffected(setting, batch)
        encoded = self.model.encode_media(batch)
        for chosen in self.runs(batch.shape, settings):
            whole = encoded if chosen[0].only_language else batch.to(self.model.device)
            yield self._answered(whole, chosen)

    def runs(self, shape: Sequence[int], settings: Sequence[Setting]) -> list[list[Setting]]:
        """The settings that a batch of ``shape`` (rows, positions) is run under at once.

        As many side by side as keep rows within ``max_batch`` and rows x positions within
        ``token_budget``, one at least; alone: those that change towers or need donors.
        """
        rows, length = shape
        fit = min(self.max_batch // rows, self.token_budget // (rows * length))
        size = max(1, fit) if self.together else 1
        beside = [one for one in settings if one.beside_others]
        alone = [[one] for one in settings if not one.beside_others]
        return [beside[at : at + size] for at in range(0, len(beside), size)] + alone

    def _answered(self, batch: Batch, settings: Sequence[Setting]) -> list[dict[str, Any]]:
        rows, total = len(batch), len(batch) * len(settings)
        hooks = [self._hooks(setting, batch) for setting in settings]
        places = [range(at, at + rows) for at in range(0, total, rows)]
        # A tower's rows are not the batch's, so a setting that runs alone has its hooks as they are.
        flat = (
            hooks[0] if len(hooks) == 1 else on_rows(list(zip(places, hooks, strict=True)), total)
        )
        many = batch.repeated(len(settings), self.model.adapter)
        with self.model.hooks(fwd_hooks=flat):
            out = self.model.generate(many, **self.decoding.options(many))
        assert batch.samples is not None
        asked = ((setting, sample) for setting in settings for sample in batch.samples)
        return [
            {"setting": setting.name, "id": sample.id, "prediction": text}
            for (setting, sample), text in zip(asked, out.texts, strict=True)
        ]

    def _hooks(self, setting: Setting, batch: Batch) -> list[Hook]:
        one = setting.intervention
        given = self.donors.batch(self.model, batch) if one.kind == "resample" else None
        return one.hooks(setting.neurons, self.model, batch, self.statistics, given)


def refuse_unaffected(setting: Setting, batch: Batch) -> None:
    """Raise SampleError if a row of a batch has no token of the group that a setting is limited to."""
    if setting.limited_to is None:
        return
    there = batch.groups.mask(setting.limited_to).any(-1).tolist()
    assert batch.samples is not None
    for sample, has in zip(batch.samples, there, strict=True):
        if not has:
            raise unaffected(setting, sample.id)


def unaffected(setting: Setting, name: str) -> SampleError:
    """What is said of a sample that has no token of the group that a setting is limited to."""
    return SampleError(
        f"Sample {name!r} has no token of group {setting.limited_to!r}, so setting {setting.name!r} "
        f"({setting.intervention.name}) would change nothing in its prompt: leave it out of the setting's ids "
        "(mmlens.ablation.conditions.ids_with tells which samples have one), or pass keep_unaffected=True to ask it "
        "all the same."
    )
