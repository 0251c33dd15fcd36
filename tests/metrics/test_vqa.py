"""VQA accuracy against what the published script gives."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import SampleError
from mmlens.metrics.vqa import confident_member, vqa_accuracy, vqa_answer

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
