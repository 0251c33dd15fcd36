"""Answers by generation under many settings of changed neurons, each answer recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm
from transformers import LogitsProcessorList

from mmlens.batch import Batch
from mmlens.errors import SampleError
from mmlens.files import append_jsonl, read_jsonl
from mmlens.interventions import Intervention
from mmlens.metrics import check_scorable, scorer
from mmlens.model import HookedMLLM
from mmlens.names import LANGUAGE
from mmlens.neurons import NeuronSet
from mmlens.plan import check_failures, planned_batches, prepared_or_skipped
from mmlens.prepare import prepare
from mmlens.samples import Sample
from mmlens.sampling import SeededSampling, seed_of
from mmlens.statistics import NeuronStatistics


@dataclass(frozen=True)
class Setting:
    """One intervention and the questions it is evaluated on.

    Attributes:
        name: unique among the settings.
        neurons: the sets that are changed; none for the untouched model.
        ids: ids of the samples to answer.
        intervention: what is done to them; by default they are silenced.
    """

    name: str
    neurons: tuple[NeuronSet, ...]
    ids: frozenset[str]
    intervention: Intervention = Intervention()


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
    statistics: NeuronStatistics | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Answers:
    """Ask questions under every setting, greedily or sampled, and score the answers.

    Samples asked by the same settings run together; their media are encoded once for all settings
    that leave the towers alone.

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
            (:class:`mmlens.sampling.SeededSampling`), MMNeuron's code at 0.9.
        seed: of those draws, and of who is whose donor when resampling. A sample's draws are the
            same under every setting and in any batch.

    Raises:
        SampleError: a setting asks an unknown sample, a sample has no accepted answer or not what
            the metric needs, or an intervention cannot be done.
        StatisticsError: the statistics are of another model, or lack what an intervention needs.
        TooManyFailuresError: more samples unreadable than the cap allows.
    """
    score = scorer(metric_name, samples)
    by_id = {sample.id: sample for sample in samples}
    _check(by_id, settings, metric_name, statistics)
    if statistics is not None:
        statistics.check_model(model.weight_hash)
    decoding = Decoding(max_new_tokens, temperature, seed)
    donors = Donors.of(samples, settings, template, seed)
    rows = {(r["setting"], r["id"]): r for r in (read_jsonl(answers) if answers else [])}
    blocks = _blocks(samples, settings)
    total = sum(len(s.ids) for s in settings)
    skipped: dict[str, str] = {}
    tokens = 0
    with tqdm(
        total=total, unit="answer", desc="evaluate", disable=None if progress else True
    ) as bar:
        for asked, block in blocks:
            for chosen in planned_batches(model, block, template, token_budget, max_batch):
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
                    new = _answered(model, setting, batch, encoded, decoding, statistics, donors)
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


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; see :func:`evaluate`."""

    max_new_tokens: int
    temperature: float
    seed: int

    def options(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments of ``generate`` for the rows of a batch."""
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        options["num_beams"] = 1  # a checkpoint's own settings may ask for beams
        if self.temperature:
            assert batch.samples is not None
            seeds = [seed_of(self.seed, sample.id) for sample in batch.samples]
            drawn = LogitsProcessorList([SeededSampling(seeds, self.temperature)])
            options["logits_processor"] = drawn
        return options


@dataclass(frozen=True)
class Donors:
    """Whose activations a sample takes when neurons are resampled: the next one of a shuffled ring.

    Attributes:
        ring: the samples that resampling settings ask, in random order.
        template: the prompt template.
    """

    ring: tuple[Sample, ...]
    template: str

    @classmethod
    def of(
        cls, samples: Sequence[Sample], settings: Sequence[Setting], template: str, seed: int
    ) -> Donors:
        """Of all samples that some resampling setting asks.

        Raises:
            SampleError: there is only one.
        """
        asked = {i for s in settings if s.intervention.kind == "resample" for i in s.ids}
        if len(asked) == 1:
            raise SampleError(
                "Resampling takes activations of another sample; one alone was asked."
            )
        order = sorted((s for s in samples if s.id in asked), key=lambda s: seed_of(seed, s.id))
        return cls(tuple(order), template)

    def batch(self, model: HookedMLLM, batch: Batch) -> Batch:
        """One donor per row of a batch; one that cannot be read gives way to the next.

        Raises:
            SampleError: no other sample can be read.
        """
        assert batch.samples is not None
        places = {sample.id: place for place, sample in enumerate(self.ring)}
        chosen = [self._next(places[sample.id], 1) for sample in batch.samples]
        ready, reasons = prepared_or_skipped(model, chosen, self.template)
        if ready is not None and not reasons:
            return ready.to(model.device)
        chosen = [self._readable(model, places[sample.id]) for sample in batch.samples]
        return prepare(model, chosen, self.template, "left").to(model.device)

    def _next(self, place: int, step: int) -> Sample:
        return self.ring[(place + step) % len(self.ring)]

    def _readable(self, model: HookedMLLM, place: int) -> Sample:
        for step in range(1, len(self.ring)):
            one = self._next(place, step)
            if prepared_or_skipped(model, [one], self.template)[0] is not None:
                return one
        raise SampleError(
            f"No sample beside {self.ring[place].id!r} can be read, so it has no donor."
        )


def _answered(
    model: HookedMLLM,
    setting: Setting,
    batch: Batch,
    encoded: Batch,
    decoding: Decoding,
    statistics: NeuronStatistics | None,
    donors: Donors,
) -> list[dict[str, Any]]:
    only_language = all(one.module == LANGUAGE for one in setting.neurons)
    run = encoded if only_language else batch.to(model.device)
    resampled = setting.intervention.kind == "resample"
    given = donors.batch(model, batch) if resampled else None
    hooks = setting.intervention.hooks(setting.neurons, model, run, statistics, given)
    with model.hooks(fwd_hooks=hooks):
        out = model.generate(run, **decoding.options(batch))
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
