"""Analyses that serve any experiment with neuron sets: one function each, one section of the report.

Every function leaves its table in the run folder, or reads it where an earlier start has left it.
What the sets stand for (domains, modalities, ...) is the caller's: sets come by page and label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

import mmlens
from experiments.shared.study import Study
from mmlens import plots
from mmlens.cards.neuron_cards import neuron_cards
from mmlens.data.samples import Sample, take_per_value
from mmlens.errors import StatisticsError, UnsupportedModelError
from mmlens.hook_names import LANGUAGE
from mmlens.lens.figures.stages import stages_figure
from mmlens.lens.logit_lens import logit_lens
from mmlens.lens.stages import Stages, find_stages
from mmlens.lens.study import LensStudy, study_lens
from mmlens.neurons import NeuronSet
from mmlens.report.sections import Figure, Section, Table
from mmlens.selection import overlap

#: Samples per domain that neurons are shown for their cards.
CARD_SAMPLES = 100
#: Page (a module, or another name that goes into a file's) -> label -> neurons of one module.
SetsByPage = Mapping[str, Mapping[str, NeuronSet]]


def overlap_section(
    study: Study,
    sets: SetsByPage,
    labels: Sequence[str],
    text: str,
    captions: tuple[str, str] = ("combinations", "overlap"),
) -> Section:
    """How many neurons carry which labels, and how far the sets overlap: ``overlap-{page}.csv``.

    Args:
        study: what is analysed.
        sets: page -> label -> neurons.
        labels: their order.
        text: why sets overlap, for the reader.
        captions: keys of the two figures' captions.
    """
    parts: list[Figure | Table] = []
    for page, by_label in sets.items():
        shared = overlap.overlap_table(by_label)
        study.run.write_csv(f"overlap-{page}.csv", shared)
        combinations = overlap.combinations_table(by_label)
        if combinations.empty:
            continue
        words = {"module": page}
        upset = plots.upset(combinations, domains=labels)
        parts.append(Figure(f"sets-{page}", upset, captions[0], words))
        heat = plots.overlap_heatmap(shared, domains=labels)
        parts.append(Figure(f"overlap-{page}", heat, captions[1], words))
        counts = overlap.multiplicity_table(by_label)
        parts.append(Table(f"Labels per neuron, module {page}", counts))
    return Section("Overlap of the sets", text, parts)


def stability_section(
    study: Study,
    modules: Sequence[str],
    labels: Sequence[str],
    make: Callable[[], pd.DataFrame],
    text: str,
) -> Section:
    """How much the sets owe to the amount of data: stage and table ``stability``.

    Args:
        study: what is analysed.
        modules: a figure for each.
        labels: of the sets, in their order.
        make: the table, with the columns of :func:`mmlens.selection.stability.stability`.
        text: what is asked, for the reader.
    """
    table = study.table("stability.csv", "stability", make)
    figures = [
        Figure(
            f"stability-{module}",
            plots.stability_curves(table, module, domains=labels),
            "stability",
            {"module": module},
        )
        for module in modules
    ]
    return Section("Stability against the amount of data", text, figures)


def lens_section(
    study: Study,
    per_domain: int,
    pictures: int,
    *,
    sets: Mapping[str, NeuronSet],
    whose: str = "the paper's",
) -> Section:
    """Entropy per layer, the answer per layer, the stages over the sets, the lens over pictures.

    Stage ``lens``; rows in ``lens.jsonl``, from which a further start resumes, and ``lens.csv``.

    Args:
        study: what is analysed.
        per_domain: samples that the lens reads, of each domain.
        pictures: of them drawn over, of each domain.
        sets: label -> neurons of the language module; how many lie in each layer stands under the
            stages.
        whose: whose three stages are looked for, in the sentence about them.
    """
    shown, path = study.some(per_domain), study.run.path("lens.jsonl")
    with study.run.stage("lens") as stage:
        found = study_lens(study.model, shown, rows=path, batching=study.batching)
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
        by_layer = {label: one.mask().sum(-1).tolist() for label, one in sets.items()}
        drawn = stages_figure(stages, by_layer, group=media[0])
        parts.append(Figure("stages", drawn, "stages", {"modules": LANGUAGE}))
        text.append(stages_sentence(stages, media[0], whose))
    for sample in take_per_value(shown, "domain", pictures, seed=study.seed):
        if (picture := lens_picture(study.model, sample, study.batching.template)) is not None:
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


def stages_sentence(stages: Stages, group: str, whose: str) -> str:
    """What the rule finds, in words."""
    found = "It does" if stages.three_stages else "It does not"
    pieces = "; ".join(
        f"layers {one.first} to {one.last}: {one.direction}, {one.slope:+.2f} nats per layer"
        for one in stages.stages
    )
    return (
        f"Does the entropy of {group} tokens fall in the middle layers and rise in the last, as "
        f"{whose} three stages would have it? {found} here ({pieces})."
    )


def cards_section(
    study: Study,
    per_set: int,
    sets: SetsByPage,
    *,
    title: str,
    probabilities: Mapping[str, Float[Tensor, "layer neuron domain"]] | None = None,
    **options: Any,
) -> Section:
    """A page of neuron cards for each page of sets: stage ``cards``, ``cards-{page}.html``.

    Not under a launcher: cards are gathered by all processes together.

    Args:
        study: what is analysed.
        per_set: neurons of each set that get a card.
        sets: page -> label -> neurons; a page without neurons is left out.
        title: of a page, with ``{page}`` for its name.
        probabilities: page -> activation probabilities of its module, last axis in the order of
            ``study.domains``: those neurons come first that are most often active in the domain of
            the label's name. None, or labels that are no domains: neurons spread evenly over a set.
        options: further ones of :func:`mmlens.cards.neuron_cards.neuron_cards`: groups and keys, top_k, ...
    """
    links = {}
    shown = take_per_value(study.train, "domain", CARD_SAMPLES, seed=study.seed)
    with study.run.stage("cards"):
        for page, by_label in sets.items():
            if not any(map(len, by_label.values())):
                continue
            path = study.run.path(f"cards-{page}.html")
            links[f"Cards of {page} neurons"] = path.name
            if not path.exists():
                neuron_cards(
                    study.model,
                    shown,
                    by_label,
                    path,
                    probabilities=None if probabilities is None else probabilities[page],
                    per_set=per_set,
                    title=title.format(page=page),
                    batching=study.batching,
                    **{"keys": study.domains, **options},
                )
    return Section(
        "Neurons, one by one",
        f"What activates each neuron most among up to {CARD_SAMPLES} training samples per domain, in place, "
        "and which tokens it promotes: a page per module.",
        (),
        links,
    )
