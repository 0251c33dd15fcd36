"""Log-probability of texts under conditions of changed neurons: LAPE's evaluation (arXiv 2402.16438).

A text is read as a language model reads it: each token is predicted from those before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlens.ablation.conditions import Condition
from mmlens.ablation.donors import ConditionHooks
from mmlens.ablation.masks import Mask
from mmlens.ablation.passes import KEY, resumed
from mmlens.ablation.tables import facts_of
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.prepare import PLAIN_TEXT
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.streaming.batching import Batching
from mmlens.streaming.sweep import ALONE, Piece, Rows, Share, planned


def log_probabilities(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"],
) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
    """Sum of log p(token | those before it) of each row, in nats, and how many tokens that is.

    A row's first real token is read, not predicted; padding is neither. One row at a time is brought
    to float32, so that of the logits no second copy exists; sums are float64.

    Args:
        logits: of every position.
        tokens: what was read there.
        real: where that is not padding.
    """
    sums, counts = [], []
    for row, ids, there in zip(logits, tokens, real, strict=True):
        predicted = there[1:] & there[:-1]
        loss = torch.nn.functional.cross_entropy(
            row[:-1][predicted].float(), ids[1:][predicted], reduction="none"
        )
        sums.append(-loss.double().sum())
        counts.append(predicted.sum())
    return torch.stack(sums).cpu(), torch.stack(counts).cpu()


@torch.no_grad()
def evaluate_texts(
    model: HookedMLLM,
    texts: Sequence[Sample],
    conditions: Sequence[Condition],
    *,
    rows: Path | None = None,
    statistics: NeuronStatistics | None = None,
    seed: int = 0,
    batching: Batching = Batching(token_budget=2048),  # noqa: B008  (frozen)
    share: Share = ALONE,
) -> pd.DataFrame:
    """Log-probability of plain texts under every condition.

    The texts run as the tokenizer makes them, without template or media (``template="none"``). Memory
    beside the model's own: the logits of one batch, token_budget x vocabulary in the model's dtype.

    Args:
        model: a hooked model.
        texts: what is read; of two tokens or more.
        conditions: what to do to which neurons, and the ids of the texts to read then.
        rows: a JSON-lines file to which every text's result is appended as soon as it is there. A
            second call with the same file runs only what is missing.
        statistics: of this model, for the interventions that need them.
        seed: of who is whose donor when resampling.
        batching: how texts become batches; its template is not used.
        share: this process's part, where several run the pass together.

    Returns:
        A row per condition and text: setting, id, log_prob (nats, sum over tokens), tokens (predicted),
        score (log_prob / tokens: nats per token).

    Raises:
        SampleError: conditions of one name, an unknown or repeated id, a text of a single token, a text
            with media, or an intervention that cannot be done or has no token to change.
        StatisticsError: the statistics are of another model, or lack what an intervention needs.
    """
    batching = replace(batching, template=PLAIN_TEXT)
    hooks = ConditionHooks.of(
        model, texts, conditions, template=PLAIN_TEXT, seed=seed, statistics=statistics
    )
    known = Rows(share.file(rows), KEY)
    pieces = _pieces(model, texts, conditions, batching)
    sweep = resumed(model, pieces, known, batching, share, samples=len(texts), description="texts")
    for piece, batch in sweep:
        for condition in piece.work:
            known.add(_read(hooks, condition, batch.to(model.device)))
    known.merge(share)
    wanted = [(one.name, text.id) for one in conditions for text in texts if text.id in one.ids]
    columns = ["setting", "id", "log_prob", "tokens", "score"]
    return pd.DataFrame(known.of(wanted), columns=columns)


def likelihood_table(
    results: pd.DataFrame, masks: Sequence[Mask], texts: Sequence[Sample]
) -> pd.DataFrame:
    """Log-probability and perplexity by mask and evaluated language.

    Columns: mask, kind, seed, fraction, evaluated, n_texts, tokens, log_prob (nats per token, mean
    over all tokens of the language), perplexity (exp of its negative), n_neurons, frequency.

    Args:
        results: frame of :func:`evaluate_texts`.
        masks: what was masked.
        texts: what was read; their ``domain`` is the language.
    """
    language = {t.id: str(t.domain) for t in texts}
    by_name = {one.name: one for one in masks}
    groups: Any = results.groupby(["setting", results["id"].map(language.get)], sort=False)
    rows = []
    for (setting, one), part in groups:
        total = int(part["tokens"].sum())
        mean = sum(part["log_prob"]) / total
        before, after = facts_of(by_name.get(setting))
        measured = {
            "evaluated": one,
            "n_texts": len(part),
            "tokens": total,
            "log_prob": mean,
            "perplexity": math.exp(-mean) if -mean < 700 else math.inf,
        }
        rows.append(before | measured | after)
    return pd.DataFrame(rows)


def _pieces(
    model: HookedMLLM,
    texts: Sequence[Sample],
    conditions: Sequence[Condition],
    batching: Batching,
) -> list[Piece[Sequence[Condition]]]:
    """The batches of one condition after another; those of the same texts are planned once."""
    chosen = {one.ids: [t for t in texts if t.id in one.ids] for one in conditions}
    plans = {ids: planned(model, [(None, block)], batching) for ids, block in chosen.items()}
    return [
        Piece([one], piece.samples, piece.units) for one in conditions for piece in plans[one.ids]
    ]


def _read(hooks: ConditionHooks, condition: Condition, batch: Batch) -> list[dict[str, object]]:
    with hooks.model.hooks(fwd_hooks=hooks(condition, batch)):
        logits = hooks.model(batch)
    sums, counts = log_probabilities(logits, batch.input_ids, batch.groups.attention)
    assert batch.samples is not None
    found = []
    for sample, total, count in zip(batch.samples, sums.tolist(), counts.tolist(), strict=True):
        if not count:
            raise SampleError(
                f"Text {sample.id!r} is a single token, so there is nothing to predict; leave it out, or "
                "join it with another."
            )
        row = {"setting": condition.name, "id": sample.id, "log_prob": total, "tokens": count}
        found.append(row | {"score": total / count})
    return found
