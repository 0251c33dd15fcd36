"""What a pass over samples will run, decided before its first forward: shares, batches, keys, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmlens.data.samples import Sample
from mmlens.errors import MediaError, SampleError, TooManyFailuresError
from mmlens.hook_names import LANGUAGE
from mmlens.hooks.editing import Site
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.storage.fingerprint import data_fingerprint
from mmlens.streaming.batching import Batching, plan_batches
from mmlens.streaming.distributed import ALONE, Share
from mmlens.streaming.token_limit import within
from mmlens.tokens.groups import EVERY_POSITION


@dataclass(frozen=True)
class CollectPlan:
    """Everything that decides the statistics, fixed before the first forward.

    Attributes:
        samples: this process's share.
        batches: positions in ``samples`` that run together, in order.
        keys: values of the field ``by`` over all samples, sorted.
        by: that field.
        groups: module -> its token groups.
        template: the prompt template.
        site: ``act`` or ``glu``.
        unreadable: sample id -> why it is left out, known from its header.
    """

    samples: tuple[Sample, ...]
    batches: tuple[tuple[int, ...], ...]
    keys: tuple[str, ...]
    by: str
    groups: Mapping[str, tuple[str, ...]]
    template: str
    unreadable: Mapping[str, str]
    site: Site = "act"

    def fingerprint(self, model: HookedMLLM) -> str:
        """A hash of all of it, of the model and of the precision it runs in."""
        chosen = [[self.samples[i] for i in batch] for batch in self.batches]
        rows = [[self._identity(sample) for sample in batch] for batch in chosen]
        run_by = [model.weight_hash, str(model.dtype)]
        return data_fingerprint(
            [run_by, rows, self.keys, self.by, dict(self.groups), self.template, self.site]
        )

    def key(self, sample: Sample) -> int:
        """The place of a sample's key among the keys."""
        return self.keys.index(str(sample.get(self.by)))

    def _identity(self, sample: Sample) -> tuple[object, ...]:
        media = (len(sample.images), len(sample.videos), len(sample.audios))
        return (sample.id, sample.text, str(sample.get(self.by)), *media)


def make_plan(
    model: HookedMLLM,
    samples: Sequence[Sample],
    modules: Sequence[str],
    groups: Sequence[str],
    by: str,
    *,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
    share: Share = ALONE,
    site: Site = "act",
    stop_after: Mapping[str, int] | None = None,
) -> CollectPlan:
    """Decide which samples run together.

    Args:
        model, samples, modules, groups, by, batching, site, stop_after: as in
            :func:`mmlens.streaming.collect.collect`, with its errors.
        share: this process's part of the samples.
    """
    if not samples:
        raise SampleError("There are no samples to collect from.")
    if len({sample.id for sample in samples}) != len(samples):
        raise SampleError("Two samples have the same id; ids must be unique.")
    if LANGUAGE in modules and (not groups or len(set(groups)) != len(groups)):
        raise SampleError(
            f"Token groups are at least one, each once; given: {', '.join(groups) or 'none'}."
        )
    for module in modules:
        model.module(module)
        if module != LANGUAGE and not any(s.images or s.videos or s.audios for s in samples):
            raise SampleError(
                f"Module {module!r} reads media, but none of the {len(samples)} samples has any; "
                "collect it on samples with media."
            )
    keys = tuple(sorted({str(sample.get(by)) for sample in samples}))
    # Before the samples are shared out, so that any number of processes counts the same ones.
    template = batching.template
    samples = within(model, samples, stop_after, by, template) if stop_after else samples
    mine = tuple(share.of(samples))
    lengths = model.preparer.lengths(mine, template)
    readable = [i for i, length in enumerate(lengths) if isinstance(length, int)]
    batches = plan_batches(
        [int(lengths[i]) for i in readable], batching.token_budget, batching.max_batch
    )
    return CollectPlan(
        samples=mine,
        batches=tuple(tuple(readable[i] for i in batch) for batch in batches),
        keys=keys,
        by=by,
        groups={m: tuple(groups) if m == LANGUAGE else (EVERY_POSITION,) for m in modules},
        template=template,
        site=site,
        unreadable={
            mine[i].id: length for i, length in enumerate(lengths) if isinstance(length, str)
        },
    )


def check_failures(skipped: Mapping[str, str], total: int, cap: float) -> None:
    """Raise TooManyFailuresError if more than the share ``cap`` of samples could not be read."""
    if len(skipped) > cap * total:
        name, why = next(iter(skipped.items()))
        raise TooManyFailuresError(
            f"{len(skipped)} of {total} samples could not be read, more than the allowed share of "
            f"{cap:.0%}; the first is {name!r}: {why}. Fix the data, or raise max_failures; what was "
            "finished is kept."
        )


def planned_batches(
    model: HookedMLLM, samples: Sequence[Sample], batching: Batching
) -> list[list[Sample]]:
    """Samples in batches of similar length; one that cannot be read counts as of length zero.

    Reading it fails, and is reported, when its batch is prepared.
    """
    found = model.preparer.lengths(samples, batching.template)
    lengths = [length if isinstance(length, int) else 0 for length in found]
    planned = plan_batches(lengths, batching.token_budget, batching.max_batch)
    return [[samples[i] for i in positions] for positions in planned]


def prepared_or_skipped(
    model: HookedMLLM, samples: Sequence[Sample], template: str
) -> tuple[Batch | None, dict[str, str]]:
    """A batch of the samples whose media can be read, and the reasons for the others."""
    try:
        return model.preparer.batch(samples, template), {}
    except MediaError as error:
        if len(samples) == 1:
            return None, {samples[0].id: str(error)}
    kept, reasons = [], {}
    for sample in samples:
        one, why = prepared_or_skipped(model, [sample], template)
        reasons.update(why)
        kept += [] if one is None else [sample]
    return (model.preparer.batch(kept, template) if kept else None), reasons
