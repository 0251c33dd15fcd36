"""One pass of a model over samples whose result is reduced inside hooks: resumable, mergeable, shared by rank."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from tqdm.auto import tqdm

from mmlens.errors import RunFolderError, TooManyFailuresError
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.streaming.batching import prefetched
from mmlens.streaming.plan import CollectPlan, check_failures, prepared_or_skipped

State = TypeVar("State")


class Stream(ABC, Generic[State]):
    """One pass on its way: its result so far, its place in the plan, the samples left out.

    A subclass says what is reduced (:meth:`_hooks`, :meth:`_before`), and what the result is; files
    of it hold the place in the plan too, so that a pass interrupted anywhere ends with the same bits.

    Args:
        model: a hooked model.
        plan: what to run.
        checkpoint: where the state is saved and gone on from; None: nowhere.
        max_failures: share of samples that may be left out for unreadable media.
    """

    def __init__(
        self, model: HookedMLLM, plan: CollectPlan, checkpoint: Path | None, max_failures: float
    ) -> None:
        self.model, self.plan, self.checkpoint = model, plan, checkpoint
        self.max_failures = max_failures
        self.fingerprint = self._fingerprint()
        start, self.done = self._resumed() or (self._empty(), 0)
        self.skipped: dict[str, str] = {}
        self._begin(start)
        self._check_failures()

    @abstractmethod
    def result(self) -> State:
        """What has been gathered so far, on the CPU."""

    @abstractmethod
    def _empty(self) -> State:
        """Nothing gathered yet."""

    @abstractmethod
    def _begin(self, start: State) -> None:
        """Go on from a result, its left-out samples too."""

    @abstractmethod
    def _hooks(self) -> list[Hook]:
        """What listens while batches run."""

    @abstractmethod
    def _before(self, batch: Batch) -> None:
        """Get ready for one batch, which lies on the model's device."""

    @abstractmethod
    def _write(self, path: Path, extra: Mapping[str, Any]) -> None:
        """Save the result with further data."""

    @abstractmethod
    def _read(self, path: Path) -> tuple[State, dict[str, Any]]:
        """The inverse of :meth:`_write`."""

    def _after(self, batch: Batch) -> None:
        """What is left to do once a batch has run."""

    def _fingerprint(self) -> str:
        """A hash of everything that decides the result."""
        return self.plan.fingerprint(self.model)

    # -- the pass ------------------------------------------------------------------------------

    @property
    def done_samples(self) -> int:
        """Samples of the batches that are finished."""
        return sum(map(len, self.plan.batches[: self.done]))

    def batches(self) -> Iterator[tuple[tuple[int, ...], Batch | None, dict[str, str]]]:
        """(positions, batch of the readable ones, reasons for the others), prepared one ahead."""
        left = self.plan.batches[self.done :]
        for positions, (batch, reasons) in zip(left, prefetched(left, self._prepared), strict=True):
            yield positions, batch, reasons

    def step(self, batch: Batch | None, reasons: Mapping[str, str]) -> None:
        """Run one batch, inside :meth:`listening`."""
        self.skipped.update(reasons)
        self._check_failures()
        if batch is not None:
            batch = batch.to(self.model.device)
            self._before(batch)
            self.model.forward(batch, logits_to_keep=1)
            self._after(batch)
        self.done += 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The reducing hooks, inside the exchange."""
        with self.model.hooks(fwd_hooks=self._hooks()):
            yield

    def run(self, *, every: float, progress: bool, description: str) -> State:
        """Run what is left of the plan, saving the state every so many seconds."""
        total = sum(map(len, self.plan.batches))
        bar = tqdm(
            total=total,
            initial=self.done_samples,
            unit="sample",
            desc=description,
            disable=None if progress else True,
        )
        saved = time.monotonic()
        with bar, torch.no_grad(), self.listening():
            for positions, batch, reasons in self.batches():
                self.step(batch, reasons)
                bar.update(len(positions))
                if time.monotonic() - saved > every:
                    self.save()
                    saved = time.monotonic()
        self.save()
        return self.result()

    def save(self) -> None:
        """Write the state, if a checkpoint was asked for."""
        if self.checkpoint is not None:
            self._write(self.checkpoint, {"plan": self.fingerprint, "batches_done": self.done})

    def _prepared(self, positions: Sequence[int]) -> tuple[Batch | None, dict[str, str]]:
        chosen = [self.plan.samples[i] for i in positions]
        return prepared_or_skipped(self.model, chosen, self.plan.template)

    def _check_failures(self) -> None:
        try:
            check_failures(self.skipped, len(self.plan.samples), self.max_failures)
        except TooManyFailuresError:
            self.save()
            raise

    def _resumed(self) -> tuple[State, int] | None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        state, extra = self._read(self.checkpoint)
        if extra.get("plan") != self.fingerprint:
            raise RunFolderError(
                f"{self.checkpoint} was made with another model, other samples or other settings; give "
                "another path, or delete it to start anew."
            )
        return state, extra["batches_done"]


def own_part(checkpoint: str | PathLike[str] | None, rank: int, world: int) -> Path | None:
    """The file that one of several processes saves its state to."""
    if checkpoint is None:
        return None
    path = Path(os.fspath(checkpoint))
    return path if world == 1 else path.with_name(f"{path.stem}.{rank}-of-{world}{path.suffix}")
