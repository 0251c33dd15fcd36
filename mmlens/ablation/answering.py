"""How a batch of questions is answered under several conditions at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmlens.ablation.conditions import Condition
from mmlens.ablation.decoding import Decoding
from mmlens.ablation.donors import ConditionHooks
from mmlens.hooks import on_rows
from mmlens.model.batch import Batch
from mmlens.streaming.batching import Batching


@dataclass(frozen=True)
class Answerer:
    """Answers batches of questions under conditions.

    Attributes:
        hooks: makes the hooks of a condition.
        decoding: how answers are decoded.
        batching: how many rows and tokens may run at once.
        together: run conditions side by side; False: one by one, with the same answers.
    """

    hooks: ConditionHooks
    decoding: Decoding
    batching: Batching = Batching()
    together: bool = True

    def answers(
        self, batch: Batch, conditions: Sequence[Condition]
    ) -> Iterator[list[dict[str, Any]]]:
        """The answers of every question under every condition, run by run; media are encoded once.

        A row is ``setting``, ``id``, ``prediction``.

        Raises:
            SampleError: a row has no token of the group that a condition is limited to.
        """
        model = self.hooks.model
        encoded = model.encode_media(batch)
        for chosen in self.runs(batch.shape, conditions):
            whole = encoded if chosen[0].only_language else batch.to(model.device)
            yield self._answered(whole, chosen)

    def runs(self, shape: Sequence[int], conditions: Sequence[Condition]) -> list[list[Condition]]:
        """The conditions that a batch of ``shape`` (rows, positions) is run under at once.

        As many side by side as keep rows within ``max_batch`` and rows x positions within
        ``token_budget``, one at least; alone: those that change towers or need donors.
        """
        rows, length = shape
        batching = self.batching
        fit = min(batching.max_batch // rows, batching.token_budget // (rows * length))
        size = max(1, fit) if self.together else 1
        beside = [one for one in conditions if one.beside_others]
        alone = [[one] for one in conditions if not one.beside_others]
        return [beside[at : at + size] for at in range(0, len(beside), size)] + alone

    def _answered(self, batch: Batch, conditions: Sequence[Condition]) -> list[dict[str, Any]]:
        model = self.hooks.model
        rows, total = len(batch), len(batch) * len(conditions)
        hooks = [self.hooks(condition, batch) for condition in conditions]
        places = [range(at, at + rows) for at in range(0, total, rows)]
        # A tower's rows are not the batch's, so what runs alone has its hooks as they are.
        flat = (
            hooks[0] if len(hooks) == 1 else on_rows(list(zip(places, hooks, strict=True)), total)
        )
        many = batch.repeated(len(conditions), model.adapter)
        with model.hooks(fwd_hooks=flat):
            out = model.generate(many, **self.decoding.options(many))
        assert batch.samples is not None
        asked = ((condition, sample) for condition in conditions for sample in batch.samples)
        return [
            {"setting": condition.name, "id": sample.id, "prediction": text}
            for (condition, sample), text in zip(asked, out.texts, strict=True)
        ]
