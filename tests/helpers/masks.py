"""Masks, questions and answers made up so that every number is known; selections drawn at random."""

import numpy as np
import pandas as pd
import torch

from mmlens.ablation.masks import Mask
from mmlens.ablation.questions import Questions
from mmlens.data.samples import Sample
from mmlens.entropy import select
from mmlens.neurons import NeuronSet
from mmlens.selection.recipe import Recipe

DOMAINS = ("red", "blue")


SHAPES = {"language": (3, 60), "vision": (2, 40)}


def selected(fraction=0.05, seed=0):
    rng = np.random.default_rng(seed)
    tokens = torch.tensor([1000, 1000])
    selections, probabilities = {}, {}
    for module, shape in SHAPES.items():
        counts = torch.from_numpy(rng.binomial(1000, rng.beta(0.5, 3, size=(*shape, 2))))
        selections[module] = select(
            counts, tokens, DOMAINS, fraction=fraction, quantile=0.8, module=module
        )
        probabilities[module] = counts.double() / 1000
    return selections, probabilities


QUESTIONS = Questions(
    own={"red": ("r0", "r1", "r2", "r3"), "blue": ("b0", "b1", "b2")},
    shared={"red": ("r0", "r1"), "blue": ("b2",)},
    samples=tuple(
        Sample(
            i, "t", answers=("a",), domain={"r": "red", "b": "blue"}[i[0]], fields={"book": book}
        )
        for i, book in zip(
            ("r0", "r1", "r2", "r3", "b0", "b1", "b2"), (1, 1, 2, 2, 3, 4, 4), strict=True
        )
    ),
)


def hand_made():
    """Masks of one neuron or two, with frequencies that are easy to follow."""

    def mask(which, kind, seed, number, frequency):
        neurons = NeuronSet([(0, i) for i in range(number)], "language", (1, 9))
        return Mask(
            which, (neurons,), Recipe.of_domains(0.01), kind=kind, seed=seed, measure=frequency
        )

    return [
        mask("red", "mask", -1, 2, 0.5),
        mask("red", "random", 0, 2, 0.1),
        mask("red", "random", 1, 2, 0.2),
        mask("red", "matched", 0, 2, 0.4),
        mask("all", "mask", -1, 3, 0.6),
        mask("all", "random", 0, 3, 0.3),
    ]


# Score of r0 r1 r2 r3 and of b0 b1 b2; None where it was not asked.
SCORES = {
    "none": ([1, 1, 1, 0], [1, 1, 1]),
    "mask/red/0.01": ([0, 0, 1, 0], [None, None, 1]),
    "random/red/0.01/0": ([1, 1, 1, 0], [None, None, 0]),
    "random/red/0.01/1": ([1, 0, 1, 0], [None, None, 1]),
    "matched/red/0.01/0": ([0, 0, 0, 0], [None, None, 1]),
    "mask/all/0.01": ([0, 1, None, None], [None, None, 0]),
    "random/all/0.01/0": ([1, 1, None, None], [None, None, 0]),
}


def answers():
    rows = [
        {"setting": setting, "id": f"{letter}{i}", "prediction": "x", "score": float(score)}
        for setting, parts in SCORES.items()
        for letter, part in zip("rb", parts, strict=True)
        for i, score in enumerate(part)
        if score is not None
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0, ignore_index=True)
