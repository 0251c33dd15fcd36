"""The conditions of a study of masks: which masks there are, and which questions each is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mmlens.ablation.conditions import Condition
from mmlens.ablation.masks import Mask
from mmlens.ablation.questions import Questions
from mmlens.neurons import NONE


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
