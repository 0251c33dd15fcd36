"""Conditions: what is done to which neurons, and the samples that are run then."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mmlens.ablation.intervention import Intervention
from mmlens.adapter import KINDS
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NeuronSet


@dataclass(frozen=True)
class Condition:
    """One intervention and the samples that are run under it.

    Attributes:
        name: unique among the conditions; the column ``setting`` of tables and rows.
        neurons: the sets that are changed; none for the untouched model.
        ids: ids of the samples to run.
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
        """Whether it can run as rows of a batch beside other conditions: no towers, no donors."""
        return self.only_language and self.intervention.kind != "resample"

    @property
    def limited_to(self) -> str | None:
        """The token group that its changes are limited to; None: no limit, or nothing is changed."""
        return self.intervention.group if self.neurons else None


def ids_with(model: HookedMLLM, samples: Sequence[Sample], group: str) -> frozenset[str]:
    """Ids of the samples whose prompts have tokens of a group, judged by their media alone.

    Groups that are no modality (``text``, ``special``, ...) are taken to be in every prompt.
    """
    kinds = [kind for kind in model.adapter.modalities if model.adapter.group_of(kind) == group]
    return frozenset(
        one.id
        for one in samples
        if group not in KINDS or any(getattr(one, f"{kind}s") for kind in kinds)
    )


def check_conditions(conditions: Sequence[Condition], samples: Sequence[Sample]) -> None:
    """Raise SampleError unless names are unique, samples too, and all ids are those of samples."""
    ids = {sample.id for sample in samples}
    if len(ids) != len(samples):
        raise SampleError("Two samples have the same id; ids must be unique.")
    if len({one.name for one in conditions}) != len(conditions):
        raise SampleError("Two conditions have the same name; names must be unique.")
    for one in conditions:
        if unknown := sorted(one.ids - ids):
            raise SampleError(f"Condition {one.name!r} asks unknown sample {unknown[0]!r}.")


def check_groups(
    model: HookedMLLM, samples: Sequence[Sample], conditions: Sequence[Condition]
) -> None:
    """Raise SampleError if a condition is limited to a modality that one of its samples lacks."""
    for one in conditions:
        if one.limited_to is not None:
            asked = [sample for sample in samples if sample.id in one.ids]
            _refuse(one, one.ids - ids_with(model, asked, one.limited_to))


def check_batch(batch: Batch, condition: Condition) -> None:
    """Raise SampleError if a row of a batch has no token of the group that a condition is limited to."""
    if condition.limited_to is not None:
        assert batch.samples is not None
        there = batch.groups.mask(condition.limited_to).any(-1).tolist()
        _refuse(condition, {s.id for s, has in zip(batch.samples, there, strict=True) if not has})


def _refuse(condition: Condition, lacking: Collection[str]) -> None:
    if not lacking:
        return
    raise SampleError(
        f"Sample {min(lacking)!r} has no token of group {condition.limited_to!r}, so condition "
        f"{condition.name!r} ({condition.intervention.name}) would change nothing in its prompt: leave "
        "it out of the condition's ids (mmlens.ablation.conditions.ids_with says which samples have "
        "one), or pass keep_unaffected=True to ask it all the same."
    )
