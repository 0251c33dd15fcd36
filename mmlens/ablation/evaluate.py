"""Answers by generation under many settings of changed neurons, each answer recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from mmlens.ablation.conditions import Asker, Decoding, Donors, Setting, ids_with, unaffected
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.metrics import check_scorable, scorer
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.storage.atomic import append_jsonl, read_jsonl
from mmlens.streaming.batching import Batching
from mmlens.streaming.plan import check_failures, planned_batches, prepared_or_skipped

__all__ = ["Answers", "Setting", "evaluate"]


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
    template: Any = "auto",
    token_budget: int = 4096,
    max_batch: int = 64,
    max_failures: float = 0.05,
    progress: bool = True,
    statistics: NeuronStatistics | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    together: bool = True,
    keep_unaffected: bool = False,
) -> Answers:
    """Ask questions under every setting, greedily or sampled, and score the answers.

    Samples asked by the same settings run together; their media are encoded once for all settings
    that leave the towers alone. Those settings run side by side too, as rows of one batch with each
    its own hooks (:func:`mmlens.hooks.on_rows`), as many as keep it within ``token_budget`` and
    ``max_batch``; whoever needs donors (resampling) or changes towers runs by itself.

    Args:
        model: a hooked model.
        samples: the questions, with accepted answers.
        settings: what to do to which neurons, and which questions to ask then.
        answers: a JSON-lines file to which every answer is appended as soon as it is there. A second
            call with the same file asks only what is missing; it goes by the settings' names, so
            keep one file for one temperature and seed.
        metric_name: a metric (see :func:`mmlens.metrics.scorer`), or one for each domain.
        max_new_tokens: length of an answer at most.
        template, token_budget, max_batch: as in :func:`mmlens.collect`.
        max_failures: share of samples that may be left out for unreadable media.
        progress: show a progress bar.
        statistics: of this model, for the interventions that need them.
        temperature: 0 decodes greedily; above 0 each token is drawn from softmax(logits / T)
            (:class:`mmlens.ablation.decoding.SeededSampling`), MMNeuron's code at 0.9.
        seed: of those draws, and of who is whose donor when resampling. A sample's draws are the
            same under every setting and in any batch.
        together: run settings side by side; False: one by one, with the same answers.
        keep_unaffected: also ask samples that have no token of the group that a setting's intervention
            is limited to, and so are answered as without it (but for new tokens, where it changes
            those). By default they are refused, so that nobody takes them for masked.

    Raises:
        SampleError: a setting asks an unknown sample, a sample has no accepted answer or not what
            the metric needs, or an intervention cannot be done, or has no token to change.
        StatisticsError: the statistics are of another model, or lack what an intervention needs.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    score = scorer(metric_name, samples)
    by_id = {sample.id: sample for sample in samples}
    _check(by_id, settings, metric_name, statistics)
    if not keep_unaffected:
        _check_groups(model, by_id, settings)
    if statistics is not None:
        statistics.check_model(model.weight_hash)
    asker = Asker(
        model,
        Decoding(max_new_tokens, temperature, seed),
        Donors.of(samples, settings, template, seed),
        statistics,
        token_budget,
        max_batch,
        together,
        keep_unaffected,
    )
    rows = {(r["setting"], r["id"]): r for r in (read_jsonl(answers) if answers else [])}
    blocks = _blocks(samples, settings)
    total = sum(len(s.ids) for s in settings)
    skipped: dict[str, str] = {}
    tokens = 0
    with tqdm(
        total=total, unit="answer", desc="evaluate", disable=None if progress else True
    ) as bar:
        for asked, block in blocks:
            for chosen in planned_batches(
                model, block, Batching(template, token_budget, max_batch)
            ):
                todo = [s for s in asked if any((s.name, x.id) not in rows for x in chosen)]
                bar.update(len(chosen) * (len(asked) - len(todo)))
                if not todo:
                    continue
                batch, reasons = prepared_or_skipped(model, chosen, template)
                skipped.update(reasons)
                check_failures(skipped, len(samples), max_failures)
                if batch is None:
                    continue
                for new in asker.answers(batch, todo):
                    tokens += int(batch.groups.attention.sum()) * (len(new) // len(batch))
                    for row in new:
                        row["score"] = score(row["prediction"], by_id[row["id"]])
                        rows[(row["setting"], row["id"])] = row
                    if answers is not None:
                        append_jsonl(answers, new)
                    bar.update(len(chosen) * (len(new) // len(batch)))
    wanted = {(s.name, name) for s in settings for name in s.ids}
    frame = pd.DataFrame(
        [rows[key] for key in sorted(wanted & set(rows))],
        columns=["setting", "id", "prediction", "score"],
    )
    return Answers(frame, skipped, tokens)


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
    statistics: NeuronStatistics | None,
) -> None:
    if len({s.name for s in settings}) != len(settings):
        raise SampleError("Two settings have the same name; names must be unique.")
    for setting in settings:
        setting.intervention.check(setting.neurons, statistics)
        if unknown := sorted(setting.ids - set(by_id)):
            raise SampleError(f"Setting {setting.name!r} asks unknown sample {unknown[0]!r}.")
    for name in sorted(frozenset().union(*(setting.ids for setting in settings))):
        check_scorable(metric_name, by_id[name])


def _check_groups(
    model: HookedMLLM, by_id: Mapping[str, Sample], settings: Sequence[Setting]
) -> None:
    """Refuse samples without the modality that a setting is limited to before anything is run."""
    for setting in settings:
        if (group := setting.limited_to) is not None:
            asked = [by_id[name] for name in sorted(setting.ids)]
            if lacking := sorted(setting.ids - ids_with(model, asked, group)):
                raise unaffected(setting, lacking[0])
