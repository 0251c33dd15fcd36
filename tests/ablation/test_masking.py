"""Masks, their controls and their table, on answers made up so that every number is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from mmlens.ablation.effects import masking_table, method_differences
from mmlens.ablation.masks import Mask, modality_masks, with_controls
from mmlens.ablation.questions import Questions
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.neurons import NeuronSet
from mmlens.selection.recipe import Recipe

SHAPE = (2, 40)


def neurons(*pairs):
    return NeuronSet(pairs, "language", SHAPE)


SETS = {
    "text": neurons((0, 1), (1, 2)),
    "image": neurons((0, 1), (0, 3), (1, 4)),
    "video": neurons(),
}
QUESTIONS = Questions.by_field(
    tuple(
        Sample(f"{d}{i}", "?", answers=("x",), domain=d, fields={"source": f"{d}{i // 2}"})
        for d in ("b", "a")
        for i in range(4)
    ),
    "domain",
)


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


def answers(scores):
    return pd.DataFrame(
        [
            {"setting": name, "id": i, "prediction": "", "score": float(s)}
            for name, by_id in scores.items()
            for i, s in by_id.items()
        ]
    )


def test_the_table_counts_what_was_asked():
    mask = Mask("image", (SETS["image"],), Recipe(), measure=0.5)
    control = Mask("image", (neurons((0, 9)),), Recipe(), kind="matched", seed=0, measure=0.4)
    alone = Mask("image", (SETS["image"],), Recipe(strategy="uniform"))
    every = [s.id for s in QUESTIONS.samples]
    asked = {mask.base_name: every, alone.base_name: every[:2]}
    right = dict.fromkeys(every, 1)
    masked = {**right, "a0": 0, "a1": 0, "b0": 0}
    frame = answers(
        {
            "none": right,
            mask.name: masked,
            control.name: {**right, "a0": 0},
            alone.name: {every[0]: 0, every[1]: 1},
        }
    )
    table = masking_table(frame, [mask, control, alone], asked, QUESTIONS, cluster="source")
    rows = {(r.strategy, r.evaluated): r for r in table.itertuples()}
    a, everything = rows["LA_MU", "a"], rows["LA_MU", "all"]
    assert (a.baseline, a.masked, a.control_mean, a.drop) == (1, 0.5, 0.75, 0.5)
    assert a.difference == pytest.approx(0.25) and a.n_questions == 4 and a.control == "matched"
    assert everything.masked == pytest.approx(5 / 8) and everything.n_questions == 8
    assert everything.low <= everything.difference <= everything.high
    assert (a.measure, a.control_measure, a.n_neurons) == (0.5, 0.4, 3)
    without = rows["uniform", "b"]
    assert without.control == "" and without.masked == 0.5 and np.isnan(without.difference)
    assert ("uniform", "a") not in rows
    # What silencing costs cannot depend on the order in which answers were written.
    shuffled = masking_table(
        frame.sample(frac=1, random_state=1),
        [mask, control, alone],
        asked,
        QUESTIONS,
        cluster="source",
    )
    pd.testing.assert_frame_equal(table, shuffled)


def test_differences_of_two_masks():
    ids = [s.id for s in QUESTIONS.samples]
    right = dict.fromkeys(ids, 1)
    frame = answers({"none": right, "x": {**right, "a0": 0, "a1": 0}, "y": {**right, "a0": 0}})
    table = method_differences(
        frame, [("entropy", "x", "importance", "y")], QUESTIONS.own, {i: i for i in ids}
    )
    rows = {r.evaluated: r for r in table.itertuples()}
    assert rows["a"].difference == pytest.approx(0.25) and rows["b"].difference == 0
    assert rows["all"].difference == pytest.approx(1 / 8) and rows["all"].n_questions == 8
