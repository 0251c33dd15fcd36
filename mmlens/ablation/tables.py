"""Tables of a study of masks: neurons, accuracies, samples used, answers before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask
from mmlens.ablation.questions import Questions
from mmlens.data.samples import Sample
from mmlens.entropy import Selection
from mmlens.neurons import NONE
from mmlens.selection.recipe import Recipe


def neurons_table(
    selections: Mapping[float, Mapping[str, Selection]],
    probabilities: Mapping[str, Float[Tensor, "layer neuron domain"]],
    domains: Sequence[str],
) -> pd.DataFrame:
    """A row per selected neuron, with the smallest fraction that selects it.

    Columns: module, layer, index, fraction, entropy (nats), domains (joined by ``;``), p_<domain>.

    Args:
        selections: fraction -> module -> selection.
        probabilities: module -> activation probabilities.
        domains: the order of their last axis.
    """
    rows: dict[tuple[str, int, int], tuple[object, ...]] = {}
    for fraction in sorted(selections):
        for module, selection in selections[fraction].items():
            for layer, index in selection.union:
                if (module, layer, index) not in rows:
                    labels = [d for d in domains if (layer, index) in selection.sets[d]]
                    entropy = float(selection.entropy[layer, index])
                    p = probabilities[module][layer, index].tolist()
                    rows[module, layer, index] = (fraction, entropy, ";".join(labels), *p)
    names = ["module", "layer", "index", "fraction", "entropy", "domains"]
    table = [(*neuron, *facts) for neuron, facts in rows.items()]
    return pd.DataFrame(table, columns=names + [f"p_{d}" for d in domains])


def accuracy_table(
    answers: pd.DataFrame, masks: Sequence[Mask], samples: Sequence[Sample]
) -> pd.DataFrame:
    """Accuracy by mask and evaluated domain.

    Columns: mask, kind, seed, fraction, intervention (where not all masks silence), evaluated, n, correct,
    accuracy, n_neurons, frequency.
    """
    domain = {s.id: str(s.domain) for s in samples}
    by_name = {mask.name: mask for mask in masks}
    groups: Any = answers.groupby(["setting", answers["id"].map(domain.get)], sort=False)
    rows = []
    for (setting, one), part in groups:
        mask, correct = by_name.get(setting), sum(part["score"])
        before, after = facts_of(mask)
        done = intervened(mask, masks) if mask else {}
        scored = {"evaluated": one, "n": len(part), "correct": correct}
        rows.append(before | done | scored | {"accuracy": correct / len(part)} | after)
    return pd.DataFrame(rows)


def facts_of(mask: Mask | None) -> tuple[dict[str, object], dict[str, object]]:
    """The columns of a mask of domains before and after what was measured; None: the untouched model."""
    if mask is None:
        mask = Mask(NONE, (), Recipe.of_domains(0.0), kind=NONE)
    return (
        {
            "mask": mask.label,
            "kind": mask.kind,
            "seed": mask.seed,
            "fraction": mask.recipe.ratio,
        },
        {"n_neurons": mask.n_neurons, "frequency": mask.measure},
    )


def intervened(mask: Mask, masks: Sequence[Mask]) -> dict[str, str]:
    """The column ``intervention`` of a mask's row; none where all masks silence their neurons."""
    if all(one.intervention == Intervention() for one in masks):
        return {}
    return {"intervention": mask.intervention.name}


def samples_table(
    splits: Mapping[str, Sequence[Sample]], domains: Sequence[str], skipped: Mapping[str, str]
) -> pd.DataFrame:
    """Questions used and left out, per domain and split.

    Columns: domain, split, n_questions, n_skipped, reason (of the first one left out).

    Args:
        splits: split -> samples that were to be used.
        domains: the domains.
        skipped: sample id -> why it was left out.
    """
    rows = []
    for split, samples in splits.items():
        for domain in domains:
            here = [s.id for s in samples if s.domain == domain]
            left_out = [i for i in here if i in skipped]
            rows.append(
                {
                    "domain": domain,
                    "split": split,
                    "n_questions": len(here) - len(left_out),
                    "n_skipped": len(left_out),
                    "reason": skipped[left_out[0]] if left_out else "",
                }
            )
    return pd.DataFrame(rows)


def examples_table(
    answers: Sequence[Mapping[str, Any]],
    questions: Questions,
    fraction: float,
    intervention: Intervention = Intervention(),  # noqa: B008  (frozen)
) -> pd.DataFrame:
    """:func:`before_and_after` under each domain's mask, with a column ``domain`` for the label.

    Columns: domain, question, answer, unmasked, masked, image (its bytes, where it is embedded).

    Args:
        answers: rows of ``answers.jsonl``.
        questions: what was asked.
        fraction: the masks' fraction.
        intervention: the masks' intervention.
    """
    recipe = Recipe.of_domains(fraction)
    names = {domain: Mask(domain, (), recipe, intervention).name for domain in questions.own}
    found = before_and_after(answers, questions.samples, questions.own, names)
    return found.rename(columns={"label": "domain"})


def before_and_after(
    answers: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    asked: Mapping[str, Sequence[str]],
    conditions: Mapping[str, str],
    per_label: int = 2,
) -> pd.DataFrame:
    """Answers of the untouched model and under one condition for each label, first those that changed.

    Columns: label, question, answer, unmasked, masked, image (its bytes, where it is embedded).

    Args:
        answers: rows of ``answers.jsonl``; the untouched model's condition is ``none``.
        samples: what was asked.
        asked: label (a domain, a modality, ...) -> ids of the questions to choose from.
        conditions: label -> name of its condition; a question without both answers is left out.
        per_label: rows per label.
    """
    said = {(row["setting"], row["id"]): row for row in answers}
    by_id = {s.id: s for s in samples}
    rows = []
    for label, ids in asked.items():
        name = conditions[label]
        both = [
            (by_id[i], said[NONE, i], said[name, i])
            for i in ids
            if (NONE, i) in said and (name, i) in said
        ]
        both.sort(key=lambda t: (t[1]["prediction"] == t[2]["prediction"], -t[1]["score"]))
        for sample, before, after in both[:per_label]:
            image = sample.images[0] if sample.images else None
            rows.append(
                {
                    "label": label,
                    "question": sample.text,
                    "answer": sample.answers[0],
                    "unmasked": before["prediction"],
                    "masked": after["prediction"],
                    "image": image if isinstance(image, bytes) else None,
                }
            )
    return pd.DataFrame(rows)
