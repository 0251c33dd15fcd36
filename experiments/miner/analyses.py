"""What MINER's account rests on beside the masks: one function per analysis, one section each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from experiments.miner.config import Config
from experiments.miner.masks import KINDS, Planner, methods_sets
from experiments.shared.sections import cards_section, lens_section, overlap_section
from experiments.shared.study import Study
from mmlens import plots
from mmlens.ablation.effects import method_differences
from mmlens.ablation.masks import MASK, Mask
from mmlens.ablation.questions import Questions
from mmlens.data.samples import Sample
from mmlens.hook_names import LANGUAGE
from mmlens.importance import SCORES, ImportanceScores, convergence
from mmlens.importance.correlation import correlate_scores
from mmlens.importance.mined import Mined
from mmlens.neurons import ALL, NeuronSet, union
from mmlens.report.sections import Figure, Part, Section, Text
from mmlens.report.states import state_sections
from mmlens.selection.methods import ENTROPY, IMPORTANCE
from mmlens.selection.overlap import cross_table
from mmlens.separation import separation_section
from mmlens.states.conditions import mask_conditions
from mmlens.states.study import StateStudy, study_states
from mmlens.states.tables import contributions, metric_table, scatter_table
from mmlens.streaming.distributed import rank_and_world
from mmlens.tokens.token_sets import SLOTS

#: Questions per data set whose tokens are counted for stage 1.
SEPARATED = 50
#: Random relabellings behind every baseline of token states.
PERMUTATIONS = 50


@dataclass(frozen=True, eq=False)
class ModalityStudy(Study):
    """What all analyses work on.

    Attributes:
        config: the settings.
        mined: what neurons were selected from.
        sets: modality -> its neurons.
        masks: every mask, by what it is for.
        questions: what was asked, by data set.
    """

    config: Config
    mined: Mined
    sets: Mapping[str, NeuronSet]
    masks: Planner
    questions: Questions

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that neurons were selected for, in their order."""
        return tuple(self.sets)

    def masking(self, purpose: str) -> pd.DataFrame:
        """The masking table of one purpose."""
        table = pd.read_csv(self.run.path("masking.csv"), keep_default_na=False, na_values=[""])
        return table.loc[table["purpose"] == purpose]


def sections(
    study: ModalityStudy,
    parts: Sequence[Sequence[ImportanceScores]],
    answers: pd.DataFrame,
) -> list[Section]:
    """Every analysis that was asked for, in the order of the report."""
    config = study.config
    found: list[Section | None] = [
        masks_section(study),
        methods_section(study, answers) if config.comparison else None,
        separated(study),
        importance_section(study, parts),
        neurons_section(study),
        *(states_sections(study) if config.states_samples else ()),
    ]
    if config.lens_samples:
        shown = (config.lens_samples, config.lens_pictures)
        found.append(lens_section(study, *shown, sets=study.sets, whose="MMNeuron's"))
    # Cards are gathered by all processes together, but the others have finished.
    if config.cards and rank_and_world()[1] == 1:
        found.append(
            cards_section(
                study,
                config.cards,
                {LANGUAGE: study.sets},
                title="Modality-specific neurons of {page}",
                groups=study.modalities,
                keys=study.modalities,
            )
        )
    return [section for section in found if section is not None]


def separated(study: ModalityStudy) -> Section:
    """MI-1 and MI-8: which tokens are in which group, and what the split types make of them."""
    shown = study.some(SEPARATED)
    return separation_section(study.model, shown, batching=replace(study.batching, progress=False))


