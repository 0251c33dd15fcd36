"""Metrics by name, for samples: what a metric needs besides the accepted answers comes from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.metrics.caption_bleu import bleu, bleu_method1
from mmlens.metrics.caption_cider import Cider, tfidf_cosine
from mmlens.metrics.contains import (
    check_class,
    contains_answer,
    contains_class,
    first_letter,
    right_letter,
)
from mmlens.metrics.edit_distance import anls, levenshtein_similarity
from mmlens.metrics.lingo_judge import load_lingo_judge
from mmlens.metrics.options import option_letter, right_option
from mmlens.metrics.speech import word_accuracy, wrr
from mmlens.metrics.text import exact_match, same_lowered
from mmlens.metrics.vqa import confident_member, vqa_accuracy
from mmlens.metrics.words import reference_words

#: Scores a prediction against the accepted answers.
Metric = Callable[[str, Sequence[str]], float]

#: Scores a prediction for a sample, of which it may use any field.
SampleMetric = Callable[[str, Sample], float]

#: Metrics that need nothing but the accepted answers. All are shares in [0, 1], higher is better, but
#: for ``wrr``, which may fall below 0.
METRICS: Mapping[str, Metric] = {
    "exact_match": exact_match,
    "same_lowered": same_lowered,
    "vqa_accuracy": vqa_accuracy,
    "anls": anls,
    "levenshtein_similarity": levenshtein_similarity,
    "contains_answer": contains_answer,
    "contains_class": contains_class,
    "wrr": wrr,
    "word_accuracy": word_accuracy,
    "bleu": bleu,
    "bleu_method1": bleu_method1,
    "bleu_method1_max": partial(bleu_method1, over="max"),
    "bleu_method1_min": partial(bleu_method1, over="min"),
    "tfidf_cosine": tfidf_cosine,
    "tfidf_cosine_max": partial(tfidf_cosine, over="max"),
    "tfidf_cosine_min": partial(tfidf_cosine, over="min"),
}


def _confident_member(prediction: str, sample: Sample) -> float:
    return confident_member(prediction, sample.answers, sample.fields.get("confidence"))


def _option_letter(prediction: str, sample: Sample) -> float:
    return option_letter(prediction, sample.answers, sample.choices)


def _first_letter(prediction: str, sample: Sample) -> float:
    return first_letter(prediction, sample.answers, sample.choices)


def _lingo_judge() -> SampleMetric:
    judge = load_lingo_judge()

    def judged(prediction: str, sample: Sample) -> float:
        # The prompt may say more than the question; the judge was trained on the question.
        question = str(sample.fields.get("question", sample.text))
        return judge.score(question, sample.answers, prediction)

    return judged


def _cider(samples: Sequence[Sample]) -> SampleMetric:
    corpus = Cider.of([sample.answers for sample in samples if sample.answers])
    return lambda prediction, sample: corpus.score(prediction, sample.answers)


#: Metrics that need more of a sample, each made when it is asked for (a judge must be loaded). All are
#: shares in [0, 1].
SAMPLE_METRICS: Mapping[str, Callable[[], SampleMetric]] = {
    "confident_member": lambda: _confident_member,
    "option_letter": lambda: _option_letter,
    "first_letter": lambda: _first_letter,
    "lingo_judge": _lingo_judge,
}

#: Metrics that depend on all samples scored together, each made of these. ``cider`` is in [0, 10].
CORPUS_METRICS: Mapping[str, Callable[[Sequence[Sample]], SampleMetric]] = {"cider": _cider}


def metric(name: str) -> Metric:
    """The metric of that name, for one that needs nothing but the accepted answers.

    Raises:
        SampleError: there is none.
    """
    if name in SAMPLE_METRICS or name in CORPUS_METRICS:
        call = f"scorer({name!r})" if name in SAMPLE_METRICS else f"scorer({name!r}, samples)"
        raise SampleError(f"The metric {name!r} needs more than the accepted answers; use {call}.")
    if name not in METRICS:
        known = ", ".join([*METRICS, *SAMPLE_METRICS, *CORPUS_METRICS])
        raise SampleError(f"There is no metric {name!r}; there are {known}.")
    return METRICS[name]


def scorer(name: str | Mapping[str, str], samples: Sequence[Sample] | None = None) -> SampleMetric:
    """A function that scores a prediction for a sample.

    Args:
        name: a metric, or a metric for each domain, for samples of several benchmarks.
        samples: all that are to be scored, for a metric of :data:`CORPUS_METRICS`; where there is a
            metric for each domain, it goes by those of its domain. Scores of such a metric are
            comparable only if made with the same samples.

    Raises:
        SampleError: there is no such metric, its model cannot be loaded, or it needs the samples and
            they are missing or too few. The function itself raises it for a sample that the metric
            does not fit (see :func:`check_scorable`).
    """
    if not isinstance(name, str):
        return _scorer_by_domain(name, samples)
    if name in SAMPLE_METRICS:
        return SAMPLE_METRICS[name]()
    if name in CORPUS_METRICS:
        if samples is None:
            raise SampleError(
                f"The metric {name!r} depends on all samples that are scored; use "
                f"scorer({name!r}, samples)."
            )
        return CORPUS_METRICS[name](samples)
    plain = metric(name)
    return lambda prediction, sample: plain(prediction, sample.answers)


def _scorer_by_domain(name: Mapping[str, str], samples: Sequence[Sample] | None) -> SampleMetric:
    by_domain: dict[str, SampleMetric] = {}
    for domain, one in name.items():
        asked = None if samples is None else [s for s in samples if s.domain == domain]
        # Metrics may be named for domains that are not asked; nothing can be made of no samples.
        if one not in CORPUS_METRICS or asked != []:
            by_domain[domain] = scorer(one, asked)

    def scored(prediction: str, sample: Sample) -> float:
        one = metric_name(name, sample)
        if sample.domain not in by_domain:
            raise SampleError(
                f"Sample {sample.id!r} of domain {sample.domain!r} is not among those that the "
                f"metric {one!r} was made of; give all samples to scorer."
            )
        return by_domain[sample.domain](prediction, sample)

    return scored


def check_scorable(name: str | Mapping[str, str], sample: Sample) -> None:
    """Refuse a sample that a metric cannot score, before anything is asked.

    Raises:
        SampleError: no accepted answer; or what the metric needs besides is missing or wrong, be it
            a package.
    """
    if not sample.answers:
        raise SampleError(f"Sample {sample.id!r} has no accepted answer to score against.")
    one = metric_name(name, sample)
    try:
        if one == "contains_class":
            check_class(sample.answers, sample.choices)
        elif one in METRICS:
            METRICS[one]("", sample.answers)
        elif one == "cider":
            reference_words(sample.answers, one)
        elif one == "first_letter":
            right_letter(sample.answers, sample.choices)
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
