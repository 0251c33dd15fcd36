"""Every mask of MINER's experiment: how its neurons are selected, what is done to them, who is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import mmlens
from experiments.miner.config import Config
from mmlens.ablation.conditions import ids_with
from mmlens.ablation.masks import Mask, Treatment, modality_masks, with_controls
from mmlens.ablation.plan import MaskPlan
from mmlens.ablation.questions import Questions
from mmlens.data.samples import take_per_value
from mmlens.errors import MMLensError, StatisticsError
from mmlens.hook_names import LANGUAGE
from mmlens.importance.mined import Mined
from mmlens.neurons import ALL, NeuronSet, union
from mmlens.selection.methods import (
    ENTROPY,
    IMPORTANCE,
    entropy_ranked,
    most_important,
    parts_of_both,
)
from mmlens.selection.recipe import Recipe
from mmlens.tokens.token_sets import SPLIT_TYPES

#: Controls of the main masks, in the order of their rows.
KINDS = ("matched", "random")
#: Matched controls of a comparison's masks.
FEW_SEEDS = 2


@dataclass(eq=False)
class Planner:
    """Adds masks to a plan, each with its controls.

    Attributes:
        config: the settings.
        mined: what neurons are selected from.
        main: the recipe of the main masks.
        sets: modality -> the neurons of the main masks.
        plan: what has been planned.
        left_out: comparisons that could not be made, and why.
    """

    config: Config
    mined: Mined
    main: Recipe
    sets: Mapping[str, NeuronSet]
    plan: MaskPlan = field(default_factory=MaskPlan)
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._avoid = union(list(self.sets.values()))
        measures = self.mined.measures()
        self._measures = measures | dict.fromkeys(self.config.unions, measures["prompt"])

    def add(
        self,
        purpose: str,
        masks: Sequence[Mask],
        ids: frozenset[str],
        seeds: int = FEW_SEEDS,
        kinds: Sequence[str] = ("matched",),
    ) -> None:
        """Masks for a purpose, asked these questions."""
        drawn = with_controls(masks, [self._avoid], self._measures, seeds, kinds)
        self.plan.add(purpose, drawn, ids)

    def compare(
        self,
        purpose: str,
        ids: frozenset[str],
        *,
        seeds: int = FEW_SEEDS,
        singly: bool = False,
        **changes: str | float,
    ) -> None:
        """Masks of the main recipe but for some changes."""
        recipe = replace(self.main, **changes)
        try:
            sets = self.mined.sets(recipe, self.config.seed)
        except StatisticsError as error:  # too small a share for this strategy, say
            said = f"{recipe.strategy}, {recipe.weights}, {recipe.ratio:.2%}: {error}"
            self.left_out.append(said)
            return
        alone = singly and len(sets) > 1  # one modality alone is all of them
        self.add(purpose, modality_masks(sets, recipe, singly=alone), ids, seeds)


def planned_masks(
    config: Config, model: mmlens.HookedMLLM, mined: Mined, questions: Questions
) -> Planner:
    """All masks that were asked for.

    Raises:
        MMLensError: a union of modalities that have no neurons.
        StatisticsError: a ratio that selects nothing, or leaves too few neurons for controls.
    """
    main = Recipe(ALL, config.strategy, config.weights, config.ratio, config.split)
    sets = mined.sets(main, config.seed)
    every = frozenset(s.id for s in questions.samples)
    some = take_per_value(questions.samples, "domain", config.questions_few, seed=config.seed)
    few = frozenset(s.id for s in some)
    joined = unions(config.unions, sets, main)
    masks = Planner(config, mined, main, sets)
    masks.add("main", modality_masks(sets, main) + joined, every, config.seeds, KINDS)
    for treatment in get_args(Treatment) if config.treatments else ():
        for mask in modality_masks(sets, main, treatment=treatment):
            # All treatments of a modality are asked the same: questions that have it.
            if ids := few & ids_with(model, questions.samples, mask.label):
                masks.add("treatments", [mask], ids)
    for strategy in config.strategies:
        for weights in config.all_weights:
            masks.compare("grid", few, seeds=1, strategy=strategy, weights=weights)
    for ratio in config.ratios:
        masks.compare("ratios", few, ratio=ratio)
    for dataset in (*questions.own, ALL) if config.mining else ():
        masks.compare("mining", few, mined=dataset)
    for split in SPLIT_TYPES if config.mining else ():
        masks.compare("splits", few, singly=True, split=split)
    if config.comparison:
        masks.add("methods", methods_masks(config, mined, sets, main), every)
    return masks


def unions(asked: Sequence[str], sets: Mapping[str, NeuronSet], main: Recipe) -> list[Mask]:
    """A mask for each union of modalities, named ``a+b``.

    Raises:
        MMLensError: it names a modality without neurons, or one alone.
    """
    masks = []
    for one in asked:
        names = one.split("+")
        if len(names) < 2 or set(names) - set(sets):
            raise MMLensError(
                f"A union joins modalities with +, such as {'+'.join(list(sets)[:2])}; {one!r} was given, and "
                f"there are {', '.join(sets)}."
            )
        masks.append(Mask(one, (union([sets[name] for name in names]),), main))
    return masks


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


def methods_masks(
    config: Config, mined: Mined, sets: Mapping[str, NeuronSet], main: Recipe
) -> list[Mask]:
    """Masks of both methods, of each modality and of all together, and of what one alone finds."""
    if len(mined.groups(config.split)) < 2:
        return []
    entropy, importance = methods_sets(config, mined, sets)
    both = {ENTROPY: entropy, IMPORTANCE: importance}
    masks = []
    for method, found in both.items():
        masks += modality_masks(found, replace(main, strategy=method), together=False)
    parts = parts_of_both(*(union(list(found.values())) for found in both.values()))
    return masks + [
        Mask(ALL, (neurons,), replace(main, strategy=part)) for part, neurons in parts.items()
    ]
