"""Scoring one answer against the accepted ones: each benchmark's own metric, and the paper code's."""

from mmlens.metrics.caption_bleu import bleu, bleu_method1, corpus_bleu
from mmlens.metrics.caption_cider import Cider, cider, tfidf_cosine
from mmlens.metrics.contains import contains_answer, contains_class, first_letter
from mmlens.metrics.edit_distance import anls, levenshtein_similarity
from mmlens.metrics.lingo_judge import LingoJudge, any_row_right, load_lingo_judge
from mmlens.metrics.options import chosen_option, option_letter
from mmlens.metrics.scoring import (
    CORPUS_METRICS,
    METRICS,
    SAMPLE_METRICS,
    Metric,
    SampleMetric,
    check_scorable,
    metric,
    scorer,
)
from mmlens.metrics.speech import spoken, word_accuracy, word_error_rate, wrr
from mmlens.metrics.text import exact_match, normalised, same_lowered
from mmlens.metrics.vqa import confident_member, vqa_accuracy, vqa_answer
from mmlens.metrics.words import caption_words

__all__ = [
    "CORPUS_METRICS",
    "METRICS",
    "SAMPLE_METRICS",
    "Cider",
    "LingoJudge",
    "Metric",
    "SampleMetric",
    "anls",
    "any_row_right",
    "bleu",
    "bleu_method1",
    "caption_words",
    "check_scorable",
    "chosen_option",
    "cider",
    "confident_member",
    "contains_answer",
    "contains_class",
    "corpus_bleu",
    "exact_match",
    "first_letter",
    "levenshtein_similarity",
    "load_lingo_judge",
    "metric",
    "normalised",
    "option_letter",
    "same_lowered",
    "scorer",
    "spoken",
    "tfidf_cosine",
    "vqa_accuracy",
    "vqa_answer",
    "word_accuracy",
    "word_error_rate",
    "wrr",
]
