"""Tables of what masks cost, against fair controls: of domains, of modalities, of masks against one another.

All three are one computation, :func:`mmlens.ablation.paired.paired_effect` on the rows of
:func:`scores_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from mmlens.ablation.masks import MASK, Mask, controls_of
from mmlens.ablation.paired import Effect, paired_effect
from mmlens.ablation.plan import MaskPlan
from mmlens.ablation.questions import Questions
from mmlens.ablation.tables import intervened
from mmlens.neurons import ALL, NONE
from mmlens.plots.frames import CONTROLS


def effects_table(
    answers: pd.DataFrame,
    masks: Sequence[Mask],
    questions: Questions,
    *,
    full: bool,
    cluster: str | None = None,
    weights: Mapping[str, float] | None = None,
    draws: int = 2000,
) -> pd.DataFrame:
    """The effect of every mask of domains against each kind of control, paired per question.

    A row per mask x control x evaluated: ``own``, ``others`` (pooled) or, for all neurons together,
    ``all``; with ``full`` also every evaluated domain by name. Further columns: fraction, intervention
    (where not all masks silence their neurons), n_neurons, frequency, control_frequency and those of
    :class:`mmlens.ablation.paired.Effect`.

    Args:
        answers: frame of :class:`mmlens.ablation.evaluate.Answers`.
        masks: masks and controls.
        questions: what was asked.
        full: whether the full matrix was asked.
        cluster: field of the samples that groups dependent questions; None: each is its own.
        weights: sample id -> what it counts in every mean; None: all alike.
        draws: bootstrap draws.
    """
    score = scores_of(answers)
    clusters = questions.clusters(cluster)
    rows = []
    for mask in (m for m in masks if m.kind == MASK):
        scopes = _scopes(mask.label, questions, full)
        for kind in CONTROLS:
            rivals = [one for one in controls_of(mask, masks) if one.kind == kind]
            for evaluated, ids in scopes.items() if rivals else ():
                part = _asked(score, ids, [mask, *rivals])
                if part.empty:
                    continue
                about = {"mask": mask.label, "fraction": mask.recipe.ratio}
                about |= {**intervened(mask, masks), "n_neurons": mask.n_neurons}
                about |= {"evaluated": evaluated, "control": kind}
                effect = _paired(
                    part, mask.name, [m.name for m in rivals], clusters, draws, weights
                )
                measures = {"frequency": mask.measure, "control_frequency": _mean_measure(rivals)}
                rows.append(about | asdict(effect) | measures)
    return pd.DataFrame(rows)


def masking_table(
    answers: pd.DataFrame,
    masks: Sequence[Mask],
    asked: Mapping[str, Collection[str]],
    questions: Questions,
    *,
    cluster: str | None = None,
    draws: int = 2000,
) -> pd.DataFrame:
    """What every mask of modalities costs, per data set and over all, beside each kind of control it has.

    Args:
        answers: frame of :class:`mmlens.ablation.evaluate.Answers`.
        masks: masks and controls.
        asked: base name of a mask -> ids of its questions; its controls and the untouched model have
            been asked them too.
        questions: all questions, by data set.
        cluster: field of the samples that groups dependent questions.
        draws: bootstrap draws.

    Returns:
        A row per mask x data set (and ``all``) x control: mined, strategy, weights, ratio, split,
        modality, treatment, evaluated, control (empty where there is none), n_neurons, measure,
        control_measure and the columns of :class:`mmlens.ablation.paired.Effect`; ``difference`` and its interval are NaN
        without a control.
    """
    score = scores_of(answers)
    clusters = questions.clusters(cluster)
    rows = []
    for mask in (m for m in masks if m.kind == MASK):
        mine, rivals = set(asked[mask.base_name]), controls_of(mask, masks)
        for evaluated, ids in _with_all(questions.own).items():
            part = _asked(score, [i for i in ids if i in mine], [mask, *rivals])
            if part.empty:
                continue
            about = {
                **asdict(mask.recipe),
                "modality": mask.label,
                "treatment": mask.treatment,
                "evaluated": evaluated,
                "n_neurons": mask.n_neurons,
                "measure": mask.measure,
            }
            for kind in dict.fromkeys(one.kind for one in rivals):
                some = [one for one in rivals if one.kind == kind]
                effect = _paired(part, mask.name, [m.name for m in some], clusters, draws)
                control = {"control": kind, "control_measure": _mean_measure(some)}
                rows.append(about | control | asdict(effect))
            if not rivals:
                rows.append(about | _alone(part, mask.name))
    return pd.DataFrame(rows)


def plan_table(
    answers: pd.DataFrame, plan: MaskPlan, questions: Questions, cluster: str | None
) -> pd.DataFrame:
    """:func:`masking_table` of every purpose of a plan, with a column ``purpose``."""
    return pd.concat(
        masking_table(answers, masks, plan.asked[purpose], questions, cluster=cluster).assign(
            purpose=purpose
        )
        for purpose, masks in plan.masks.items()
    )


def method_differences(
    answers: pd.DataFrame,
    pairs: Sequence[tuple[str, str, str, str]],
    datasets: Mapping[str, Sequence[str]],
    clusters: Mapping[str, str],
    *,
    draws: int = 2000,
) -> pd.DataFrame:
    """What one mask costs beyond another, question by question, with bootstrap 95% intervals.

    Args:
        answers: frame of :class:`mmlens.ablation.evaluate.Answers`.
        pairs: (method a, its condition, method b, its condition).
        datasets: data set -> ids of its questions.
        clusters: id -> what groups dependent questions.
        draws: bootstrap draws.

    Returns:
        A row per pair and data set (and ``all``): method_a, method_b, evaluated, n_questions,
        difference (accuracy under b minus accuracy under a: above 0, a costs more), low, high.
    """
    score = scores_of(answers)
    rows = []
    for method_a, a, method_b, b in pairs:
        for evaluated, ids in _with_all(datasets).items():
            part = score.reindex(index=sorted(ids), columns=[NONE, a, b]).dropna()
            if part.empty:
                continue
            effect = asdict(_paired(part, a, [b], clusters, draws))
            kept = {name: effect[name] for name in ("n_questions", "difference", "low", "high")}
            about = {"method_a": method_a, "method_b": method_b, "evaluated": evaluated}
            rows.append(about | kept)
    return pd.DataFrame(rows)


def scores_of(answers: pd.DataFrame) -> pd.DataFrame:
    """Scores with a row per question and a column per condition; NaN where it was not asked."""
    return answers.pivot(index="id", columns="setting", values="score")


def _asked(score: pd.DataFrame, ids: Sequence[str], masks: Sequence[Mask]) -> pd.DataFrame:
    """The questions that were asked untouched and under all of these masks."""
    return score.reindex(index=ids, columns=[NONE, *(one.name for one in masks)]).dropna()


def _paired(
    part: pd.DataFrame,
    name: str,
    rivals: Sequence[str],
    clusters: Mapping[str, str],
    draws: int,
    weights: Mapping[str, float] | None = None,
) -> Effect:
    ids = [str(i) for i in part.index]
    return paired_effect(
        part[NONE].to_numpy(float),
        part[name].to_numpy(float),
        part[list(rivals)].to_numpy(float).T,
        [clusters[i] for i in ids],
        weights=None if weights is None else np.array([weights[i] for i in ids], float),
        draws=draws,
    )


def _alone(part: pd.DataFrame, name: str) -> dict[str, object]:
    """The columns of a mask without controls."""
    base, masked = (float(part[n].to_numpy(float).mean()) for n in (NONE, name))
    known = {"n_questions": len(part), "n_seeds": 0, "baseline": base, "masked": masked}
    unknown = ("control_measure", "control_mean", "control_sd", "control_drop", "difference")
    missing = dict.fromkeys((*unknown, "low", "high"), float("nan"))
    return {"control": "", **known, "drop": base - masked, **missing}


def _mean_measure(masks: Sequence[Mask]) -> float:
    return float(np.mean([one.measure for one in masks]))


def _with_all(own: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Data set -> ids, and all of them together."""
    scopes = {name: list(ids) for name, ids in own.items()}
    return {**scopes, ALL: [i for ids in own.values() for i in ids]}


def _scopes(label: str, questions: Questions, full: bool) -> dict[str, list[str]]:
    asked = questions.asked(label, full)
    if label == ALL:
        scopes = {ALL: [i for ids in asked.values() for i in ids]}
    else:
        others = [i for domain, ids in asked.items() if domain != label for i in ids]
        scopes = {"own": list(asked[label]), "others": others}
    return scopes | ({d: list(ids) for d, ids in asked.items()} if full else {})
