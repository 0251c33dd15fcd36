"""What MMNeuron's account rests on beside accuracies: one function per analysis, one section each.

Every function reads its table from the run folder where an earlier start has left it, and returns
the section of the report that shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from experiments.shared import sections
from experiments.shared.study import Study
from mmlens import plots
from mmlens.ablation.deviation import deviation
from mmlens.ablation.effects import effects_table
from mmlens.ablation.evaluate import evaluate
from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask, domain_masks
from mmlens.ablation.plan import domain_conditions
from mmlens.ablation.questions import Questions
from mmlens.entropy import Selection
from mmlens.errors import RunFolderError
from mmlens.hook_names import LANGUAGE
from mmlens.neurons import NeuronSet
from mmlens.report.sections import Figure, Section
from mmlens.run.folder import Run
from mmlens.selection import stability
from mmlens.statistics.neuron_statistics import NeuronStatistics

Selections = Mapping[str, Selection]
Probabilities = Mapping[str, Float[Tensor, "layer neuron domain"]]


@dataclass(frozen=True, eq=False)
class DomainStudy(Study):
    """What all analyses of MMNeuron work on.

    Attributes:
        selections: module -> what was selected, at the fraction that is masked.
        probabilities: module -> activation probabilities.
        questions: the questions that were asked; their samples are ``asked``.
        statistics: what the sets were selected from, for interventions that need them.
        intervention: what is done to the neurons of every mask.
        answering: further options of :func:`mmlens.ablation.evaluate.evaluate`: metric_name,
            max_new_tokens, ...
    """

    selections: Selections
    probabilities: Probabilities
    questions: Questions
    statistics: NeuronStatistics
    intervention: Intervention
    answering: Mapping[str, Any]

    @property
    def fraction(self) -> float:
        """The share of each module's neurons that was selected."""
        return next(iter(self.selections.values())).fraction

    @property
    def sets(self) -> dict[str, dict[str, NeuronSet]]:
        """Module -> domain -> its neurons."""
        return {module: one.sets for module, one in self.selections.items()}


def refuse_silenced(run: Run, intervention: Intervention) -> None:
    """Refuse a folder whose finished sections silenced the neurons although something else was asked.

    mmlens 0.1.0 did so in the sections on modules and on hidden states, whatever ``--intervention`` said.

    Raises:
        RunFolderError: such a section is finished.
    """
    if intervention == Intervention():
        return
    modules, deviation = run.path("effects-modules.csv"), run.path("deviation.jsonl")
    silenced = {
        "modules": modules.exists() and "intervention" not in pd.read_csv(modules, nrows=0),
        "deviation": not deviation.exists(),
    }
    for stage, wrong in silenced.items():
        if run.finished(stage) and wrong:
            raise RunFolderError(
                f"Stage {stage!r} of {run.folder} was made by a version of mmlens that silenced the "
                f"neurons there, although {intervention.name} was asked for; start anew in another folder."
            )


def sets_section(study: DomainStudy) -> Section:
    """MM-3: how many neurons carry which labels, and how far the sets overlap."""
    return sections.overlap_section(
        study,
        study.sets,
        study.domains,
        "A neuron carries the label of every domain in which it is active often enough, so sets overlap.",
    )


def combinations_of(modules: Sequence[str]) -> list[tuple[str, ...]]:
    """Each module alone, and the parts before the language model together (methods 2.6)."""
    others = tuple(module for module in modules if module != LANGUAGE)
    found: list[tuple[str, ...]] = [(module,) for module in modules] if len(modules) > 1 else []
    if {"qformer", "query"} <= set(modules):
        # One stack of layers, masked together in the paper's code.
        found.append(("qformer", "query"))
    if 1 < len(others) < len(modules):
        found.append(others)
    return found


def modules_section(study: DomainStudy, per_domain: int, seeds: int) -> Section | None:
    """MM-5: what each combination of modules costs on its own domain, beyond the matched control."""
    combinations = combinations_of(list(study.selections))
    if not combinations:
        return None
    names = ["+".join(one) for one in combinations]

    def make() -> pd.DataFrame:
        asked = Questions.choose(study.questions.samples, study.domains, per_domain, 0, study.seed)
        tables = []
        for name, modules in zip(names, combinations, strict=True):
            chosen = {module: study.selections[module] for module in modules}
            masks = [
                mask
                for mask in domain_masks(
                    chosen, study.probabilities, study.domains, seeds, study.intervention
                )
                if mask.label in study.domains and mask.kind != "random"
            ]
            found = evaluate(
                study.model,
                asked.samples,
                domain_conditions(masks, asked, full=False),
                answers=study.run.path(f"answers-{name}.jsonl"),
                statistics=study.statistics,
                batching=study.batching,
                **study.answering,
            )
            cluster = asked.cluster_field
            table = effects_table(found.frame, masks, asked, full=False, cluster=cluster)
            tables.append(table.assign(modules=name))
        return pd.concat(tables)

    effects = study.table("effects-modules.csv", "modules", make)
    figure = plots.effects_by_modules(effects, names, domains=study.domains)
    words = {"cells": len(effects), "seeds": seeds}
    return Section(
        "Module by module",
        "All modules together are above; here each is masked alone.",
        [Figure("modules", figure, "modules", words)],
    )


def deviation_section(study: DomainStudy, masks: Sequence[Mask], per_domain: int) -> Section:
    """MM-6: how far a mask moves the hidden states, whatever it does to the answers."""
    chosen = [mask for mask in masks if mask.recipe.ratio == study.fraction and mask.seed < 2]

    def make() -> pd.DataFrame:
        return deviation(
            study.model,
            study.some(per_domain),
            chosen,
            rows=study.run.path("deviation.jsonl"),
            statistics=study.statistics,
            seed=study.seed,
            batching=study.batching,
        )

    table = study.table("deviation.csv", "deviation", make)
    figures = [
        Figure(
            f"deviation-{metric}",
            plots.deviation_by_layer(table, metric, study.fraction, domains=study.domains),
            "deviation",
            {"modules": " and ".join(study.selections)},
        )
        for metric in ("relative_l2", "cosine_distance")
    ]
    return Section(
        "Hidden states",
        f"How far silencing moves the residual stream, on {per_domain} questions per domain.",
        figures,
    )


def stability_section(
    study: DomainStudy, parts: Sequence[Sequence[NeuronStatistics]], group: str, quantile: float
) -> Section:
    """MM-10: how much the sets owe to the amount of data."""

    def make() -> pd.DataFrame:
        return pd.concat(
            stability.stability(
                parts,
                study.domains,
                module=module,
                group=group if module == LANGUAGE else None,
                fraction=study.fraction,
                quantile=quantile,
            )
            for module in study.selections
        )

    return sections.stability_section(
        study,
        list(study.selections),
        study.domains,
        make,
        "The paper's published code selects on the first 35 to 58 pictures of each domain. What would "
        "another budget have given?",
    )


def language_sets(study: DomainStudy) -> dict[str, NeuronSet]:
    """Domain -> its neurons of the decoder; empty sets where that module is not analysed."""
    if LANGUAGE in study.sets:
        return study.sets[LANGUAGE]
    info = study.model.module(LANGUAGE)
    return {d: NeuronSet((), LANGUAGE, (info.layers, info.width)) for d in study.domains}


def cards_section(study: DomainStudy, per_set: int) -> Section:
    """A page of neuron cards for each module."""
    return sections.cards_section(
        study,
        per_set,
        study.sets,
        title="Domain neurons of {page}",
        probabilities=study.probabilities,
    )
