"""Every mask of MINER's experiment: how its neurons are found, what is done to them, who is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
from jaxtyping import Float
from torch import Tensor

import mmlens
from experiments.miner.config import Config
from mmlens.ablation.conditions import Setting, ids_with
from mmlens.ablation.masking import (
    Asked,
    Cell,
    Found,
    Treatment,
    masking_table,
    masks_of,
    root_mean_square,
    with_controls,
)
from mmlens.ablation.masks import ALL, NONE
from mmlens.data.samples import take_per_value
from mmlens.errors import MMLensError, StatisticsError
from mmlens.hook_names import LANGUAGE
from mmlens.importance import ImportanceScores
from mmlens.neurons import NeuronSet
from mmlens.selection.methods import (
    ENTROPY,
    IMPORTANCE,
    entropy_ranked,
    most_important,
    parts_of_both,
)
from mmlens.selection.strategies import Strategy, select_neurons, union
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.tokens.token_sets import MEDIA_GROUPS, SPLIT_TYPES, split_groups

#: Matched controls of a comparison's masks.
FEW_SEEDS = 2


@dataclass(frozen=True, eq=False)
class Mined:
    """What neurons are selected from.

    Attributes:
        scores: importance of every split's groups.
        statistics: activation statistics of the same groups, on the same samples.
        weight_hash: fingerprint of the model.
    """

    scores: ImportanceScores
    statistics: NeuronStatistics
    weight_hash: str

    @property
    def media(self) -> tuple[str, ...]:
        """The media that occur."""
        return tuple(g for g in MEDIA_GROUPS if g in self.scores.groups and g in self.present())

    def present(self, dataset: str = ALL) -> tuple[str, ...]:
        """The groups that occur in a data set, or in any."""
        return self.scores.present(None if dataset == ALL else [dataset])

    def groups(self, split: str, dataset: str = ALL) -> tuple[str, ...]:
        """The token sets of a split that occur in a data set, or in any."""
        present = self.present(dataset)
        return tuple(g for g in split_groups(split, self.media) if g in present)

    def sets(self, found: Found, seed: int = 0) -> dict[str, NeuronSet]:
        """The neurons that are found in this way, by modality."""
        groups = self.groups(found.split, found.mined)
        datasets = None if found.mined == ALL else [found.mined]
        combined = self.scores.combine(found.weights, groups, datasets)
        strategy: Strategy = found.strategy  # type: ignore[assignment]
        return select_neurons(
            combined, groups, found.ratio, strategy, seed=seed, model_hash=self.weight_hash
        )

    def measures(self) -> dict[str, Float[Tensor, "layer neuron"]]:
        """Modality -> root mean square of the activation at its tokens; ``all``: at all tokens."""
        one = self.statistics.modules[LANGUAGE]
        groups = self.statistics.groups[LANGUAGE]
        found = {
            group: root_mean_square(one.squares[:, g].sum(0), int(one.tokens[:, g].sum()))
            for g, group in enumerate(groups)
        }
        return {**found, ALL: found["prompt"]}


@dataclass(eq=False)
class Masks:
    """The masks and controls of a run, by what they are for, and the questions of each.

    A mask may serve several purposes, each with questions and controls of its own; it is run once.

    Attributes:
        cells: purpose (``main``, ``treatments``, ``grid``, ...) -> masks and controls.
        asked: purpose -> name of a mask -> ids of its questions.
        left_out: comparisons that could not be made, and why.
    """

    cells: dict[str, list[Cell]] = field(default_factory=dict)
    asked: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, purpose: str, cells: Sequence[Cell], ids: frozenset[str]) -> None:
        """Masks for a purpose, with their controls."""
        self.cells.setdefault(purpose, []).extend(cells)
        self.asked.setdefault(purpose, {}).update({cell.mask_name: ids for cell in cells})

    def settings(self) -> list[Setting]:
        """Every mask and control once, on all questions that some purpose asks it."""
        every = {c.name: c for cells in self.cells.values() for c in cells}
        ids: dict[str, frozenset[str]] = {}
        for purpose, cells in self.cells.items():
            for cell in cells:
                wanted = self.asked[purpose][cell.mask_name]
                ids[cell.name] = ids.get(cell.name, frozenset()) | wanted
        everything = frozenset().union(*ids.values())
        return [Setting(NONE, (), everything)] + [
            Setting(name, (cell.neurons,), ids[name], cell.intervention)
            for name, cell in every.items()
        ]

    def table(self, answers: pd.DataFrame, questions: Asked, cluster: str | None) -> pd.DataFrame:
        """:func:`mmlens.ablation.masking.masking_table` of every purpose, with a column ``purpose``."""
        return pd.concat(
            masking_table(answers, cells, self.asked[purpose], questions, cluster=cluster).assign(
                purpose=purpose
            )
            for purpose, cells in self.cells.items()
        )


def plan(
    config: Config, model: mmlens.HookedMLLM, mined: Mined, questions: Asked
) -> tuple[Masks, dict[str, NeuronSet]]:
    """All masks that were asked for, and the main sets, by modality.

    Raises:
        MMLensError: a union of modalities that have no neurons.
        StatisticsError: a ratio that selects nothing, or leaves too few neurons for controls.
    """
    main = Found(ALL, config.strategy, config.weights, config.ratio, config.split)
    sets = mined.sets(main, config.seed)
    avoid, measures = union(list(sets.values())), mined.measures()
    every = frozenset(s.id for s in questions.samples)
    some = take_per_value(questions.samples, "domain", config.questions_few, seed=config.seed)
    few = frozenset(s.id for s in some)
    masks = Masks()
    cells = masks_of(sets, main) + unions(config.unions, sets, main)
    measures |= {cell.modality: measures["prompt"] for cell in cells if "+" in cell.modality}
    masks.add("main", with_controls(cells, avoid, measures, config.seeds), every)

    def compare(purpose: str, found: Found, *, seeds: int, singly: bool = False) -> None:
        try:
            sets = mined.sets(found, config.seed)
        except (
            StatisticsError
        ) as error:  # too small a share for this strategy, say: the rest goes on
            masks.left_out.append(f"{found.strategy}, {found.weights}, {found.ratio:.2%}: {error}")
            return
        alone = singly and len(sets) > 1  # one modality alone is all of them
        cells = masks_of(sets, found, singly=alone)
        masks.add(purpose, with_controls(cells, avoid, measures, seeds, ("matched",)), few)

    if config.treatments:
        kinds: tuple[Treatment, ...] = ("zero", "layer_minimum", "keep_only", "own_tokens")
        for treatment in kinds:
            for cell in masks_of(sets, main, treatment=treatment):
                drawn = with_controls([cell], avoid, measures, FEW_SEEDS, ("matched",))
                # All treatments of a modality are asked the same: questions that have it.
                mine = ids_with(model, questions.samples, cell.modality)
                if ids := few & mine:
                    masks.add("treatments", drawn, ids)
    for strategy in config.strategies:
        for weights in config.all_weights:
            compare("grid", replace(main, strategy=strategy, weights=weights), seeds=1)
    for ratio in config.ratios:
        compare("ratios", replace(main, ratio=ratio), seeds=FEW_SEEDS)
    for dataset in (*questions.datasets, ALL) if config.mining else ():
        compare("mining", replace(main, mined=dataset), seeds=FEW_SEEDS)
    for split in SPLIT_TYPES if config.mining else ():
        compare("splits", replace(main, split=split), seeds=FEW_SEEDS, singly=True)
    if config.comparison:
        cells = methods_cells(config, mined, sets, main)
        drawn = with_controls(cells, avoid, measures, FEW_SEEDS, ("matched",))
        masks.add("methods", drawn, every)
    return masks, sets


def unions(asked: Sequence[str], sets: Mapping[str, NeuronSet], main: Found) -> list[Cell]:
    """A mask for each union of modalities, named ``a+b``.

    Raises:
        MMLensError: it names a modality without neurons, or one alone.
    """
    cells = []
    for one in asked:
        names = one.split("+")
        if len(names) < 2 or set(names) - set(sets):
            raise MMLensError(
                f"A union joins modalities with +, such as {'+'.join(list(sets)[:2])}; {one!r} was given, and "
                f"there are {', '.join(sets)}."
            )
        cells.append(Cell(main, one, union([sets[name] for name in names])))
    return cells


def methods_sets(
    config: Config, mined: Mined, sets: Mapping[str, NeuronSet]
) -> tuple[dict[str, NeuronSet], dict[str, NeuronSet]]:
    """(by entropy, by importance): as many neurons of each modality by both methods."""
    groups = mined.groups(config.split)
    one, names = mined.statistics.modules[LANGUAGE], mined.statistics.groups[LANGUAGE]
    places = [names.index(group) for group in groups]
    positive = one.positive[:, places].sum(0).permute(1, 2, 0)
    tokens = one.tokens[:, places].sum(0)
    budget = max(1, min(len(s) for s in sets.values() if len(s)))
    entropy = entropy_ranked(positive, tokens, groups, budget, model_hash=mined.weight_hash)
    budgets = {group: len(one) for group, one in entropy.items()}
    combined = mined.scores.combine(config.weights, groups)
    importance = most_important(combined, groups, budgets, model_hash=mined.weight_hash)
    return entropy, importance


def methods_cells(
    config: Config, mined: Mined, sets: Mapping[str, NeuronSet], main: Found
) -> list[Cell]:
    """Masks of both methods, of each modality and of all together, and of what one alone finds."""
    if len(mined.groups(config.split)) < 2:
        return []
    entropy, importance = methods_sets(config, mined, sets)
    both = {ENTROPY: entropy, IMPORTANCE: importance}
    cells = []
    for method, found in both.items():
        cells += masks_of(found, replace(main, strategy=method), together=False)
    parts = parts_of_both(*(union(list(found.values())) for found in both.values()))
    return cells + [
        Cell(replace(main, strategy=part), ALL, neurons) for part, neurons in parts.items()
    ]
