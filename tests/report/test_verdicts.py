"""Verdicts: the interval decides, and the sentence says what the row says."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from mmlens.report.sections import Text, Verdicts
from mmlens.report.verdicts import domain_verdicts, masking_parts, masking_verdicts
from tests.helpers import domain_frames as frames

NAN = math.nan
ROW = {
    "mined": "all",
    "strategy": "LA_MU",
    "weights": "paper",
    "ratio": 0.02,
    "modality": "image",
    "treatment": "zero",
    "evaluated": "clothing",
    "control": "matched",
    "n_neurons": 107,
    "n_questions": 120,
    "n_seeds": 5,
    "baseline": 0.81,
    "masked": 0.62,
    "control_mean": 0.743,
    "control_sd": 0.01,
    "drop": 0.19,
    "control_drop": 0.067,
    "difference": 0.123,
    "low": 0.08,
    "high": 0.169,
}
ALONE = {"control": "", "control_mean": NAN, "difference": NAN, "low": NAN, "high": NAN}


def table(*changes):
    return pd.DataFrame([ROW | one for one in changes or ({},)])


def sentence(**changes):
    (found,) = masking_verdicts(table(changes))
    return found.sentence


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.01, 0.05, "yes"),
        (1e-9, 0.05, "yes"),
        (0.0, 0.05, "no"),
        (-0.01, 0.05, "no"),
        (-0.05, 0.0, "no"),
        (-0.05, -1e-9, "opposite"),
        (NAN, NAN, "unknown"),
    ],
)
def test_the_answer_turns_where_the_interval_leaves_zero(low, high, answer):
    (found,) = masking_verdicts(table({"low": low, "high": high}))
    assert found.answer == answer


def test_more_than_the_control():
    assert sentence() == (
        "Silencing the 107 image neurons costs questions of clothing 12.3 points more than matched "
        "random neurons [8.0, 16.9]. Accuracy falls from 81.0% to 62.0%."
    )


def test_less_than_the_control_keeps_the_sign_of_the_interval():
    said = sentence(difference=-0.031, low=-0.06, high=-0.01, masked=0.82, drop=-0.01)
    assert "3.1 points less than matched random neurons, difference -3.1 [-6.0, -1.0]." in said
    assert said.endswith("Accuracy rises from 81.0% to 82.0%.")


def test_an_interval_that_includes_zero_is_said():
    said = sentence(difference=0.01, low=-0.02, high=0.04)
    assert "1.0 point more than matched" in said
    assert "but the interval of the difference includes 0 [-2.0, 4.0]" in said


def test_an_interval_off_zero_is_never_printed_as_touching_it():
    assert "0.02 points more than matched random neurons [0.01, 5.0]" in sentence(
        difference=0.0002, low=0.0001, high=0.05
    )


def test_no_difference_at_all():
    said = sentence(difference=0.0, low=-0.01, high=0.01, drop=0.0, masked=0.81)
    assert "as much as matched random neurons [" in said
    assert said.endswith("Accuracy stays at 81.0%.")


def test_no_interval_and_no_control_are_two_things():
    assert "there is no interval, so this may be chance" in sentence(low=NAN, high=NAN)
    (found,) = masking_verdicts(table(ALONE))
    assert found.answer == "unknown"
    assert found.sentence == (
        "Silencing the 107 image neurons lowers accuracy on questions of clothing by 19.0 percentage "
        "points, from 81.0% to 62.0%; no matched control was run, so nothing is known of what other "
        "neurons would have cost."
    )


def test_one_neuron_all_modalities_all_questions():
    said = sentence(n_neurons=1, modality="special")
    assert said.startswith("Silencing the 1 special neuron costs")
    assert "than a matched random neuron [" in said
    said = sentence(modality="all", evaluated="all", n_neurons=1234)
    assert said.startswith("Silencing the 1,234 neurons of all modalities costs all questions 12.3")


def test_nothing_to_mask():
    (found,) = masking_verdicts(table(ALONE | {"n_neurons": 0, "modality": "video"}))
    assert found.answer == "no"
    assert found.sentence == (
        "No neuron was selected for the modality video, so there was nothing to mask."
    )


@pytest.mark.parametrize(
    ("treatment", "said"),
    [
        ("layer_minimum", "Setting the 107 image neurons to the least value of their layer costs"),
        ("keep_only", "Keeping the 107 image neurons alone costs"),
        (
            "own_tokens",
            "Silencing the 107 image neurons at tokens of their own modality alone costs",
        ),
        ("half", "half of the 107 image neurons costs"),
    ],
)
def test_every_treatment_is_named(treatment, said):
    assert sentence(treatment=treatment).startswith(said)


def test_rows_are_chosen_by_control_and_columns():
    random = {"control": "random", "difference": 0.3, "low": 0.2, "high": 0.4}
    other = {"strategy": "uniform", "difference": 0.05}
    text = {"modality": "text", **ALONE}
    frame = table(random, {}, other, text)
    assert [(v.owner, v.difference) for v in masking_verdicts(frame, strategy="LA_MU")][:1] == [
        ("image", 0.123)
    ]
    found = masking_verdicts(frame, "random", strategy="LA_MU", ratio=0.02)
    assert [(v.owner, v.answer) for v in found] == [("image", "yes"), ("text", "unknown")]
    assert "than random neurons [20.0, 40.0]" in found[0].sentence
    assert len(masking_verdicts(frame)) == 3
    # As pandas reads it back from a file: an empty control is not a number.
    assert [v.answer for v in masking_verdicts(frame.replace({"control": {"": NAN}}))] == [
        v.answer for v in masking_verdicts(frame)
    ]


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="two rows of the control 'matched'"):
        masking_verdicts(table({}, {}))
    with pytest.raises(ValueError, match="no row with strategy='uniform'"):
        masking_verdicts(table(), strategy="uniform")
    with pytest.raises(ValueError, match="no column 'layer'"):
        masking_verdicts(table(), layer=3)
    with pytest.raises(ValueError, match="lacks"):
        masking_verdicts(table().drop(columns="low"))


def test_parts_count_the_answers_and_only_intervals_that_there_are():
    no = {"evaluated": "pages", "low": -0.1}
    lead, listed, note = masking_parts(table({}, no, {"modality": "text", **ALONE}))
    assert isinstance(lead, Text)
    assert isinstance(listed, Verdicts)
    assert isinstance(note, Text)
    assert "Of 3 comparisons: yes in 1, no in 1, and in 0 the control" in lead.text
    assert lead.text.endswith("In 1 it is not known.")
    assert [one.name for one in listed.items] == [
        "image \u2192 clothing",
        "image \u2192 pages",
        "text \u2192 clothing",
    ]
    assert "2 intervals were looked at" in note.text
    (_, _, note) = masking_parts(table())
    assert isinstance(note, Text)
    assert "looked at" not in note.text
    assert len(masking_parts(table(ALONE))) == 2


# --- of domains


def effect(**changes: Any) -> pd.DataFrame:
    """One row: 54 neurons, own questions, drop 0.05 against 0.02."""
    row: dict[str, Any] = {
        "mask": "satellite",
        "fraction": 0.01,
        "n_neurons": 54,
        "evaluated": "own",
        "control": "matched",
        "n_questions": 200,
        "n_seeds": 5,
        "baseline": 0.9,
        "masked": 0.85,
        "control_mean": 0.88,
        "control_sd": 0.01,
        "drop": 0.05,
        "control_drop": 0.02,
        "difference": 0.03,
        "low": 0.01,
        "high": 0.05,
    }
    return pd.DataFrame([row | changes])


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.01, 0.05, "yes"),
        (1e-9, 0.05, "yes"),
        (0.0, 0.05, "no"),
        (-0.01, 0.05, "no"),
        (-0.05, 0.0, "no"),
        (0.0, 0.0, "no"),
        (-0.05, -1e-9, "opposite"),
        (-0.05, -0.01, "opposite"),
    ],
)
def test_the_verdict_turns_where_the_interval_leaves_zero(
    low: float, high: float, answer: str
) -> None:
    (verdict,) = domain_verdicts(effect(low=low, high=high))
    assert verdict.answer == answer


def test_sentences_say_it_plainly() -> None:
    (yes,) = domain_verdicts(effect())
    assert yes.sentence == (
        "Silencing the 54 satellite neurons costs satellite questions 5.0 percentage points; "
        "silencing as many neurons matched in layer and activation frequency costs 2.0. "
        "Difference +3.0 [1.0, 5.0]: yes, it costs more than the control."
    )
    (no,) = domain_verdicts(effect(low=-0.01))
    assert no.sentence.endswith("[-1.0, 5.0]: no, the interval includes 0.")
    (opposite,) = domain_verdicts(effect(drop=-0.01, difference=-0.03, low=-0.05, high=-0.01))
    assert "raises accuracy on satellite questions by 1.0 percentage points" in opposite.sentence
    assert "silencing the control costs more" in opposite.sentence
    (odd,) = domain_verdicts(effect(drop=-0.01, control_drop=-0.04))
    assert "gains 4.0" in odd.sentence
    assert "accuracy itself did not fall" in odd.sentence


def test_a_domains_interval_off_zero_is_never_printed_as_touching_it() -> None:
    (verdict,) = domain_verdicts(effect(low=0.0002))
    assert verdict.answer == "yes"
    assert "[0.02, 5.0]" in verdict.sentence


def test_no_neurons_is_said_and_a_broken_interval_refused() -> None:
    nan = float("nan")
    (verdict,) = domain_verdicts(effect(n_neurons=0, low=nan, high=nan))
    assert verdict.answer == "no"
    assert "nothing to silence" in verdict.sentence
    with pytest.raises(ValueError, match="both ends must be numbers"):
        domain_verdicts(effect(low=nan))


def test_verdicts_choose_fraction_control_and_own_questions() -> None:
    effects = frames.make_effects(frames.DOMAINS)
    primary = domain_verdicts(effects)
    assert [v.owner for v in primary] == frames.DOMAINS
    assert {v.fraction for v in primary} == {0.01}
    assert {v.control for v in primary} == {"matched"}
    assert len(domain_verdicts(effects, "random", None)) == 4 * len(frames.DOMAINS)
    diagonal = effects[~effects["evaluated"].isin(["own", "others"])]
    assert [v.owner for v in domain_verdicts(diagonal)] == frames.DOMAINS
    with pytest.raises(ValueError, match="'own' questions"):
        domain_verdicts(effects[effects["evaluated"] == "others"])
    with pytest.raises(ValueError, match="0.3 was asked for"):
        domain_verdicts(effects, fraction=0.3)
    with pytest.raises(ValueError, match="lacks"):
        domain_verdicts(effects.drop(columns="low"))
