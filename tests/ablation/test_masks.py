from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mmlens.ablation.conditions import domain_conditions
from mmlens.ablation.effects import effects_table
from mmlens.ablation.intervention import Intervention
from mmlens.ablation.masks import Mask, domain_masks
from mmlens.ablation.questions import Questions
from mmlens.ablation.tables import accuracy_table, neurons_table
from mmlens.data.samples import Sample
from mmlens.entropy import select
from mmlens.errors import SampleError
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


# Masks


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


# Questions


def pool(red=10, blue=6, other=3):
    return (
        [Sample(f"r{i}", "t", answers=("a",), domain="red") for i in range(red)]
        + [Sample(f"b{i}", "t", answers=("a",), domain="blue") for i in range(blue)]
        + [Sample(f"o{i}", "t", answers=("a",), domain="other") for i in range(other)]
    )


@pytest.mark.parametrize(("own", "shared"), [(4, 2), (8, 8), (100, 3), (3, 100)])
def test_questions_are_drawn_per_domain(own, shared):
    questions = Questions.choose(pool(), DOMAINS, own, shared, seed=1)
    for domain, letter, size in (("red", "r", 10), ("blue", "b", 6)):
        mine, common = questions.own[domain], questions.shared[domain]
        assert len(set(mine)) == len(mine) == min(own, size)
        assert len(common) == min(own, shared, size)
        assert set(common) <= set(mine)
        assert {name[0] for name in mine} == {letter}
    assert {s.id for s in questions.samples} == {i for ids in questions.own.values() for i in ids}
    assert questions == Questions.choose(pool(), DOMAINS, own, shared, seed=1)
    if own == 4:
        assert questions != Questions.choose(pool(), DOMAINS, own, shared, seed=2)


def test_a_domain_without_questions():
    with pytest.raises(SampleError, match="'green' has no question.*blue, other, red"):
        Questions.choose(pool(), ("red", "green"), 3, 2, seed=0)


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


def test_who_is_asked_what():
    assert QUESTIONS.asked("red", full=False) == {"red": ("r0", "r1", "r2", "r3"), "blue": ("b2",)}
    assert QUESTIONS.asked("blue", full=False) == {"red": ("r0", "r1"), "blue": ("b0", "b1", "b2")}
    assert QUESTIONS.asked("all", full=False) == {"red": ("r0", "r1"), "blue": ("b2",)}
    for mask in ("red", "blue", "all"):
        assert QUESTIONS.asked(mask, full=True) == dict(QUESTIONS.own)


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


def test_settings_of_a_study():
    settings = {s.name: s for s in domain_conditions(hand_made(), QUESTIONS, full=False)}
    assert set(settings) == set(SCORES)
    for name, parts in SCORES.items():
        asked = {
            f"{letter}{i}"
            for letter, part in zip("rb", parts, strict=True)
            for i, score in enumerate(part)
            if score is not None
        }
        assert settings[name].ids == asked
    assert settings["none"].neurons == ()
    assert [len(n) for n in settings["mask/red/0.01"].neurons] == [2]
    everything = {"r0", "r1", "r2", "r3", "b0", "b1", "b2"}
    assert {s.ids for s in domain_conditions(hand_made(), QUESTIONS, full=True)} == {
        frozenset(everything)
    }


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


def test_accuracy_table():
    table = accuracy_table(answers(), hand_made(), QUESTIONS.samples)
    assert list(table.columns) == [
        "mask",
        "kind",
        "seed",
        "fraction",
        "evaluated",
        "n",
        "correct",
        "accuracy",
        "n_neurons",
        "frequency",
    ]
    assert len(table) == 14
    rows = {(r.mask, r.kind, r.seed, r.evaluated): r for r in table.itertuples()}
    untouched = rows["none", "none", -1, "red"]
    assert (untouched.n, untouched.correct, untouched.accuracy) == (4, 3.0, 0.75)
    assert (untouched.n_neurons, untouched.fraction) == (0, 0.0)
    assert np.isnan(untouched.frequency)
    one = rows["red", "random", 1, "red"]
    assert (one.n, one.correct, one.accuracy, one.n_neurons) == (4, 2.0, 0.5, 2)
    assert (one.frequency, one.fraction) == (0.2, 0.01)
    one = rows["all", "mask", -1, "blue"]
    assert (one.n, one.correct, one.accuracy, one.n_neurons) == (1, 0.0, 0.0, 3)


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


# Neurons


def test_neurons_table():
    selections, probabilities = {}, {}
    for fraction in (1.0, 0.02, 0.05):
        selections[fraction], probabilities = selected(fraction)
    table = neurons_table(selections, probabilities, DOMAINS)
    assert list(table.columns) == [
        "module",
        "layer",
        "index",
        "fraction",
        "entropy",
        "domains",
        "p_red",
        "p_blue",
    ]
    rows = {(r.module, r.layer, r.index): r for r in table.itertuples()}
    assert len(rows) == len(table)
    largest = {
        (module, *pair)
        for module, one in selections[1.0].items()
        for name in DOMAINS
        for pair in one.sets[name]
    }
    assert set(rows) == largest
    for (module, layer, index), row in rows.items():
        holders = {
            fraction: [d for d in DOMAINS if (layer, index) in set(by[module].sets[d])]
            for fraction, by in selections.items()
        }
        smallest = min(fraction for fraction, labels in holders.items() if labels)
        assert row.fraction == smallest
        assert row.domains == ";".join(holders[smallest])
        p = probabilities[module][layer, index].tolist()
        assert [row.p_red, row.p_blue] == p
        share = [x / sum(p) for x in p]
        expected = -sum(x * np.log(x) for x in share if x)
        assert row.entropy == pytest.approx(expected, abs=1e-9)
    assert {0.02, 0.05, 1.0} == set(table["fraction"])
    assert (table["domains"] == "red;blue").any()


def test_a_table_of_no_neurons_has_its_columns():
    counts = torch.ones((1, 4, 2), dtype=torch.int64)
    selection = select(counts, torch.tensor([2, 2]), DOMAINS)
    table = neurons_table({0.01: {"language": selection}}, {"language": counts / 2}, DOMAINS)
    assert table.empty
    assert {"module", "domains", "p_red", "p_blue"} <= set(table.columns)
