"""Metrics by name, for samples: what a metric needs besides the accepted answers comes from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mmlens.errors import SampleError
from mmlens.metrics.edit_distance import anls, levenshtein_similarity
from mmlens.metrics.lingo_judge import load_lingo_judge
from mmlens.metrics.options import option_letter, right_option
from mmlens.metrics.text import exact_match, same_lowered
from mmlens.metrics.vqa import ANNOTATORS, confident_member, vqa_accuracy
from mmlens.samples import Sample

#: Scores a prediction against the accepted answers.
Metric = Callable[[str, Sequence[str]], float]

#: Scores a prediction for a sample, of which it may use any field.
SampleMetric = Callable[[str, Sample], float]

#: Metrics that need nothing but the accepted answers.
METRICS: Mapping[str, Metric] = {
    "exact_match": exact_match,
    "same_lowered": same_lowered,
    "vqa_accuracy": vqa_accuracy,
    "anls": anls,
    "levenshtein_similarity": levenshtein_similarity,
}


def _confident_member(prediction: str, sample: Sample) -> float:
    return confident_member(prediction, sample.answers, sample.fields.get("confidence"))


def _option_letter(prediction: str, sample: Sample) -> float:
    return option_letter(prediction, sample.answers, sample.choices)


def _lingo_judge() -> SampleMetric:
    judge = load_lingo_judge()

    def judged(prediction: str, sample: Sample) -> float:
        # The prompt may say more than the question; the judge was trained on the question.
        question = str(sample.fields.get("question", sample.text))
        return judge.score(question, sample.answers, prediction)

    return judged


#: Metrics that need more of a sample, each made when it is asked for (a judge must be loaded).
SAMPLE_METRICS: Mapping[str, Callable[[], SampleMetric]] = {
    "confident_member": lambda: _confident_member,
    "option_letter": lambda: _option_letter,
    "lingo_judge": _lingo_judge,
}


def metric(name: str) -> Metric:
    """The metric of that name, for one that needs nothing but the accepted answers.

    Raises:
        SampleError: there is none.
    """
    if name in SAMPLE_METRICS:
        raise SampleError(
            f"The metric {name!r} needs more than the accepted answers; use scorer({name!r})."
        )
    if name not in METRICS:
        raise SampleError(f"There is no metric {name!r}; there are {', '.join(_names())}.")
    return METRICS[name]


def scorer(name: str | Mapping[str, str]) -> SampleMetric:
    """A function that scores a prediction for a sample.

    Args:
        name: a metric, or a metric for each domain, for samples of several benchmarks.

    Raises:
        SampleError: there is no such metric, or its model cannot be loaded. The function itself
            raises it for a sample that the metric does not fit (see :func:`check_scorable`).
    """
    if not isinstance(name, str):
        by_domain = {domain: scorer(one) for domain, one in name.items()}

        def scored(prediction: str, sample: Sample) -> float:
            metric_name(name, sample)
            return by_domain[str(sample.domain)](prediction, sample)

        return scored
    if name in SAMPLE_METRICS:
        return SAMPLE_METRICS[name]()
    plain = metric(name)
    return lambda prediction, sample: plain(prediction, sample.answers)


def check_scorable(name: str | Mapping[str, str], sample: Sample) -> None:
    """Refuse a sample that a metric cannot score, before anything is asked.

    Raises:
        SampleError: no accepted answer; or what the metric needs besides is missing or wrong.
    """
    if not sample.answers:
        raise SampleError(f"Sample {sample.id!r} has no accepted answer to score against.")
    one = metric_name(name, sample)
    try:
        if one == "vqa_accuracy" and len(sample.answers) != ANNOTATORS:
            vqa_accuracy("", sample.answers)
        elif one == "confident_member":
            _confident_member("", sample)
        elif one == "option_letter":
            right_option(sample.answers, sample.choices)
    except SampleError as error:
        raise SampleError(f"Sample {sample.id!r}: {error}") from error


def metric_name(name: str | Mapping[str, str], sample: Sample) -> str:
    """The metric that scores a sample.

    Raises:
        SampleError: none is given for its domain.
    """
    if isinstance(name, str):
        return name
    if sample.domain is None or sample.domain not in name:
        raise SampleError(
            f"Sample {sample.id!r} is of domain {sample.domain!r}, for which no metric is given; "
            f"there are metrics for {', '.join(name)}."
        )
    return name[sample.domain]


def _names() -> list[str]:
    return [*METRICS, *SAMPLE_METRICS]
