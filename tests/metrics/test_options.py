"""Which option an answer names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import SampleError
from mmlens.metrics.options import chosen_option, option_letter

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
