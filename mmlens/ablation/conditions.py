"""Conditions: what is done to which neurons, and who is asked then; and what is left of a resumed pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask
from mmlens.ablation.questions import Questions
from mmlens.adapter import KINDS
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hook_names import LANGUAGE
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.neurons import NONE, NeuronSet
from mmlens.streaming.batching import Batching
from mmlens.streaming.sweep import Piece, Rows, Share, Sweep

#: The fields that tell one row of a pass under conditions from another.
KEY = ("setting", "id")


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


@dataclass(eq=False)
class MaskPlan:
    """The masks and controls of a study, by what they are for, and the questions of each.

    A mask may serve several purposes, each with questions and controls of its own; it is run once.

    Attributes:
        masks: purpose (``main``, ``treatments``, ``grid``, ...) -> masks and controls.
        asked: purpose -> base name of a mask -> ids of its questions.
    """

    masks: dict[str, list[Mask]] = field(default_factory=dict)
    asked: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)

    def add(self, purpose: str, masks: Sequence[Mask], ids: frozenset[str]) -> None:
        """Masks for a purpose, with their controls."""
        self.masks.setdefault(purpose, []).extend(masks)
        self.asked.setdefault(purpose, {}).update({mask.base_name: ids for mask in masks})

    def conditions(self) -> list[Condition]:
        """Every mask and control once, on all questions that some purpose asks it."""
        return conditions_of(
            (mask, self.asked[purpose][mask.base_name])
            for purpose, masks in self.masks.items()
            for mask in masks
        )


def conditions_of(
    asked: Iterable[tuple[Mask, Iterable[str]]], everything: Iterable[str] = ()
) -> list[Condition]:
    """The untouched model on every question, then each mask once, on all that it is asked.

    Args:
        asked: masks and controls, each with ids of questions; a mask may come several times.
        everything: further ids that the untouched model is asked.
    """
    masks: dict[str, Mask] = {}
    ids: dict[str, frozenset[str]] = {}
    for mask, some in asked:
        masks.setdefault(mask.name, mask)
        ids[mask.name] = ids.get(mask.name, frozenset()).union(some)
    untouched = Condition(NONE, (), frozenset(everything).union(*ids.values()))
    return [untouched] + [
        Condition(name, mask.neurons, ids[name], mask.intervention) for name, mask in masks.items()
    ]


def domain_conditions(masks: Sequence[Mask], questions: Questions, full: bool) -> list[Condition]:
    """The untouched model on every question, and each mask on those of its own domain and of others.

    Args:
        masks: masks of domains, with their controls.
        questions: drawn by :meth:`mmlens.ablation.questions.Questions.choose`.
        full: ask every mask every domain's questions.
    """
    each = [
        (mask, [i for ids in questions.asked(mask.label, full).values() for i in ids])
        for mask in masks
    ]
    return conditions_of(each, (s.id for s in questions.samples))


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


def blocks_of(
    samples: Sequence[Sample], conditions: Sequence[Condition]
) -> list[tuple[Sequence[Condition], list[Sample]]]:
    """Samples that exactly the same conditions ask, with those conditions, in order."""
    blocks: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        asked = tuple(i for i, one in enumerate(conditions) if sample.id in one.ids)
        if asked:
            blocks.setdefault(asked, []).append(sample)
    return [([conditions[i] for i in asked], block) for asked, block in blocks.items()]


def resumed(
    model: HookedMLLM,
    pieces: Sequence[Piece[Sequence[Condition]]],
    rows: Rows,
    batching: Batching,
    share: Share,
    *,
    samples: int,
    description: str,
    skipped: Mapping[str, str] | None = None,
) -> Sweep[Sequence[Condition]]:
    """The sweep over what is left: each piece under the conditions that lack a row of it.

    Args:
        model: a hooked model.
        pieces: all of the pass, each with its conditions.
        rows: those that are there, by :data:`KEY`.
        batching: as of the whole pass.
        share: this process's share of the pieces.
        samples: how many samples the pass has in all.
        description: of the progress bar, which counts samples under conditions.
        skipped: samples that are known to be unreadable.
    """
    mine, left = share.of(pieces), []
    for piece in mine:
        todo = [one for one in piece.work if _lacking(one, piece.samples, rows)]
        if todo:
            left.append(Piece(todo, piece.samples, len(piece.samples) * len(todo)))
    total = sum(len(piece.samples) * len(piece.work) for piece in mine)
    return Sweep(
        model,
        left,
        batching,
        samples=samples,
        description=description,
        unit="run",
        finished=total - sum(piece.units for piece in left),
        skipped=skipped,
    )


def _lacking(condition: Condition, samples: Sequence[Sample], rows: Rows) -> bool:
    return any(s.id in condition.ids and (condition.name, s.id) not in rows for s in samples)


def refuse_unaffected(condition: Condition, batch: Batch) -> None:
    """Raise SampleError if a row of a batch has no token of the group that a condition is limited to."""
    if condition.limited_to is None:
        return
    there = batch.groups.mask(condition.limited_to).any(-1).tolist()
    assert batch.samples is not None
    for sample, has in zip(batch.samples, there, strict=True):
        if not has:
            raise unaffected(condition, sample.id)


def unaffected(condition: Condition, name: str) -> SampleError:
    """The error for a sample that has no token of the group that a condition is limited to."""
    return SampleError(
        f"Sample {name!r} has no token of group {condition.limited_to!r}, so condition "
        f"{condition.name!r} ({condition.intervention.name}) would change nothing in its prompt: leave "
        "it out of the condition's ids (mmlens.ablation.conditions.ids_with tells which samples have "
        "one), or pass keep_unaffected=True to ask it all the same."
    )
