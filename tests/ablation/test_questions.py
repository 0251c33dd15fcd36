"""Which questions there are, and which a mask is asked."""

import pytest

from mmlens.ablation.questions import Questions
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from tests.helpers.masks import DOMAINS, QUESTIONS


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


def test_who_is_asked_what():
    assert QUESTIONS.asked("red", full=False) == {"red": ("r0", "r1", "r2", "r3"), "blue": ("b2",)}
    assert QUESTIONS.asked("blue", full=False) == {"red": ("r0", "r1"), "blue": ("b0", "b1", "b2")}
    assert QUESTIONS.asked("all", full=False) == {"red": ("r0", "r1"), "blue": ("b2",)}
    for mask in ("red", "blue", "all"):
        assert QUESTIONS.asked(mask, full=True) == dict(QUESTIONS.own)
