"""ANLS against its package and a table of edits."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import SampleError
from mmlens.metrics.edit_distance import anls, edit_distance, levenshtein_similarity


def distance(one, other):
    """By the recursive definition."""

    @cache
    def rest(i, j):
        if i == len(one) or j == len(other):
            return len(one) - i + len(other) - j
        if one[i] == other[j]:
            return rest(i + 1, j + 1)
        return 1 + min(rest(i + 1, j), rest(i, j + 1), rest(i + 1, j + 1))

    return rest(0, 0)


SHORT = st.text("ab B", max_size=7)


@given(SHORT, SHORT)
def test_edit_distance(one, other):
    assert edit_distance(one, other) == distance(one, other)


@given(SHORT, st.lists(SHORT, min_size=1, max_size=3), st.sampled_from([0.25, 0.5, 1.0]))
def test_anls_against_the_package_of_that_name(prediction, answers, threshold):
    package = pytest.importorskip("anls")
    expected = package.anls_score(prediction, answers, threshold=threshold)
    assert anls(prediction, answers, threshold=threshold) == pytest.approx(expected)
    if threshold == 1.0:
        assert levenshtein_similarity(prediction, answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "answers", "strict", "free"),
    [
        ("10 January", ["10  january "], 1.0, 1.0),
        ("abcd", ["abxx"], 0.0, 0.5),  # half of it is wrong: no longer near
        ("abcde", ["abcxx"], 0.6, 0.6),
        ("abc", ["xyz"], 0.0, 0.0),
        ("", [""], 1.0, 1.0),
        ("", ["abc"], 0.0, 0.0),
        ("abcd", ["zzzz", "abcx"], 0.75, 0.75),
    ],
)
def test_anls_cuts_what_is_far_and_the_paper_does_not(prediction, answers, strict, free):
    assert anls(prediction, answers) == pytest.approx(strict)
    assert levenshtein_similarity(prediction, answers) == pytest.approx(free)


def test_anls_needs_an_answer():
    with pytest.raises(SampleError, match="at least one accepted answer"):
        anls("a", [])
