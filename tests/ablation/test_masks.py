"""Masks of domains and of modalities, and their controls."""

from collections import Counter

import numpy as np
import pytest
import torch

from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask, domain_masks, modality_masks, with_controls
from mmlens.ablation.questions import Questions
from mmlens.data.samples import Sample
from mmlens.entropy import select
from mmlens.errors import SampleError
from mmlens.neurons import NeuronSet
from mmlens.selection.recipe import Recipe
from tests.helpers.masks import (
    DOMAINS,
    SHAPES,
    selected,
)


def test_every_mask_has_its_controls():
    selections, probabilities = selected()
    masks = domain_masks(selections, probabilities, DOMAINS, seeds=3)
    expected = [
        (which, kind, seed)
        for which in ("red", "blue", "all")
        for kind, seeds in (("mask", [-1]), ("random", range(3)), ("matched", range(3)))
        for seed in seeds
    ]
    assert Counter((m.label, m.kind, m.seed) for m in masks) == Counter(expected)
    assert len({m.name for m in masks}) == len(masks) == 21
    assert {m.recipe.ratio for m in masks} == {0.05}
    own = {m.label: m for m in masks if m.kind == "mask"}
    for domain in DOMAINS:
        assert own[domain].neurons == tuple(s.sets[domain] for s in selections.values())
    everyone = [set(s.sets["red"]) | set(s.sets["blue"]) for s in selections.values()]
    assert [set(one) for one in own["all"].neurons] == everyone
    for one in masks:
        assert [n.module for n in one.neurons] == list(SHAPES)
        if one.kind == "mask":
            continue
        for drawn, original, selection in zip(
            one.neurons, own[one.label].neurons, everyone, strict=True
        ):
            assert not set(drawn) & selection
            assert Counter(layer for layer, _ in drawn) == Counter(layer for layer, _ in original)


def test_the_frequency_is_that_on_the_own_domain():
    selections, probabilities = selected()
    for one in domain_masks(selections, probabilities, DOMAINS, seeds=1):
        values = []
        for neurons in one.neurons:
            for layer, index in neurons:
                p = probabilities[neurons.module][layer, index].tolist()
                values.append(sum(p) / 2 if one.label == "all" else p[DOMAINS.index(one.label)])
        assert one.measure == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_matched_controls_are_closer_than_random_ones():
    selections, probabilities = selected()
    masks = domain_masks(selections, probabilities, DOMAINS, seeds=8)
    for which in DOMAINS:
        (target,) = (m.measure for m in masks if (m.label, m.kind) == (which, "mask"))
        gap = {
            kind: np.mean(
                [abs(m.measure - target) for m in masks if (m.label, m.kind) == (which, kind)]
            )
            for kind in ("random", "matched")
        }
        assert gap["matched"] < gap["random"]


def test_a_domain_without_neurons_has_empty_masks():
    counts = torch.zeros((1, 20, 2), dtype=torch.int64)
    counts[0, 3, 0] = 900
    selection = select(counts, torch.tensor([1000, 1000]), DOMAINS, fraction=0.1)
    p = {"language": counts.double() / 1000}
    masks = domain_masks({"language": selection}, p, DOMAINS, seeds=1)
    sizes = {(m.label, m.kind): sum(map(len, m.neurons)) for m in masks}
    assert {kind: sizes["red", kind] for kind in ("mask", "random", "matched")} == {
        "mask": 1,
        "random": 1,
        "matched": 1,
    }
    assert {sizes["blue", kind] for kind in ("mask", "random", "matched")} == {0}
    assert {m.measure for m in masks if m.label == "blue"} == {0.0}


def test_the_names_of_masks():
    neurons = (NeuronSet([], "language", (1, 1)),)
    tenth, least = Recipe.of_domains(0.01), Recipe.of_domains(0.0001)
    assert Mask("red", neurons, tenth).name == "mask/red/0.01"
    assert Mask("all", neurons, least, kind="random", seed=2).name == "random/all/0.0001/2"


