"""Log-probability of texts under settings of silenced neurons: LAPE's evaluation (arXiv 2402.16438).

A text is read as a language model reads it: each token is predicted from those before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mmlens.ablation.evaluate import Setting
from mmlens.ablation.masks import NONE, Mask
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hooks import zero
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.model.prepare import NONE as PLAIN_TEXT
from mmlens.storage.atomic import append_jsonl, read_jsonl
from mmlens.streaming.batching import plan_batches


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
    settings: Sequence[Setting],
    *,
    rows: Path | None = None,
    token_budget: int = 2048,
    max_batch: int = 64,
    progress: bool = True,
) -> pd.DataFrame:
    """Log-probability of plain texts under every setting.

    The texts run as the tokenizer makes them, without template or media (``template="none"``). Memory
    beside the model's own: the logits of one batch, token_budget x vocabulary in the model's dtype.

    Args:
        model: a hooked model.
        texts: what is read; of two tokens or more.
        settings: what to silence, and the ids of the texts to read then.
        rows: a JSON-lines file to which every text's result is appended as soon as it is there. A
            second call with the same file runs only what is missing.
        token_budget, max_batch: as in :func:`mmlens.collect`.
        progress: show a progress bar.

    Returns:
        A row per setting and text: setting, id, log_prob (nats, sum over tokens), tokens (predicted),
        score (log_prob / tokens: nats per token).

    Raises:
        SampleError: settings of one name, an unknown or repeated id, a text of a single token, a text
            with media.
    """
    by_id = {text.id: text for text in texts}
    _check(texts, settings)
    known = {(r["setting"], r["id"]): r for r in (read_jsonl(rows) if rows else [])}
    lengths = [int(n) for n in model.preparer.lengths(texts, PLAIN_TEXT)]
    total = sum(len(one.ids) for one in settings)
    with tqdm(total=total, unit="text", desc="texts", disable=None if progress else True) as bar:
        for setting in settings:
            asked = [i for i, text in enumerate(texts) if text.id in setting.ids]
            for chosen in plan_batches([lengths[i] for i in asked], token_budget, max_batch):
                together = [texts[asked[i]] for i in chosen]
                if all((setting.name, text.id) in known for text in together):
                    bar.update(len(chosen))
                    continue
                batch = model.prepare(together, template=PLAIN_TEXT)
                new = _read(model, setting, batch)
                known |= {(row["setting"], row["id"]): row for row in new}
                if rows is not None:
                    append_jsonl(rows, new)
                bar.update(len(chosen))
    wanted = [(s.name, name) for s in settings for name in by_id if name in s.ids]
    columns = ["setting", "id", "log_prob", "tokens", "score"]
    return pd.DataFrame([known[key] for key in wanted], columns=columns)


def likelihood_table(
    results: pd.DataFrame, masks: Sequence[Mask], texts: Sequence[Sample]
) -> pd.DataFrame:
    """Log-probability and perplexity by mask and evaluated language.

    Columns: mask, kind, seed, fraction, evaluated, n_texts, tokens, log_prob (nats per token, mean
    over all tokens of the language), perplexity (exp of its negative), n_neurons, frequency.

    Args:
        results: frame of :func:`evaluate_texts`.
        masks: what was silenced.
        texts: what was read; their ``domain`` is the language.
    """
    language = {t.id: str(t.domain) for t in texts}
    facts = {one.name: one for one in masks}
    found: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for setting, name, log_prob, tokens in zip(
        *(results[column] for column in ("setting", "id", "log_prob", "tokens")), strict=True
    ):
        found.setdefault((setting, language[name]), []).append((log_prob, tokens))
    rows = []
    for (setting, evaluated), values in found.items():
        one, total = facts.get(setting), sum(tokens for _, tokens in values)
        mean = sum(log_prob for log_prob, _ in values) / total
        rows.append(
            {
                "mask": one.mask if one else NONE,
                "kind": one.kind if one else NONE,
                "seed": one.seed if one else -1,
                "fraction": one.fraction if one else 0.0,
                "evaluated": evaluated,
                "n_texts": len(values),
                "tokens": int(total),
                "log_prob": mean,
                "perplexity": math.exp(-mean) if -mean < 700 else math.inf,
                "n_neurons": sum(map(len, one.neurons)) if one else 0,
                "frequency": one.frequency if one else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def _read(model: HookedMLLM, setting: Setting, batch: Batch) -> list[dict[str, object]]:
    with model.hooks(fwd_hooks=zero(setting.neurons)):
        logits = model(batch)
    sums, counts = log_probabilities(logits, batch.input_ids, batch.groups.attention)
    assert batch.samples is not None
    found = []
    for sample, total, count in zip(batch.samples, sums.tolist(), counts.tolist(), strict=True):
        if not count:
            raise SampleError(
                f"Text {sample.id!r} is a single token, so there is nothing to predict; leave it out, or "
                "join it with another."
            )
        found.append(
            {
                "setting": setting.name,
                "id": sample.id,
                "log_prob": total,
                "tokens": count,
                "score": total / count,
            }
        )
    return found


def _check(texts: Sequence[Sample], settings: Sequence[Setting]) -> None:
    ids = {text.id for text in texts}
    if len(ids) != len(texts):
        raise SampleError("Two texts have the same id; ids must be unique.")
    if len({one.name for one in settings}) != len(settings):
        raise SampleError("Two settings have the same name; names must be unique.")
    for one in settings:
        if unknown := sorted(one.ids - ids):
            raise SampleError(f"Setting {one.name!r} reads unknown text {unknown[0]!r}.")
