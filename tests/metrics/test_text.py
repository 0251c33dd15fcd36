"""Answers that must be the same text."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlens.metrics.text import exact_match, normalised, same_lowered


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("yes", ["yes"], 1.0),
        (" Yes.\n", ["yes"], 1.0),
        ("yes", ["YES!"], 1.0),
        ("two  cats", ["Two cats"], 1.0),
        ("two\tcats", ["two cats"], 1.0),
        ("b", ["a", "B"], 1.0),
        ("twocats", ["two cats"], 0.0),
        ("yes it is", ["yes"], 0.0),
        ("ye", ["yes"], 0.0),
        ("no", ["yes", "maybe"], 0.0),
        ("", ["yes"], 0.0),
        ("yes", [], 0.0),
        ("12.5", ["12.5"], 1.0),
        ("über", ["ÜBER"], 1.0),
    ],
)
def test_exact_match(prediction, answers, expected):
    assert exact_match(prediction, answers) == expected


@given(st.text())
def test_normalising_is_idempotent_and_clean(text):
    once = normalised(text)
    assert normalised(once) == once
    assert once == once.lower().strip()
    assert "  " not in once
    assert not set(once) & set(string.punctuation)
    assert not set(once) & set("\t\r\n")


@given(st.text(st.characters(categories=["Ll", "Nd"], max_codepoint=127), min_size=1))
def test_case_blanks_and_punctuation_do_not_count(word):
    assert exact_match(f"  {word.upper()}. ", [word]) == 1.0
    assert exact_match(f"{word}x", [word]) == 0.0


def test_only_the_case_may_differ():
    assert same_lowered("YES", ["no", "Yes"]) == 1.0
    assert same_lowered("yes.", ["yes"]) == 0.0
    assert same_lowered("yes", []) == 0.0
