"""Metrics by name, for samples."""

import pytest

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.metrics.scoring import check_scorable, metric, scorer
from mmlens.metrics.text import exact_match


def test_metrics_by_name():
    assert metric("exact_match") is exact_match
    with pytest.raises(SampleError, match="no metric 'rouge'; there are exact_match.*lingo_judge"):
        metric("rouge")
    with pytest.raises(SampleError, match=r"use scorer\('option_letter'\)"):
        metric("option_letter")


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
