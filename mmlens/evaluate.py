"""Answers by generation under many settings of silenced neurons, each answer recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from mmlens.batch import Batch
from mmlens.batching import plan_batches
from mmlens.collection import check_failures, prepared_or_skipped
from mmlens.errors import SampleError
from mmlens.files import append_jsonl, read_jsonl
from mmlens.hooks import zero
from mmlens.metrics import check_scorable, scorer
from mmlens.model import HookedMLLM
from mmlens.names import LANGUAGE
from mmlens.neurons import NeuronSet
from mmlens.prepare import prompt_lengths
from mmlens.samples import Sample


@dataclass(frozen=True)
class Setting:
    """One intervention and the questions it is evaluated on.

    Attributes:
        name: unique among the settings.
        neurons: the sets that are silenced; none for the untouched model.
        ids: ids of the samples to answer.
    """

    name: str
    neurons: tuple[NeuronSet, ...]
    ids: frozenset[str]


@dataclass(frozen=True)
class Answers:
    """Every answer, and what could not be asked.

    Attributes:
        frame: a row per (setting, sample): ``setting``, ``id``, ``prediction``, ``score``.
        skipped: sample id -> why it could not be asked.
        tokens: prompt tokens run in this call, padding left out.
    """

    frame: pd.DataFrame
    skipped: Mapping[str, str] = field(default_factory=dict)
    tokens: int = 0


def evaluate(
    model: HookedMLLM,
    samples: Sequence[Sample],
    settings: Sequence[Setting],
    *,
    answers: Path | None = None,
    metric_name: str | Mapping[str, str] = "exact_match",
    max_new_tokens: int = 16,
    template: str = "auto",
    token_budget: int = 4096,
    max_batch: int = 64,
    max_failures: float = 0.05,
    progress: bool = True,
) -> Answers:
    """Ask questions under every setting, greedily, and score the answers.

    Samples asked by the same settings run together; their media are encoded once for all settings
    that leave the towers alone.

    Args:
        model: a hooked model.
        samples: the questions, with accepted answers.
        settings: what to silence, and which questions to ask then.
        answers: a JSON-lines file to which every answer is appended as soon as it is there. A second
            call with the same file asks only what is missing.
        metric_name: a metric (see :func:`mmlens.metrics.scorer`), or one for each domain.
        max_new_tokens: length of an answer at most.
        template, token_budget, max_batch: as in :func:`mmlens.collect`.
        max_failures: share of samples that may be left out for unreadable media.
        progress: show a progress bar.

    Raises:
        SampleError: a setting asks an unknown sample, or a sample has no accepted answer, or not
            what the metric needs.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    score = scorer(metric_name)
    by_id = {sample.id: sample for sample in samples}
    _check(by_id, settings, metric_name)
    rows = {(r["setting"], r["id"]): r for r in (read_jsonl(answers) if answers else [])}
    blocks = _blocks(samples, settings)
    total = sum(len(s.ids) for s in settings)
    skipped: dict[str, str] = {}
    tokens = 0
    with tqdm(
        total=total, unit="answer", desc="evaluate", disable=None if progress else True
    ) as bar:
        for asked, block in blocks:
            lengths = [
                n if isinstance(n, int) else 0 for n in prompt_lengths(model, block, template)
            ]
            for positions in plan_batches(lengths, token_budget, max_batch):
                chosen = [block[i] for i in positions]
                todo = [s for s in asked if any((s.name, x.id) not in rows for x in chosen)]
                bar.update(len(chosen) * (len(asked) - len(todo)))
                if not todo:
                    continue
                batch, reasons = prepared_or_skipped(model, chosen, template)
                skipped.update(reasons)
                check_failures(skipped, len(samples), max_failures)
                if batch is None:
                    continue
                encoded = model.encode_media(batch)
                for setting in todo:
                    new = _answered(model, setting, batch, encoded, max_new_tokens)
                    tokens += int(batch.groups.attention.sum())
                    for row in new:
                        row["score"] = score(row["prediction"], by_id[row["id"]])
                        rows[(row["setting"], row["id"])] = row
                    if answers is not None:
                        append_jsonl(answers, new)
                    bar.update(len(chosen))
    wanted = {(s.name, name) for s in settings for name in s.ids}
    frame = pd.DataFrame(
        [rows[key] for key in sorted(wanted & set(rows))],
        columns=["setting", "id", "prediction", "score"],
    )
    return Answers(frame, skipped, tokens)


def _answered(
    model: HookedMLLM, setting: Setting, batch: Batch, encoded: Batch, max_new_tokens: int
) -> list[dict[str, Any]]:
    only_language = all(one.module == LANGUAGE for one in setting.neurons)
    with model.hooks(fwd_hooks=zero(setting.neurons)):
        out = model.generate(
            encoded if only_language else batch, max_new_tokens=max_new_tokens, do_sample=False
        )
    assert batch.samples is not None
    return [
        {"setting": setting.name, "id": sample.id, "prediction": text}
        for sample, text in zip(batch.samples, out.texts, strict=True)
    ]


def _blocks(
    samples: Sequence[Sample], settings: Sequence[Setting]
) -> list[tuple[list[Setting], list[Sample]]]:
    """Samples that exactly the same settings ask, with those settings, in order."""
    blocks: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        asked = tuple(i for i, setting in enumerate(settings) if sample.id in setting.ids)
        if asked:
            blocks.setdefault(asked, []).append(sample)
    return [([settings[i] for i in asked], block) for asked, block in blocks.items()]


def _check(
    by_id: Mapping[str, Sample],
    settings: Sequence[Setting],
    metric_name: str | Mapping[str, str],
) -> None:
    if len({s.name for s in settings}) != len(settings):
        raise SampleError("Two settings have the same name; names must be unique.")
    for setting in settings:
        if unknown := sorted(setting.ids - set(by_id)):
            raise SampleError(f"Setting {setting.name!r} asks unknown sample {unknown[0]!r}.")
    for name in sorted(frozenset().union(*(setting.ids for setting in settings))):
        check_scorable(metric_name, by_id[name])