def test_masks_carry_their_intervention():
    selections, probabilities = selected()
    scaled = Intervention("scale", 0.5)
    plain = domain_masks(selections, probabilities, DOMAINS, seeds=1)
    masks = domain_masks(selections, probabilities, DOMAINS, 1, scaled)
    assert [m.neurons for m in masks] == [m.neurons for m in plain]
    assert {m.intervention for m in masks} == {scaled}
    assert not {m.name for m in masks} & {m.name for m in plain}
    neurons = (NeuronSet([], "language", (1, 1)),)
    one = Mask("all", neurons, Recipe.of_domains(0.1), scaled, "random", 2)
    assert one.name == "random/all/0.1/scale-0.5/2"


SHAPE = (2, 40)


def neurons(*pairs):
    return NeuronSet(pairs, "language", SHAPE)


SETS = {
    "text": neurons((0, 1), (1, 2)),
    "image": neurons((0, 1), (0, 3), (1, 4)),
    "video": neurons(),
}


def test_a_mask_per_modality_and_one_for_all():
    cells = modality_masks(SETS, Recipe())
    assert [(c.label, c.n_neurons) for c in cells] == [("text", 2), ("image", 3), ("all", 4)]
    own = modality_masks(SETS, Recipe(), treatment="own_tokens")
    assert [c.label for c in own] == ["text", "image"]
    assert own[1].intervention.group == "image" and own[1].intervention.kind == "zero"
    assert [c.intervention.kind for c in modality_masks(SETS, Recipe(), treatment="keep_only")] == [
        "keep_only"
    ] * 3
    names = {
        c.name
        for found in (Recipe(), Recipe(ratio=0.05), Recipe(mined="a"))
        for c in modality_masks(SETS, found)
    }
    assert len(names) == 9
    with pytest.raises(SampleError, match="cannot be called 'all'"):
        modality_masks({"all": neurons((0, 0))}, Recipe())


def test_controls_are_as_many_per_layer_and_as_active():
    rng = torch.Generator().manual_seed(0)
    measure = torch.rand(SHAPE, generator=rng)
    everything = SETS["text"] | SETS["image"]
    measures = dict.fromkeys(("text", "image", "all"), {"language": measure})
    cells = with_controls(modality_masks(SETS, Recipe()), [everything], measures, 3)
    masks = [c for c in cells if c.kind == "mask"]
    assert len(cells) == len(masks) * 7 and len({c.name for c in cells}) == len(cells)
    for mask in masks:
        rivals = [c for c in cells if c.base_name == mask.base_name and c.kind != "mask"]
        assert {c.kind for c in rivals} == {"matched", "random"}
        for one in rivals:
            (drawn,), (masked,) = one.neurons, mask.neurons
            per_layer = {k: len(v) for k, v in drawn.per_layer().items()}
            assert per_layer == {k: len(v) for k, v in masked.per_layer().items()}
            assert not (drawn & everything)
            values = [float(measure[p]) for p in drawn]
            assert one.measure == pytest.approx(np.mean(values))
    gaps = {
        kind: np.mean(
            [
                abs(c.measure - m.measure)
                for m in masks
                for c in cells
                if c.base_name == m.base_name and c.kind == kind
            ]
        )
        for kind in ("matched", "random")
    }
    assert gaps["matched"] < gaps["random"]


def test_what_cannot_be_controlled_is_refused():
    cells, everything = modality_masks(SETS, Recipe()), SETS["text"] | SETS["image"]
    measures = dict.fromkeys(("text", "image", "all"), {"language": torch.rand(SHAPE)})
    with pytest.raises(SampleError, match="no control 'nearby'; there are random, matched"):
        with_controls(cells, [everything], measures, 1, ("nearby",))
    with pytest.raises(
        SampleError, match="'all' are matched .*; there are measures of text, image"
    ):
        with_controls(cells, [everything], {k: measures[k] for k in ("text", "image")}, 1)
    with pytest.raises(SampleError, match="data set cannot be called 'all'"):
        Questions.by_field((Sample("a", "?", domain="all"),), "domain")
