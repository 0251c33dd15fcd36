"""What a mask costs beside its controls: paired per question, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mmlens.errors import SampleError
from mmlens.statistics.bootstrap import drawn_counts, interval


@dataclass(frozen=True)
class Effect:
    """Cost of a mask beside that of its controls, on the same questions.

    In the unit of the scores: accuracies are shares in [0, 1], log-probabilities nats per token.

    Attributes:
        n_questions: questions asked.
        n_seeds: control sets.
        baseline: mean score untouched.
        masked: under the mask.
        control_mean: under a control, mean over seeds.
        control_sd: its standard deviation over seeds.
        drop: baseline - masked.
        control_drop: baseline - control_mean.
        difference: drop - control_drop; above 0: the mask costs more than its control.
        low, high: bootstrap 95% interval of the difference.
    """

    n_questions: int
    n_seeds: int
    baseline: float
    masked: float
    control_mean: float
    control_sd: float
    drop: float
    control_drop: float
    difference: float
    low: float
    high: float


def paired_effect(
    baseline: Float[np.ndarray, " question"],
    masked: Float[np.ndarray, " question"],
    controls: Float[np.ndarray, "seed question"],
    clusters: Sequence[object] | None = None,
    *,
    weights: Float[np.ndarray, " question"] | None = None,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Effect:
    """Cost of a mask against its controls, question by question.

    The difference is mean_q [ mean_s control[s, q] - masked[q] ]: what the mask costs beyond what
    the same intervention on other neurons costs. Its interval is a percentile bootstrap that draws clusters of
    questions (those on one picture, or one source, are not independent) and control seeds anew.

    Args:
        baseline: score of each question untouched.
        masked: under the mask.
        controls: under each control.
        clusters: the cluster of each question; None: every question is its own.
        weights: what each question counts in every mean, above 0 (a text's tokens, say); None: alike.
        draws: bootstrap draws.
        confidence: of the interval.
        seed: of the draws.

    Raises:
        SampleError: no question, or no control.
    """
    if not len(baseline) or not len(controls):
        raise SampleError("An effect needs at least one question and one control set.")
    weights = np.ones(len(baseline)) if weights is None else weights
    cluster = _cluster_numbers(clusters, len(baseline))
    sizes = np.bincount(cluster, weights=weights)
    mask_sums, *control_sums = (
        np.bincount(cluster, weights=scores * weights) for scores in (masked, *controls)
    )

    rng = np.random.default_rng(seed)
    often = drawn_counts(rng, len(sizes), draws).astype(float)
    seeds = drawn_counts(rng, len(controls), draws) / len(controls)
    control = np.einsum("ds,sc,dc->d", seeds, np.stack(control_sums), often)
    low, high = interval((control - often @ mask_sums) / (often @ sizes), confidence)

    base, hit = (float(np.average(scores, weights=weights)) for scores in (baseline, masked))
    per_seed = np.average(controls, axis=1, weights=weights)
    mean = float(per_seed.mean())
    return Effect(
        n_questions=len(baseline),
        n_seeds=len(controls),
        baseline=base,
        masked=hit,
        control_mean=mean,
        control_sd=float(per_seed.std(ddof=1)) if len(controls) > 1 else 0.0,
        drop=base - hit,
        control_drop=base - mean,
        difference=mean - hit,
        low=float(low),
        high=float(high),
    )


def _cluster_numbers(
    clusters: Sequence[object] | None, questions: int
) -> Int[np.ndarray, " question"]:
    if clusters is None:
        return np.arange(questions)
    if len(clusters) != questions:
        raise SampleError(f"{len(clusters)} clusters were given for {questions} questions.")
    return np.unique([str(c) for c in clusters], return_inverse=True)[1]
