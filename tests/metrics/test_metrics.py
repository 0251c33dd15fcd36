import itertools
import string
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.metrics import (
    anls,
    check_scorable,
    chosen_option,
    confident_member,
    exact_match,
    levenshtein_similarity,
    metric,
    normalised,
    option_letter,
    same_lowered,
    scorer,
    vqa_accuracy,
    vqa_answer,
)
from mmlens.metrics.edit_distance import edit_distance


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


def test_metrics_by_name():
    assert metric("exact_match") is exact_match
    with pytest.raises(SampleError, match="no metric 'rouge'; there are exact_match.*lingo_judge"):
        metric("rouge")
    with pytest.raises(SampleError, match=r"use scorer\('option_letter'\)"):
        metric("option_letter")


def test_only_the_case_may_differ():
    assert same_lowered("YES", ["no", "Yes"]) == 1.0
    assert same_lowered("yes.", ["yes"]) == 0.0
    assert same_lowered("yes", []) == 0.0


# VQA accuracy

# Each text with what the published script (GT-Vision-Lab/VQA, vqaEval.py) made of it.
PUBLISHED = [
    ("The two dogs, dont run.", "2 dogs don't run"),
    ("blue-green", "blue green"),
    ("blue - green", "blue green"),
    ("1,000,000", "1000000"),
    ("2.5", "2.5"),
    ("2.", "2"),
    ("U.S.A.", "usa"),
    ("its", "its"),
    ("couldntve", "couldntve"),
    ("couldn'tve", "couldn't've"),
    ("couldnt've", "couldn't've"),
    ("Im", "im"),
    ("lets", "lets"),
    ("somebody'd", "somebodyd"),
    ("yall'd've", "y'all'd've"),
    ("ow's'at", "'ow's'at"),
    ("none", "0"),
    ("Zero", "0"),
    ("ten", "10"),
    ("eleven", "eleven"),
    ("an apple a day", "apple day"),
    ("the", ""),
    ("stop sign (red)", "stop sign red"),
    ("a/b", "b"),
    ("?", ""),
    ("-1", "1"),
    ("$5", "$5"),
    ("yes/no", "yes no"),
    ("New\nYork", "new york"),
    ("3,5 , 4", "35 4"),
    ("oclock", "o'clock"),
    ("e-mail@x.com", "e mail xcom"),
    ("10:30", "10:30"),
    ("over...there", "overthere"),
    ("thats it;", "that's it"),
    ("1,2 - 3", "12 3"),
    ("a." * 40, "a" * 32 + "a" + ".a" * 7 + "."),
]


@pytest.mark.parametrize(("text", "expected"), PUBLISHED)
def test_answers_are_cleaned_as_the_published_script_does(text, expected):
    assert vqa_answer(text) == expected


def leave_one_out(said, given):
    """VQA accuracy straight from its definition: every nine of the ten answers."""
    nines = itertools.combinations(given, 9)
    return np.mean([min(1, sum(one == said for one in nine) / 3) for nine in nines])


@given(st.lists(st.sampled_from(["cat", "dog", "2"]), min_size=10, max_size=10))
def test_vqa_accuracy_is_the_mean_over_nine_annotators(answers):
    for said in ("cat", "dog", "2", "unanswerable"):
        assert vqa_accuracy(said, answers) == pytest.approx(leave_one_out(said, answers))


