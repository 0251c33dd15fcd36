"""Answers by generation under many conditions of changed neurons, each answer recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmlens.ablation.answering import Answerer
from mmlens.ablation.conditions import Condition
from mmlens.ablation.decoding import Decoding
from mmlens.ablation.donors import ConditionHooks
from mmlens.ablation.passes import KEY, blocks_of, resumed
from mmlens.data.samples import Sample
from mmlens.metrics import check_scorable, scorer
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.streaming.batching import Batching
from mmlens.streaming.sweep import ALONE, Rows, Share, planned


@dataclass(frozen=True)
class Answers:
    """Every answer, and what could not be asked.

    Attributes:
        frame: a row per (condition, sample): ``setting``, ``id``, ``prediction``, ``score``.
        skipped: sample id -> why it could not be asked.
        tokens: prompt tokens run in this call, padding left out.
    """

    frame: pd.DataFrame
    skipped: Mapping[str, str]
    tokens: int


def evaluate(
    model: HookedMLLM,
    samples: Sequence[Sample],
    conditions: Sequence[Condition],
    *,
    answers: Path | None = None,
    metric_name: str | Mapping[str, str] = "exact_match",
    max_new_tokens: int = 16,
    statistics: NeuronStatistics | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    together: bool = True,
    keep_unaffected: bool = False,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
    share: Share = ALONE,
) -> Answers:
    """Ask questions under every condition, greedily or sampled, and score the answers.

    Samples asked by the same conditions run together; their media are encoded once for all conditions
    that leave the towers alone. Those conditions run side by side too, as rows of one batch with each
    its own hooks (:func:`mmlens.hooks.on_rows`), as many as keep it within the token budget and
    ``max_batch``; whatever needs donors (resampling) or changes towers runs by itself.

    Args:
        model: a hooked model.
        samples: the questions, with accepted answers.
        conditions: what to do to which neurons, and which questions to ask then.
        answers: a JSON-lines file to which every answer is appended as soon as it is there. A second
            call with the same file asks only what is missing; it goes by the conditions' names, so
            keep one file for one temperature and seed.
        metric_name: a metric (see :func:`mmlens.metrics.scorer`), or one for each domain.
        max_new_tokens: length of an answer at most.
        statistics: of this model, for the interventions that need them.
        temperature: 0 decodes greedily; above 0 each token is drawn from softmax(logits / T)
            (:class:`mmlens.ablation.decoding.SeededSampling`), MMNeuron's code at 0.9.
        seed: of those draws, and of who is whose donor when resampling. A sample's draws are the
            same under every condition and in any batch.
        together: run conditions side by side; False: one by one, with the same answers.
        keep_unaffected: also ask samples that have no token of the group that a condition's
            intervention is limited to, and so are answered as without it (but for new tokens, where it
            changes those). By default they are refused, so that nobody takes them for masked.
        batching: how samples become prompts and batches.
        share: this process's part, where several run the pass together.

    Raises:
        SampleError: a condition asks an unknown sample, a sample has no accepted answer or not what
            the metric needs, or an intervention cannot be done, or has no token to change.
        StatisticsError: the statistics are of another model, or lack what an intervention needs.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    score = scorer(metric_name, samples)
    by_id = {sample.id: sample for sample in samples}
    hooks = ConditionHooks.of(
        model,
        samples,
        conditions,
        template=batching.template,
        seed=seed,
        statistics=statistics,
        keep_unaffected=keep_unaffected,
    )
    for name in sorted(frozenset().union(*(one.ids for one in conditions))):
        check_scorable(metric_name, by_id[name])
    answerer = Answerer(hooks, Decoding(max_new_tokens, temperature, seed), batching, together)
    rows = Rows(share.file(answers), KEY)
    pieces = planned(model, blocks_of(samples, conditions), batching)
    sweep = resumed(
        model, pieces, rows, batching, share, samples=len(samples), description="evaluate"
    )
    tokens = 0
    for piece, batch in sweep:
        tokens += int(batch.groups.attention.sum()) * len(piece.work)
        for new in answerer.answers(batch, piece.work):
            rows.add([{**row, "score": score(row["prediction"], by_id[row["id"]])} for row in new])
            sweep.advance(len(new))
    rows.merge(share)
    wanted = sorted((one.name, name) for one in conditions for name in one.ids)
    frame = pd.DataFrame(rows.of(wanted), columns=["setting", "id", "prediction", "score"])
    return Answers(frame, dict(share.merged(list(sweep.skipped.items()))), tokens)
