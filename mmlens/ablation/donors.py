"""What interventions need beside neurons and a batch: statistics, and donors for resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmlens.ablation.conditions import Condition, check_batch, check_conditions, check_groups
from mmlens.ablation.decoding import seed_of
from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.statistics.neuron_statistics import NeuronStatistics
from mmlens.streaming.plan import prepared_or_skipped


@dataclass(frozen=True)
class Donors:
    """Whose activations a sample takes when neurons are resampled: the next one of a shuffled ring.

    Attributes:
        ring: the samples that resampling conditions ask, in random order.
        template: the prompt template.
    """

    ring: tuple[Sample, ...]
    template: str

    @classmethod
    def of(
        cls, samples: Sequence[Sample], conditions: Sequence[Condition], template: str, seed: int
    ) -> Donors:
        """Of all samples that some resampling condition asks.

        Raises:
            SampleError: there is only one.
        """
        asked = {i for c in conditions if c.intervention.kind == "resample" for i in c.ids}
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
        chosen = [self._after(places[sample.id], 1) for sample in batch.samples]
        ready, reasons = prepared_or_skipped(model, chosen, self.template)
        if ready is not None and not reasons:
            return ready.to(model.device)
        chosen = [self._readable(model, places[sample.id]) for sample in batch.samples]
        return model.preparer.batch(chosen, self.template).to(model.device)

    def _after(self, place: int, step: int) -> Sample:
        return self.ring[(place + step) % len(self.ring)]

    def _readable(self, model: HookedMLLM, place: int) -> Sample:
        for step in range(1, len(self.ring)):
            one = self._after(place, step)
            if prepared_or_skipped(model, [one], self.template)[0] is not None:
                return one
        raise SampleError(
            f"No sample beside {self.ring[place].id!r} can be read, so it has no donor."
        )


@dataclass(frozen=True)
class ConditionHooks:
    """Makes the hooks of conditions, batch by batch; every study's interventions go through it.

    Attributes:
        model: the model that is run.
        donors: for conditions that resample.
        statistics: for those that need them.
        keep_unaffected: also take samples without the token group that a condition is limited to.
    """

    model: HookedMLLM
    donors: Donors
    statistics: NeuronStatistics | None = None
    keep_unaffected: bool = False

    @classmethod
    def of(
        cls,
        model: HookedMLLM,
        samples: Sequence[Sample],
        conditions: Sequence[Condition],
        *,
        template: str,
        seed: int = 0,
        statistics: NeuronStatistics | None = None,
        keep_unaffected: bool = False,
    ) -> ConditionHooks:
        """For a study, whose conditions are checked before anything is run.

        Raises:
            SampleError: names that occur twice, unknown samples, samples without the modality that a
                condition is limited to, or an intervention that cannot be done.
            StatisticsError: the statistics are of another model, or lack what an intervention needs.
        """
        check_conditions(conditions, samples)
        if not keep_unaffected:
            check_groups(model, samples, conditions)
        for one in conditions:
            one.intervention.check(one.neurons, statistics)
        if statistics is not None:
            statistics.check_model(model.weight_hash)
        donors = Donors.of(samples, conditions, template, seed)
        return cls(model, donors, statistics, keep_unaffected)

    def __call__(self, condition: Condition, batch: Batch) -> list[Hook]:
        """The hooks of a condition on a batch, which lies on the model's device.

        Raises:
            SampleError: a row has no token of the group that the condition is limited to.
        """
        if not self.keep_unaffected:
            check_batch(batch, condition)
        one = condition.intervention
        given = self.donors.batch(self.model, batch) if one.kind == "resample" else None
        return one.hooks(condition.neurons, self.model, batch, self.statistics, given)