@pytest.mark.parametrize(
    ("matches", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_vqa_accuracy_by_agreement(matches, score):
    answers = ["unanswerable"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert vqa_accuracy("Unanswerable.", answers) == pytest.approx(score)


def test_ten_who_agree_are_compared_as_they_wrote_in_the_published_script():
    assert vqa_accuracy("Yes.", ["yes"] * 10) == 1.0
    assert vqa_accuracy("Yes.", ["yes"] * 10, as_published=True) == 0.0
    assert vqa_accuracy("yes\n", ["yes"] * 10, as_published=True) == 1.0
    assert vqa_accuracy("Yes.", ["yes"] * 9 + ["no"], as_published=True) == 1.0


@pytest.mark.parametrize("answers", [[], ["yes"], ["yes"] * 9, ["yes"] * 11])
def test_vqa_accuracy_needs_ten_answers(answers):
    with pytest.raises(SampleError, match=f"all 10 annotators.*; {len(answers)} were given"):
        vqa_accuracy("yes", answers)


def test_an_annotator_who_was_sure():
    answers, sure = ["Cat", "dog", "dog"], ["yes", "maybe", "no"]
    assert confident_member("cAT", answers, sure) == 1.0
    assert confident_member("dog", answers, sure) == 0.0
    assert confident_member("cat.", answers, sure) == 0.0
    with pytest.raises(SampleError, match="3 answers with no confidences"):
        confident_member("cat", answers, None)
    with pytest.raises(SampleError, match="3 answers with 2 confidences"):
        confident_member("cat", answers, sure[:2])


# Edit distance


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


# Options

CHOICES = ["Diffuse pattern", "Focal pattern", "B cells", "Vitamin (A)"]


@pytest.mark.parametrize(
    ("prediction", "number"),
    [
        ("B", 1),
        ("b", 1),
        (" (b) ", 1),
        ("B.", 1),
        ("**B**", 1),
        ("B: Focal pattern", 1),
        ("B focal pattern.", 1),
        ("(B) because it is focal", 1),
        ("b) focal", 1),
        ("B\nIt is focal.", 1),
        ("The answer is B.", 1),
        ("the correct choice is d", 3),
        ("Answer: (C)", 2),
        ("Option D is right", 3),
        ("I choose (C) here", 2),
        ("focal pattern", 1),
        ("B cells", 2),
        ("Vitamin (A)", 3),
        ("A focal pattern", None),
        ("A or B", None),
        ("A and B", None),
        ("either (A) or maybe (C)", None),
        ("E", None),
        ("none of them", None),
        ("B lymphocytes", None),
        ("", None),
    ],
)
def test_the_option_that_an_answer_names(prediction, number):
    assert chosen_option(prediction, CHOICES) == number


@given(
    st.integers(0, 3), st.sampled_from(["{}", "({})", "{}.", "{}:", "The answer is {}.", "{}) x"])
)
def test_the_right_letter_and_no_other_scores(right, form):
    for i, letter in enumerate("ABCD"):
        said = form.format(letter)
        assert option_letter(said, ["ABCD"[right]], CHOICES) == float(i == right)
        assert option_letter(said, ["ABCD"[right], CHOICES[right]], CHOICES) == float(i == right)


def test_a_letter_decides_which_option_is_right():
    # An option's own text may be another one's letter.
    assert option_letter("A", ["A", "B"], ["B", "A"]) == 1.0
    assert option_letter("B", ["A", "B"], ["B", "A"]) == 0.0


def test_options_that_cannot_be_scored():
    with pytest.raises(SampleError, match="'E' mean none of the options 'Diffuse pattern'"):
        option_letter("A", ["E"], CHOICES)
    with pytest.raises(SampleError, match="mean several of the options"):
        option_letter("A", ["Diffuse pattern", "Focal pattern"], CHOICES)
    with pytest.raises(SampleError, match="0 choices"):
        option_letter("A", ["A"], [])


# Metrics for samples


def asked(**fields):
    return Sample("q", "prompt", **fields)


def test_a_scorer_takes_what_its_metric_needs_from_the_sample():
    assert scorer("exact_match")("Yes.", asked(answers=("yes",))) == 1.0
    assert scorer("option_letter")("B", asked(answers=("B", "y"), choices=("x", "y"))) == 1.0
    sure = asked(answers=("yes", "no"), fields={"confidence": ("maybe", "yes")})
    assert scorer("confident_member")("no", sure) == 1.0
    assert scorer("confident_member")("yes", sure) == 0.0


def test_a_metric_for_each_domain():
    score = scorer({"doc": "anls", "rs": "exact_match"})
    assert score("abcx", asked(answers=("abcd",), domain="doc")) == 0.75
    assert score("abcx", asked(answers=("abcd",), domain="rs")) == 0.0
    for bad in ("med", None):
        with pytest.raises(SampleError, match=f"domain {bad!r}, for which no metric is given"):
            score("a", asked(answers=("a",), domain=bad))
    with pytest.raises(SampleError, match="no metric 'rouge'"):
        scorer({"doc": "rouge"})


@pytest.mark.parametrize(
    ("name", "sample", "message"),
    [
        ("exact_match", asked(), "'q' has no accepted answer"),
        ("vqa_accuracy", asked(answers=("yes",)), "'q': VQA accuracy needs"),
        ("confident_member", asked(answers=("yes",)), "'q': 1 answers with no confidences"),
        ("option_letter", asked(answers=("z",), choices=("x", "y")), "'q': .* none of the options"),
        ({"doc": "anls"}, asked(answers=("yes",), domain="rs"), "domain 'rs'"),
    ],
)
def test_samples_that_a_metric_does_not_fit_are_told_before_asking(name, sample, message):
    with pytest.raises(SampleError, match=message):
        check_scorable(name, sample)


def test_samples_that_fit():
    check_scorable("vqa_accuracy", asked(answers=("yes",) * 10))
    check_scorable("option_letter", asked(answers=("y",), choices=("x", "y")))
    check_scorable("lingo_judge", asked(answers=("yes",)))
