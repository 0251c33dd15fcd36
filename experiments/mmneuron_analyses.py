"""What MMNeuron's account rests on beside accuracies: one function per analysis, one section each.

Every function reads its table from the run folder where an earlier start has left it, and returns
the section of the report that shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

import mmlens
from mmlens import overlap, plots, stability
from mmlens.cards import neuron_cards
from mmlens.deactivation import Mask, Questions, effects_table, masks_and_controls, study_settings
from mmlens.deviation import deviation
from mmlens.entropy import Selection
from mmlens.errors import StatisticsError, UnsupportedModelError
from mmlens.evaluate import evaluate
from mmlens.lens import logit_lens
from mmlens.lens_study import LensStudy, study_lens
from mmlens.names import LANGUAGE
from mmlens.reporting.sections import Figure, Section, Table
from mmlens.run import Run
from mmlens.samples import Sample, take_per_value
from mmlens.stages import Stages, find_stages
from mmlens.statistics import NeuronStatistics

#: Training samples per domain that neurons are shown for their cards.
CARD_SAMPLES = 100
Selections = Mapping[str, Selection]
Probabilities = Mapping[str, Float[Tensor, "layer neuron domain"]]


@dataclass(frozen=True, eq=False)
class Study:
    """What all analyses work on.

    Attributes:
        run: the run folder.
        model: the model.
        domains: in their order.
        selections: module -> what was selected, at the fraction that is silenced.
        probabilities: module -> activation probabilities.
        train: the samples that neurons were found on.
        questions: the questions that were asked.
        seed: of draws.
        options: template, token_budget, max_batch, max_failures.
        answering: further options of :func:`mmlens.evaluate.evaluate`: metric_name, max_new_tokens, ...
    """

    run: Run
    model: mmlens.HookedMLLM
    domains: Sequence[str]
    selections: Selections
    probabilities: Probabilities
    train: Sequence[Sample]
    questions: Questions
    seed: int
    options: Mapping[str, Any]
    answering: Mapping[str, Any]

    @property
    def fraction(self) -> float:
        """The share of each module's neurons that was selected."""
        return next(iter(self.selections.values())).fraction

    def asked(self, per_domain: int) -> list[Sample]:
        """Some of the questions, at most so many per domain."""
        return take_per_value(self.questions.samples, "domain", per_domain, seed=self.seed)

    def table(self, name: str, stage: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table of the run folder: read where it is finished, made and written otherwise."""
        if not self.run.finished(stage):
            with self.run.stage(stage):
                self.run.write_csv(name, make())
        return pd.read_csv(self.run.path(name), keep_default_na=False, na_values=[""])


def sets_section(study: Study) -> Section:
    """MM-3: how many neurons carry which labels, and how far the sets overlap."""
    parts: list[Figure | Table] = []
    for module, selection in study.selections.items():
        labels = overlap.multiplicity_table(selection.sets)
        combinations = overlap.combinations_table(selection.sets)
        study.run.write_csv(f"overlap-{module}.csv", overlap.overlap_table(selection.sets))
        if combinations.empty:
            continue
        words = {"module": module}
        upset = plots.upset(combinations, domains=study.domains)
        parts.append(Figure(f"sets-{module}", upset, "combinations", words))
        heat = plots.overlap_heatmap(overlap.overlap_table(selection.sets), domains=study.domains)
        parts.append(Figure(f"overlap-{module}", heat, "overlap", words))
        parts.append(Table(f"Labels per neuron, module {module}", labels))
    return Section(
        "Overlap of the sets",
        "A neuron carries the label of every domain in which it is active often enough, so sets overlap.",
        parts,
    )


def combinations_of(modules: Sequence[str]) -> list[tuple[str, ...]]:
    """Each module alone, and the parts before the language model together (methods 2.6)."""
    others = tuple(module for module in modules if module != LANGUAGE)
    found: list[tuple[str, ...]] = [(module,) for module in modules] if len(modules) > 1 else []
    if {"qformer", "query"} <= set(modules):
        found.append(
            ("qformer", "query")
        )  # one stack of layers, masked together in the paper's code
    if 1 < len(others) < len(modules):
        found.append(others)
    return found


def modules_section(study: Study, per_domain: int, seeds: int) -> Section | None:
    """MM-5: what each combination of modules costs on its own domain, beyond the matched control."""
    combinations = combinations_of(list(study.selections))
    if not combinations:
        return None
    names = ["+".join(one) for one in combinations]

    def make() -> pd.DataFrame:
        asked = Questions.choose(study.questions.samples, study.domains, per_domain, 0, study.seed)
        source = "source" if all("source" in s.fields for s in asked.samples) else None
        tables = []
        for name, modules in zip(names, combinations, strict=True):
            chosen = {module: study.selections[module] for module in modules}
            masks = [
                mask
                for mask in masks_and_controls(chosen, study.probabilities, study.domains, seeds)
                if mask.mask in study.domains and mask.kind in ("mask", "matched")
            ]
            found = evaluate(
                study.model,
                asked.samples,
                study_settings(masks, asked, full=False),
                answers=study.run.path(f"answers-{name}.jsonl"),
                **study.options,
                **study.answering,
            )
            table = effects_table(found.frame, masks, asked, full=False, cluster=source)
            tables.append(table.assign(modules=name))
        return pd.concat(tables)

    effects = study.table("effects-modules.csv", "modules", make)
    figure = plots.effects_by_modules(effects, names, domains=study.domains)
    words = {"cells": len(effects), "seeds": seeds}
    return Section(
        "Module by module",
        "All modules together are above; here each is silenced alone.",
        [Figure("modules", figure, "modules", words)],
    )


def deviation_section(study: Study, masks: Sequence[Mask], per_domain: int) -> Section:
    """MM-6: how far silencing moves the hidden states, whatever it does to the answers."""
    chosen = [mask for mask in masks if mask.fraction == study.fraction and mask.seed < 2]

    def make() -> pd.DataFrame:
        return deviation(study.model, study.asked(per_domain), chosen, **study.options)

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
    study: Study, parts: Sequence[Sequence[NeuronStatistics]], group: str, quantile: float
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

    table = study.table("stability.csv", "stability", make)
    figures = [
        Figure(
            f"stability-{module}",
            plots.stability_curves(table, module, domains=study.domains),
            "stability",
            {"module": module},
        )
        for module in study.selections
    ]
    return Section(
        "Stability against the amount of data",
        "The paper's published code selects on the first 35 to 58 pictures of each domain. What would "
        "another budget have given?",
        figures,
    )


def lens_section(study: Study, neurons: pd.DataFrame, per_domain: int, pictures: int) -> Section:
    """MM-7 to MM-9: entropy per layer, the answer per layer, the stages, the lens over pictures."""
    path = study.run.path("lens.jsonl")
    with study.run.stage("lens") as stage:
        found = study_lens(study.model, study.asked(per_domain), rows=path, **study.options)
        stage.tokens += found.tokens
    study.run.write_csv("lens.csv", found.frame)
    media = [g for g in ("image", "video", "audio") if (found.frame.group == g).any()]
    figure = plots.entropy_by_layer(found.frame, [*media, "text"], domains=study.domains)
    parts: list[Figure | Table] = [Figure("lens-entropy", figure, "lens_entropy")]
    if found.frame.answer_p.notna().any():
        answers = plots.answer_by_layer(found.frame, domains=study.domains)
        parts.append(Figure("lens-answer", answers, "lens_answer"))
    text = []
    if media and (stages := stages_of(found, media[0])) is not None:
        per_layer = domain_neurons_by_layer(neurons, study)
        drawn = plots.stages_figure(stages, per_layer, group=media[0])
        parts.append(Figure("stages", drawn, "stages", {"modules": LANGUAGE}))
        text.append(stages_sentence(stages, media[0]))
    for sample in take_per_value(study.asked(per_domain), "domain", pictures, seed=study.seed):
        if (picture := lens_picture(study.model, sample, study.options["template"])) is not None:
            words = {"sample": sample.id, "answer": ", ".join(sample.answers[:1])}
            parts.append(Figure(f"lens-{len(parts)}", picture, "lens_picture", words))
    return Section("The logit lens", " ".join(text), parts)


def lens_picture(model: mmlens.HookedMLLM, sample: Sample, template: Any) -> go.Figure | None:
    """The lens over the first medium of a sample; None where there is none, or no places are known."""
    if not (sample.images or sample.videos or sample.audios):
        return None
    result = logit_lens(model, model.prepare(sample, template=template))
    try:
        return result.plot_picture(model)
    except UnsupportedModelError:
        return None


def stages_of(found: LensStudy, group: str) -> Stages | None:
    """The bends of the mean curve; None where the decoder has too few layers for them."""
    try:
        return find_stages(found.curves(group))
    except StatisticsError:
        return None


def stages_sentence(stages: Stages, group: str) -> str:
    """What the rule finds, in words."""
    found = "It does" if stages.three_stages else "It does not"
    pieces = "; ".join(
        f"layers {one.first} to {one.last}: {one.direction}, {one.slope:+.2f} nats per layer"
        for one in stages.stages
    )
    return (
        f"Does the entropy of {group} tokens fall in the middle layers and rise in the last, as the "
        f"paper's three stages would have it? {found} here ({pieces})."
    )


def domain_neurons_by_layer(neurons: pd.DataFrame, study: Study) -> dict[str, list[int]]:
    """Domain -> neurons with its label in each layer of the decoder."""
    layers = study.model.module(LANGUAGE).layers
    # A neuron stands under the smallest fraction that selects it.
    rows = neurons[(neurons.module == LANGUAGE) & (neurons.fraction <= study.fraction)]
    found = {domain: [0] * layers for domain in study.domains}
    for layer, labels in zip(rows.layer, rows.domains, strict=True):
        for domain in str(labels).split(";"):
            if domain in found:
                found[domain][int(layer)] += 1
    return found


def cards_section(study: Study, per_set: int) -> Section:
    """A page of neuron cards for each module."""
    links = {}
    shown = take_per_value(study.train, "domain", CARD_SAMPLES, seed=study.seed)
    with study.run.stage("cards"):
        for module, selection in study.selections.items():
            page = f"cards-{module}.html"
            if not selection.union:
                continue
            if not study.run.path(page).exists():
                neuron_cards(
                    study.model,
                    shown,
                    selection.sets,
                    study.run.path(page),
                    probabilities=study.probabilities[module],
                    keys=study.domains,
                    per_set=per_set,
                    title=f"Domain neurons of {module}",
                    **study.options,
                )
            links[f"Cards of {module} neurons"] = page
    return Section(
        "Neurons, one by one",
        f"What activates each neuron most among up to {CARD_SAMPLES} training samples per domain, in place, "
        "and which tokens it promotes: a page per module.",
        (),
        links,
    )
