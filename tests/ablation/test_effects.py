"""Effects of masks of domains and of modalities, on answers made up so that every number is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mmlens.ablation.effects import effects_table, masking_table, method_differences
from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask
from mmlens.ablation.plan import domain_conditions
from mmlens.ablation.questions import Questions
from mmlens.ablation.tables import accuracy_table
from mmlens.data.samples import Sample
from mmlens.neurons import NeuronSet
from mmlens.selection.recipe import Recipe
from tests.helpers.masks import (
    QUESTIONS,
    answers,
    hand_made,
)


def test_a_mask_is_compared_with_controls_of_its_own_intervention():
    scaled = Intervention("scale", 2.0)
    silenced = hand_made()
    masks = [*silenced, *(replace(m, intervention=scaled) for m in silenced)]
    rows = answers()
    # Scaling is half as bad: every mask's answers are right, its controls' are the same as before.
    other = rows[rows.setting != "none"].copy()
    named = {m.name: replace(m, intervention=scaled).name for m in silenced}
    other["setting"] = other["setting"].map(named)
    other.loc[other.setting.str.startswith("mask"), "score"] = 1.0
    table = effects_table(pd.concat([rows, other]), masks, QUESTIONS, full=False, draws=200)
    assert set(table.intervention) == {"zero", "scale-2"}
    alone = effects_table(rows, silenced, QUESTIONS, full=False, draws=200)
    assert "intervention" not in alone.columns
    zero = table[table.intervention == "zero"].drop(columns="intervention")
    pd.testing.assert_frame_equal(zero.reset_index(drop=True), alone)
    own = table[(table["mask"] == "red") & (table.evaluated == "own") & (table.control == "random")]
    by = own.set_index("intervention")
    # drop of the mask: r0..r3 had 3 right; silenced 1 right, scaled 4 right
    assert by.masked["zero"] == pytest.approx(0.25)
    assert by.masked["scale-2"] == pytest.approx(1.0)
    settings = domain_conditions(masks, QUESTIONS, full=False)
    assert len({s.name for s in settings}) == len(settings) == 1 + 2 * len(silenced)
    assert {s.intervention for s in settings if s.neurons} == {scaled, Intervention()}
    accuracy = accuracy_table(pd.concat([rows, other]), masks, QUESTIONS.samples)
    assert set(accuracy.intervention.dropna()) == {"zero", "scale-2"}


def test_effects_table():
    table = effects_table(answers(), hand_made(), QUESTIONS, full=False, draws=200)
    rows = {(r.mask, r.control, r.evaluated): r for r in table.itertuples()}
    assert set(rows) == {
        ("red", "random", "own"),
        ("red", "random", "others"),
        ("red", "matched", "own"),
        ("red", "matched", "others"),
        ("all", "random", "all"),
    }
    one = rows["red", "random", "own"]
    assert (one.n_questions, one.n_seeds, one.n_neurons, one.fraction) == (4, 2, 2, 0.01)
    assert (one.baseline, one.masked, one.control_mean) == (0.75, 0.25, 0.625)
    assert one.control_sd == pytest.approx(0.125 * 2**0.5)
    assert (one.drop, one.control_drop, one.difference) == (0.5, 0.125, 0.375)
    assert one.low <= one.difference <= one.high
    assert (one.frequency, one.control_frequency) == (0.5, pytest.approx(0.15))
    one = rows["red", "random", "others"]
    assert (one.n_questions, one.baseline, one.masked, one.control_mean) == (1, 1.0, 1.0, 0.5)
    assert one.difference == -0.5
    one = rows["red", "matched", "own"]
    assert (one.n_seeds, one.control_mean, one.difference) == (1, 0.0, -0.25)
    one = rows["all", "random", "all"]
    assert (one.n_questions, one.n_neurons) == (3, 3)
    assert one.baseline == 1.0
    assert one.masked == pytest.approx(1 / 3)
    assert one.difference == pytest.approx(1 / 3)


def test_a_question_that_could_not_be_asked_is_left_out():
    frame = answers()
    table = effects_table(
        frame[~frame["id"].isin(["r2", "b2"])], hand_made(), QUESTIONS, full=False, draws=50
    )
    rows = {(r.mask, r.control, r.evaluated): r for r in table.itertuples()}
    assert set(rows) == {
        ("red", "random", "own"),
        ("red", "matched", "own"),
        ("all", "random", "all"),
    }
    one = rows["red", "random", "own"]
    assert (one.n_questions, one.baseline, one.masked) == (3, pytest.approx(2 / 3), 0.0)


def test_clusters_widen_the_interval_of_effects():
    ids = [f"r{i}" for i in range(60)]
    rng = np.random.default_rng(0)
    book = np.repeat(np.arange(12), 5)
    masked = rng.integers(0, 2, size=12)[book]
    samples = tuple(
        Sample(i, "t", domain="red", fields={"book": f"b{number:02}"})
        for i, number in zip(ids, book, strict=True)
    )
    questions = Questions({"red": tuple(ids)}, {"red": ()}, samples)
    masks = [m for m in hand_made() if (m.label, m.kind) in (("red", "mask"), ("red", "matched"))]
    frame = pd.DataFrame(
        [
            {"setting": setting, "id": i, "prediction": "", "score": float(score)}
            for setting, scores in (
                ("none", np.ones(60)),
                ("mask/red/0.01", masked),
                ("matched/red/0.01/0", np.ones(60)),
            )
            for i, score in zip(ids, scores, strict=True)
        ]
    )
    (alone,) = effects_table(frame, masks, questions, full=False).itertuples()
    (grouped,) = effects_table(frame, masks, questions, full=False, cluster="book").itertuples()
    assert grouped.difference == alone.difference
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_the_full_matrix_names_every_domain():
    frame = pd.DataFrame(
        [
            {"setting": setting, "id": s.id, "prediction": "", "score": float(score)}
            for setting, score in (("none", 1), ("mask/red/0.01", 0), ("random/red/0.01/0", 1))
            for s in QUESTIONS.samples
        ]
    )
    masks = hand_made()[:2]
    table = effects_table(frame, masks, QUESTIONS, full=True, draws=50)
    sizes = dict(zip(table["evaluated"], table["n_questions"], strict=True))
    assert sizes == {"own": 4, "others": 3, "red": 4, "blue": 3}
    assert (table["difference"] == 1.0).all()


SHAPE = (2, 40)


def neurons(*pairs):
    return NeuronSet(pairs, "language", SHAPE)


SETS = {
    "text": neurons((0, 1), (1, 2)),
    "image": neurons((0, 1), (0, 3), (1, 4)),
    "video": neurons(),
}


DATA_SETS = Questions.by_field(
    tuple(
        Sample(f"{d}{i}", "?", answers=("x",), domain=d, fields={"source": f"{d}{i // 2}"})
        for d in ("b", "a")
        for i in range(4)
    ),
    "domain",
)


def scored(scores):
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
    every = [s.id for s in DATA_SETS.samples]
    asked = {mask.base_name: every, alone.base_name: every[:2]}
    right = dict.fromkeys(every, 1)
    masked = {**right, "a0": 0, "a1": 0, "b0": 0}
    frame = scored(
        {
            "none": right,
            mask.name: masked,
            control.name: {**right, "a0": 0},
            alone.name: {every[0]: 0, every[1]: 1},
        }
    )
    table = masking_table(frame, [mask, control, alone], asked, DATA_SETS, cluster="source")
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
        DATA_SETS,
        cluster="source",
    )
    pd.testing.assert_frame_equal(table, shuffled)


def test_differences_of_two_masks():
    ids = [s.id for s in DATA_SETS.samples]
    right = dict.fromkeys(ids, 1)
    frame = scored({"none": right, "x": {**right, "a0": 0, "a1": 0}, "y": {**right, "a0": 0}})
    table = method_differences(
        frame, [("entropy", "x", "importance", "y")], DATA_SETS.own, {i: i for i in ids}
    )
    rows = {r.evaluated: r for r in table.itertuples()}
    assert rows["a"].difference == pytest.approx(0.25) and rows["b"].difference == 0
    assert rows["all"].difference == pytest.approx(1 / 8) and rows["all"].n_questions == 8
