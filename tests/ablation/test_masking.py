"""Masks, their controls and their table, on answers made up so that every number is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from mmlens.ablation.masking import (
    Asked,
    Cell,
    Found,
    masking_table,
    masks_of,
    root_mean_square,
    with_controls,
)
from mmlens.data.samples import Sample
from mmlens.errors import SampleError, StatisticsError
from mmlens.neurons import NeuronSet
from mmlens.selection.methods import (
    entropy_ranked,
    method_differences,
    most_important,
    parts_of_both,
)

SHAPE = (2, 40)


def neurons(*pairs):
    return NeuronSet(pairs, "language", SHAPE)


SETS = {
    "text": neurons((0, 1), (1, 2)),
    "image": neurons((0, 1), (0, 3), (1, 4)),
    "video": neurons(),
}
QUESTIONS = Asked(
    tuple(
        Sample(f"{d}{i}", "?", answers=("x",), domain=d, fields={"source": f"{d}{i // 2}"})
        for d in ("b", "a")
        for i in range(4)
    ),
    "domain",
)


def test_a_mask_per_modality_and_one_for_all():
    cells = masks_of(SETS, Found())
    assert [(c.modality, len(c.neurons)) for c in cells] == [("text", 2), ("image", 3), ("all", 4)]
    own = masks_of(SETS, Found(), treatment="own_tokens")
    assert [c.modality for c in own] == ["text", "image"]
    assert own[1].intervention.group == "image" and own[1].intervention.kind == "zero"
    assert [c.intervention.kind for c in masks_of(SETS, Found(), treatment="keep_only")] == [
        "keep_only"
    ] * 3
    names = {
        c.name
        for found in (Found(), Found(ratio=0.05), Found(mined="a"))
        for c in masks_of(SETS, found)
    }
    assert len(names) == 9
    with pytest.raises(SampleError, match="cannot be called 'all'"):
        masks_of({"all": neurons((0, 0))}, Found())


def test_controls_are_as_many_per_layer_and_as_active():
    rng = torch.Generator().manual_seed(0)
    measure = torch.rand(SHAPE, generator=rng)
    everything = SETS["text"] | SETS["image"]
    cells = with_controls(
        masks_of(SETS, Found()), everything, dict.fromkeys(("text", "image", "all"), measure), 3
    )
    masks = [c for c in cells if c.kind == "mask"]
    assert len(cells) == len(masks) * 7 and len({c.name for c in cells}) == len(cells)
    for mask in masks:
        rivals = [c for c in cells if c.mask_name == mask.mask_name and c.kind != "mask"]
        assert {c.kind for c in rivals} == {"matched", "random"}
        for one in rivals:
            per_layer = {k: len(v) for k, v in one.neurons.per_layer().items()}
            assert per_layer == {k: len(v) for k, v in mask.neurons.per_layer().items()}
            assert not (one.neurons & everything)
            values = [float(measure[p]) for p in one.neurons]
            assert one.measure == pytest.approx(np.mean(values))
    gaps = {
        kind: np.mean(
            [
                abs(c.measure - m.measure)
                for m in masks
                for c in cells
                if c.mask_name == m.mask_name and c.kind == kind
            ]
        )
        for kind in ("matched", "random")
    }
    assert gaps["matched"] < gaps["random"]


def test_what_cannot_be_controlled_is_refused():
    cells, everything = masks_of(SETS, Found()), SETS["text"] | SETS["image"]
    measures = dict.fromkeys(("text", "image", "all"), torch.rand(SHAPE))
    with pytest.raises(SampleError, match="no control 'nearby'; there are matched, random"):
        with_controls(cells, everything, measures, 1, ("nearby",))
    with pytest.raises(
        SampleError, match="'all' are matched .*; there are measures of text, image"
    ):
        with_controls(cells, everything, {k: measures[k] for k in ("text", "image")}, 1)
    with pytest.raises(SampleError, match="data set cannot be called 'all'"):
        Asked((Sample("a", "?", domain="all"),), "domain")


def test_root_mean_square():
    a = np.random.default_rng(0).normal(size=(5, 2, 3))
    got = root_mean_square(torch.tensor((a**2).sum(0)), 5)
    assert np.allclose(got, np.sqrt(np.mean(a**2, axis=0)))


def answers(scores):
    return pd.DataFrame(
        [
            {"setting": name, "id": i, "prediction": "", "score": float(s)}
            for name, by_id in scores.items()
            for i, s in by_id.items()
        ]
    )


def test_the_table_counts_what_was_asked():
    mask = Cell(Found(), "image", SETS["image"], measure=0.5)
    control = Cell(Found(), "image", neurons((0, 9)), kind="matched", seed=0, measure=0.4)
    alone = Cell(Found(strategy="uniform"), "image", SETS["image"])
    every = [s.id for s in QUESTIONS.samples]
    asked = {mask.mask_name: every, alone.mask_name: every[:2]}
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


def test_entropy_and_importance_at_equal_budget():
    tokens = torch.tensor([100, 100])
    positive = torch.tensor([[[90, 0], [80, 10], [5, 95], [50, 50], [2, 1], [0, 60]]])
    found = entropy_ranked(positive, tokens, ["text", "image"], 2, quantile=0.5)
    # Of those above the median, by hand: text 90:0 before 80:10 (50:50 is even); image 0:60, 5:95.
    assert {m: list(s) for m, s in found.items()} == {
        "text": [(0, 0), (0, 1)],
        "image": [(0, 2), (0, 5)],
    }
    assert list(entropy_ranked(positive, tokens, ["text", "image"], 1, quantile=0.5)["image"]) == [
        (0, 5)
    ]
    w = torch.tensor([[[0.1, 0.9, 0.9, 0.2, 0.0, 0.3]], [[0.5, 0.4, 0.3, 0.6, 0.1, 0.2]]])
    top = most_important(w, ["text", "image"], {"text": 2, "image": 1})
    assert {m: list(s) for m, s in top.items()} == {"text": [(0, 1), (0, 2)], "image": [(0, 3)]}
    parts = parts_of_both(found["text"], top["text"])
    assert {n: list(s) for n, s in parts.items()} == {
        "entropy": [(0, 0), (0, 1)],
        "importance": [(0, 1), (0, 2)],
        "both methods": [(0, 1)],
        "entropy alone": [(0, 0)],
        "importance alone": [(0, 2)],
    }
    with pytest.raises(StatisticsError, match="at least 1; 0 was given"):
        entropy_ranked(positive, tokens, ["text", "image"], 0)


def test_differences_of_two_masks():
    ids = [s.id for s in QUESTIONS.samples]
    right = dict.fromkeys(ids, 1)
    frame = answers({"none": right, "x": {**right, "a0": 0, "a1": 0}, "y": {**right, "a0": 0}})
    table = method_differences(
        frame, [("entropy", "x", "importance", "y")], QUESTIONS.datasets, {i: i for i in ids}
    )
    rows = {r.evaluated: r for r in table.itertuples()}
    assert rows["a"].difference == pytest.approx(0.25) and rows["b"].difference == 0
    assert rows["all"].difference == pytest.approx(1 / 8) and rows["all"].n_questions == 8