def importance_section(
    study: ModalityStudy, parts: Sequence[Sequence[ImportanceScores]]
) -> Section:
    """MI-2 and MI-3: the maps, how alike the scores are, how many samples they need."""
    scores = study.mined.scores
    groups = [group for group in SLOTS if group in study.mined.present()]
    places = [scores.groups.index(group) for group in groups]
    matrix = scores.matrix()[:, places].float()
    chosen = [groups.index(group) for group in study.modalities]
    correlations = study.table(
        "score-correlations.csv",
        "correlations",
        lambda: correlate_scores(matrix, scores.scores, groups),
    )
    found: list[Part] = [
        Figure(
            "importance",
            plots.importance_maps(matrix[:, chosen], scores.scores, list(study.modalities)),
            "importance_maps",
        ),
        Figure(
            "score-correlations",
            plots.score_correlations(correlations, scores=SCORES, groups=groups),
            "score_correlations",
        ),
    ]
    if len(parts) > 1:
        config = study.config
        options = {"weights": config.weights, "ratio": config.ratio, "strategy": config.strategy}
        table = study.table(
            "convergence.csv",
            "convergence",
            lambda: convergence(parts, study.modalities, **options),
        )
        if not table.empty:
            drawn = plots.convergence_curves(table, modalities=study.modalities)
            found.append(Figure("convergence", drawn, "convergence"))
    mode = "the model's own" if scores.attention_mode == "causal" else "the official code's"
    text = (
        f"Five scores of every neuron for every token set, each min-max normalised per sample and layer "
        f"and averaged over {int(scores.samples.amax(1).sum()):,} samples. Attention is {mode}."
    )
    return Section("Importance scores", text, found)


def neurons_section(study: ModalityStudy) -> Section:
    """MI-4: where the selected neurons lie, and how the modalities share them."""
    layers = study.model.module(LANGUAGE).layers
    by_layer = plots.selected_by_layer(study.sets, layers, modalities=study.modalities)
    why = (
        "A neuron may be among the most important of several modalities, so sets overlap."
        if study.config.strategy != "adaptive"
        else "Every neuron goes to one modality."
    )
    overlaps = overlap_section(
        study,
        {LANGUAGE: study.sets},
        study.modalities,
        why,
        ("modality_subsets", "modality_overlap"),
    )
    figure = Figure("selected", by_layer, "selected_by_layer")
    return Section("Modality-specific neurons", why, [figure, *overlaps.parts])


def masks_section(study: ModalityStudy) -> Section:
    """MI-5 to MI-8: what masking costs, however the neurons are found and whatever is done."""
    names, datasets = [*study.modalities, *study.config.unions, ALL], [*study.domains, ALL]
    against = {"control": "matched"}
    main = study.masking("main")
    parts: list[Part] = []

    def add(name: str, drawn: go.Figure, caption: str, **words: object) -> None:
        parts.append(Figure(name, drawn, caption, {**against, **words}))

    for control in KINDS:
        drawn = plots.masking_effects(main, control, modalities=names, evaluated=datasets)
        add(f"masking-{control}", drawn, "masking_effects", control=control)
    if not (table := study.masking("treatments")).empty:
        drawn = plots.treatments_figure(plots.choose(table, evaluated=ALL), modalities=names)
        add("treatments", drawn, "treatments")
    if not (table := study.masking("ratios")).empty:
        drawn = plots.ratio_curves(plots.choose(table, evaluated=ALL), modalities=[ALL])
        add("ratios", drawn, "ratio_curves")
    if not (table := study.masking("grid")).empty:
        drawn = plots.masking_grid(
            plots.choose(table, evaluated=ALL),
            modalities=[ALL],
            strategies=list(dict.fromkeys(table["strategy"])),
            weights=list(dict.fromkeys(table["weights"])),
        )
        add("grid", drawn, "masking_grid", cells=int((table.evaluated == ALL).sum()))
    if not (table := study.masking("mining")).empty:
        drawn = plots.mining_matrix(table, modalities=[ALL], data_sets=datasets)
        add("mining", drawn, "mining_matrix", cells=len(table))
    if not (table := study.masking("splits")).empty:
        drawn = plots.split_types_figure(plots.choose(table, evaluated=ALL))
        add("splits", drawn, "split_types")
    text = "Comparisons are asked fewer questions than the verdicts above, as their figures say."
    parts += [Text(f"Left out: {why}", "missing") for why in study.masks.left_out]
    return Section("Masking, every way", text, parts)


