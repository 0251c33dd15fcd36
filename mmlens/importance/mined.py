"""What modality-specific neurons are selected from: importance, and activation statistics beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor

from mmlens.hook_names import LANGUAGE
from mmlens.importance.scores import ImportanceScores
from mmlens.neurons import ALL, NeuronSet
from mmlens.selection.controls import root_mean_square
from mmlens.selection.recipe import Recipe
from mmlens.selection.strategies import Strategy, select_neurons
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.tokens.token_sets import MEDIA_GROUPS, split_groups


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

    def sets(self, recipe: Recipe, seed: int = 0) -> dict[str, NeuronSet]:
        """The neurons that a recipe selects, by modality.

        Raises:
            StatisticsError: as :func:`mmlens.selection.select_neurons`.
        """
        groups = self.groups(recipe.split, recipe.mined)
        datasets = None if recipe.mined == ALL else [recipe.mined]
        return select_neurons(
            self.scores.combine(recipe.weights, groups, datasets),
            groups,
            recipe.ratio,
            cast(Strategy, recipe.strategy),
            seed=seed,
            model_hash=self.weight_hash,
        )

    def measures(self) -> dict[str, dict[str, Float[Tensor, "layer neuron"]]]:
        """Modality -> module -> root mean square of the activation at its tokens; ``all``: at all tokens."""
        one = self.statistics.modules[LANGUAGE]
        groups = self.statistics.groups[LANGUAGE]
        found = {
            group: {
                LANGUAGE: root_mean_square(one.squares[:, g].sum(0), int(one.tokens[:, g].sum()))
            }
            for g, group in enumerate(groups)
        }
        return {**found, ALL: found["prompt"]}
