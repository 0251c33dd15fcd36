"""Substring metrics and word errors, against a table of edits in numpy."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.metrics.contains import contains_answer, contains_class, first_letter
from mmlens.metrics.scoring import check_scorable, metric, scorer
from mmlens.metrics.speech import spoken, word_accuracy, word_error_rate, wrr

WORDS = st.lists(st.sampled_from(["oak", "ash", "elm", "fir"]), max_size=8)
SOME = st.lists(st.sampled_from(["oak", "ash", "elm", "fir"]), min_size=1, max_size=8)


def edits(said, given):
    """The whole table of edit distances between two lists of words."""
    table = np.zeros((len(said) + 1, len(given) + 1), dtype=np.int64)
    table[:, 0], table[0] = np.arange(len(said) + 1), np.arange(len(given) + 1)
    for i, j in np.ndindex(len(said), len(given)):
        steps = (table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (said[i] != given[j]))
        table[i + 1, j + 1] = min(steps)
    return table[-1, -1]


# Somewhere in the output


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("The sign says STOP.", ["halt", "stop"], 1.0),
        ("concatenate", ["cat"], 1.0),
        ("paris", ["Paris"], 0.0),  # the answers keep their case, the output does not
        ("Paris", ["Paris"], 0.0),
        ("nothing", ["stop"], 0.0),
        ("nothing", ["stop", ""], 0.0),
        ("", ["stop"], 0.0),
    ],
)
def test_an_answer_in_the_lowered_output(prediction, answers, score):
    assert contains_answer(prediction, answers) == score
    assert contains_answer(prediction, answers[::-1]) == score


@given(st.text(), st.text(), st.text("abc", min_size=1))
def test_whatever_surrounds_an_answer(before, after, answer):
    assert contains_answer(before + answer.upper() + after, ["xyz" * 99, answer]) == 1.0
    assert contains_class(before + answer + after, [answer]) == 1.0


def test_the_case_of_a_class_counts():
    assert contains_class("This is Throat clearing.", ["Throat clearing"]) == 1.0
    assert contains_class("this is throat clearing", ["Throat clearing"]) == 0.0
    assert contains_class("Cough or Sneeze", ["Sneeze"]) == 1.0


@pytest.mark.parametrize(
    ("prediction", "score"),
    [("B", 1), ("B. focal", 1), ("Both", 1), ("b", 0), (" B", 0), ("(B)", 0), ("A", 0), ("", 0)],
)
def test_the_first_letter(prediction, score):
    assert first_letter(prediction, ["B"]) == score
    assert first_letter(prediction, ["B", "focal"], ["diffuse", "focal"]) == score


# Words


def test_what_the_normaliser_does():
    assert spoken("Mr. Brown's dog WON'T eat [noise] twenty-one cakes, uh!") == (
        "mister brown is dog will not eat 21 cakes"
    )
    assert spoken(" colour ") == "colour"  # no table of British spellings
    assert spoken("Well... it costs $5. 20%!") == "well it costs $5 20%"


@given(WORDS, SOME)
def test_edits_over_words(said, given):
    rate = edits(said, given) / len(given)
    prediction, transcript = " ".join(said), " ".join(given)
    assert word_error_rate([prediction], [transcript]) == pytest.approx(rate)
    assert word_accuracy(prediction, [transcript]) == pytest.approx(max(0, 1 - rate))
    inside = transcript in prediction
    assert wrr(prediction, [transcript]) == pytest.approx(1.0 if inside else 1 - rate)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=4), WORDS, SOME)
def test_a_data_set_sums_edits_and_words(pairs, said, given):
    pairs = [*pairs, (said, given)]
    total = sum(edits(*pair) for pair in pairs) / sum(len(words) for _, words in pairs)
    said, given = ([" ".join(words) for words in texts] for texts in zip(*pairs, strict=True))
    assert word_error_rate(said, given) == pytest.approx(total)
    assert word_error_rate(said[::-1], given[::-1]) == pytest.approx(total)


@given(WORDS, st.lists(SOME, min_size=1, max_size=3))
def test_bounds_and_what_does_not_count(said, given):
    prediction, answers = " ".join(said), [" ".join(words) for words in given]
    for score, low in ((word_accuracy, 0.0), (wrr, -np.inf)):
        value = score(prediction, answers)
        assert low <= value <= 1.0
        assert value == max(score(prediction, [one]) for one in answers)
        assert value == score(prediction, answers[::-1])
        assert value == score(f"  {prediction.upper()}\n", [a.title() for a in answers])
        assert score(answers[0], answers) == 1.0
    assert word_accuracy(prediction + " .", answers) == word_accuracy(prediction, answers)


@pytest.mark.parametrize(
    ("prediction", "transcript", "accuracy", "rate"),
    [
        ("He said: the cat sat, and left.", "THE CAT SAT", 0.0, 1.0),  # the transcript is inside
        ("The cat, sat", "THE CAT SAT", 1.0, 2 / 3),  # signs stay
        ("the theory", "the", 0.0, 1.0),
        ("one two three four five", "six seven", 0.0, -1.5),
        ("it won't rain", "it will not rain", 1.0, 0.5),
        ("", "the cat", 0.0, 0.0),
    ],
)
def test_where_the_two_differ(prediction, transcript, accuracy, rate):
    assert word_accuracy(prediction, [transcript]) == pytest.approx(accuracy)
    assert wrr(prediction, [transcript]) == pytest.approx(rate)


@pytest.mark.parametrize("length", [255, 256, 257, 600])
def test_long_transcripts_do_not_wrap(length):
    # In 8 bits 256 edits are 0.
    transcript = " ".join(f"w{i}" for i in range(length))
    assert wrr("", [transcript]) == 0.0
    assert wrr(" ".join(["x"] * 2 * length), [transcript]) == -1.0
    half = " ".join(f"w{i}" for i in range(0, length, 2))
    assert wrr(half, [transcript]) == pytest.approx(-(-length // 2) / length)


# Names, and what cannot be scored


def asked(**fields):
    return Sample("q", "prompt", **fields)


def test_by_name():
    assert metric("contains_answer")("A Cat", ["cat"]) == 1.0
    assert scorer("contains_class")("a Cough", asked(answers=("Cough",))) == 1.0
    assert scorer("wrr")("a b x", asked(answers=("A B C",))) == pytest.approx(2 / 3)
    assert scorer("word_accuracy")("a, c", asked(answers=("A. B. C.",))) == pytest.approx(2 / 3)
    many = asked(answers=("E",), choices=tuple("vwxyz"))
    assert scorer("first_letter")("E", many) == 1.0
    check_scorable("first_letter", many)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("contains_answer", {"answers": ("", "")}, "'q': An empty text is part of every output"),
        ("contains_class", {"answers": ("",)}, "'q': An empty text"),
        (
            "contains_class",
            {"answers": ("cough",), "choices": ("Cough", "Sigh")},
            "'cough' is none of the classes 'Cough', 'Sigh'",
        ),
        ("first_letter", {"answers": ("E",)}, "'E' is not the letter .* one of A, B, C, D as"),
        ("first_letter", {"answers": ("C",), "choices": ("x", "y")}, "one of A, B as"),
        ("first_letter", {"answers": ("focal", "A")}, "'focal' is not the letter"),
        ("wrr", {"answers": ("a", " ")}, "transcripts have no words"),
        ("word_accuracy", {"answers": ("[noise] ...",)}, "transcripts have no words"),
    ],
)
def test_samples_that_do_not_fit(name, fields, message):
    with pytest.raises(SampleError, match=message):
        check_scorable(name, asked(**fields))


def test_samples_that_fit():
    check_scorable("contains_answer", asked(answers=("stop", "")))
    check_scorable("contains_class", asked(answers=("Cough",), choices=("Cough", "Sigh")))
    check_scorable("first_letter", asked(answers=("B", "y"), choices=("x", "y")))
    for name in ("wrr", "word_accuracy"):
        check_scorable(name, asked(answers=("THE CAT",)))


def test_texts_that_do_not_pair():
    with pytest.raises(SampleError, match="2 predictions with 1 transcripts"):
        word_error_rate(["a", "b"], ["a"])
    with pytest.raises(SampleError, match="no words"):
        word_error_rate([], [])
    with pytest.raises(SampleError, match="none was given"):
        word_accuracy("a", [])


@pytest.mark.parametrize("name", ["wrr", "word_accuracy"])
def test_without_jiwer(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(SampleError, match=r"needs the package jiwer.*\"mmlens\[metrics\]\""):
        check_scorable(name, asked(answers=("a",)))
