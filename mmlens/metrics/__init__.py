"""Scoring one answer against the accepted ones: each benchmark's own metric, and the paper code's."""

from mmlens.metrics.edit_distance import anls, levenshtein_similarity
from mmlens.metrics.lingo_judge import LingoJudge, any_row_right, load_lingo_judge
from mmlens.metrics.options import chosen_option, option_letter
from mmlens.metrics.scoring import (
    METRICS,
    SAMPLE_METRICS,
    Metric,
    SampleMetric,
    check_scorable,
    metric,
    scorer,
)
from mmlens.metrics.text import exact_match, normalised, same_lowered
from mmlens.metrics.vqa import confident_member, vqa_accuracy, vqa_answer

__all__ = [
    "METRICS",
    "SAMPLE_METRICS",
    "LingoJudge",
    "Metric",
    "SampleMetric",
    "any_row_right",
    "anls",
    "check_scorable",
    "chosen_option",
    "confident_member",
    "exact_match",
    "levenshtein_similarity",
    "load_lingo_judge",
    "metric",
    "normalised",
    "option_letter",
    "same_lowered",
    "scorer",
    "vqa_accuracy",
    "vqa_answer",
]