def methods_section(study: ModalityStudy, answers: pd.DataFrame) -> Section | None:
    """Entropy against importance at equal budget: what each finds that the other does not (ours)."""
    table = study.masking("methods")
    if table.empty:
        return None
    whole = table.loc[table["modality"] == ALL].assign(method=lambda t: t.strategy)
    single = table.loc[table["modality"] != ALL].assign(
        method=lambda t: t.modality + ", " + t.strategy.astype(str)
    )
    entropy, importance = methods_sets(study.config, study.mined, study.sets)
    shared = cross_table(
        {f"{m} ({ENTROPY})": s for m, s in entropy.items()},
        {f"{m} ({IMPORTANCE})": s for m, s in importance.items()},
    )
    study.run.write_csv("methods-overlap.csv", shared)
    pairs = method_pairs(study.masks.plan.masks["methods"])
    datasets = {d: study.questions.own.get(d, ()) for d in study.domains}
    clusters = study.questions.clusters("source")
    differences = method_differences(answers, pairs, datasets, clusters)
    study.run.write_csv("methods-differences.csv", differences)
    matched = {"control": "matched random"}
    drawn = plots.methods_comparison(whole)
    found: list[Part] = [Figure("methods", drawn, "methods_comparison", matched)]
    if not single.empty:
        by_modality = plots.methods_comparison(single.loc[single["evaluated"] == ALL])
        found.append(Figure("methods-modalities", by_modality, "methods_comparison", matched))
    if not differences.empty:
        pairwise = plots.method_pairs(differences)
        found.append(Figure("methods-pairs", pairwise, "method_pairs"))
    found.append(Figure("methods-overlap", plots.method_overlap(shared), "method_overlap"))
    budget = {m: len(one) for m, one in importance.items()}
    all_entropy, all_importance = (union(list(s.values())) for s in (entropy, importance))
    text = (
        "Both methods are given the same token sets and as many neurons of each: "
        f"{', '.join(f'{n} {m}' for m, n in budget.items())}. Together they are "
        f"{len(all_entropy)} distinct neurons by entropy and {len(all_importance)} by importance, of which "
        f"{len(all_entropy & all_importance)} are the same. The comparison is ours."
    )
    return Section("Entropy against importance", text, found)


def method_pairs(drawn: Sequence[Mask]) -> list[tuple[str, str, str, str]]:
    """(label, condition, label, condition) of entropy's and importance's mask of each modality."""
    masks = {(one.label, one.recipe.strategy): one.name for one in drawn if one.kind == MASK}
    pairs = []
    for (modality, method), name in masks.items():
        if method == ENTROPY and (modality, IMPORTANCE) in masks:
            other = masks[modality, IMPORTANCE]
            pairs.append((f"{modality}, {ENTROPY}", name, f"{modality}, {IMPORTANCE}", other))
    return pairs


def states_sections(study: ModalityStudy) -> list[Section]:
    """MI-9 to MI-11: how the groups' states lie, and what the last token takes, under masks."""
    config, everything = study.config, union(list(study.sets.values()))

    def states(stage: str, shown: Sequence[Sample], **options: Any) -> StateStudy:
        return study_states(
            study.model,
            shown,
            mask_conditions(shown, [everything], seed=config.seed),
            study.run.path(stage),
            seed=config.seed,
            batching=study.batching,
            **options,
        )

    with study.run.stage("states"):
        shown = study.some(config.states_samples)
        found = states("states", shown, permutations=PERMUTATIONS, contributions=False)
        metrics = study.table("states.csv", "states-metrics", lambda: metric_table(found))
        last = study.model.cfg.n_layers - 1
        layers = sorted({0, last // 2, last})
        scatter = study.table(
            "states-scatter.csv", "states-scatter", lambda: scatter_table(found, layers)
        )
    shares = None
    if config.contribution_samples:
        with study.run.stage("contributions"):
            each = -(-config.contribution_samples // len(study.domains))
            shown = study.some(each)[: config.contribution_samples]
            # Of all layers; what else the study keeps of their states is not looked at.
            least = {"permutations": 1, "group_tokens": 2, "pooled_tokens": 1}
            taken = states("contributions", shown, **least)
            shares = study.table(
                "contributions.csv", "contributions-table", lambda: contributions(taken)
            )
    return state_sections(metrics, shares, scatter)
