"""One pass of a model over samples whose result is reduced inside hooks: resumable, mergeable, shared by rank."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from mmlens.errors import RunFolderError, TooManyFailuresError
from mmlens.hooks import Hook
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.streaming.batching import Batching
from mmlens.streaming.distributed import ALONE, Share
from mmlens.streaming.plan import CollectPlan
from mmlens.streaming.sweep import Piece, Sweep

State = TypeVar("State")


class Stream(ABC, Generic[State]):
    """A resumable pass: its result so far, its place in the plan, the samples left out.

    A subclass says what is reduced (:meth:`_hooks`, :meth:`_before`), and what the result is; files
    of it hold the place in the plan too, so that a pass interrupted anywhere ends with the same bits.

    Args:
        model: a hooked model.
        plan: what to run.
        batching: what the plan was made with; its allowed failures, its progress bar.
        checkpoint: where the state is saved and resumed from; None: nowhere. Each of several
            processes has a file of its own.
        share: this process's part, which the plan is of.

    Attributes:
        done: batches of the plan that are finished.
        skipped: sample id -> why it could not be read.

    Raises:
        RunFolderError: the checkpoint is of another plan.
    """

    def __init__(
        self,
        model: HookedMLLM,
        plan: CollectPlan,
        batching: Batching = Batching(),  # noqa: B008  (frozen)
        checkpoint: str | PathLike[str] | None = None,
        share: Share = ALONE,
    ) -> None:
        self.model, self.plan, self.batching, self.share = model, plan, batching, share
        self.checkpoint = share.file(checkpoint)
        self.fingerprint = self._fingerprint()
        start, self.done = self._resumed() or (self._empty(), 0)
        self.skipped: dict[str, str] = {}
        self._begin(start)

    @abstractmethod
    def result(self) -> State:
        """What has been gathered so far, on the CPU."""

    @abstractmethod
    def _empty(self) -> State:
        """Nothing gathered yet."""

    @abstractmethod
    def _begin(self, start: State) -> None:
        """Resume from a result, its left-out samples too."""

    @abstractmethod
    def _hooks(self) -> list[Hook]:
        """What records while batches run."""

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

    @contextmanager
    def recording(self) -> Iterator[None]:
        """The reducing hooks, inside the exchange."""
        with self.model.hooks(fwd_hooks=self._hooks()):
            yield

    def step(self, batch: Batch) -> None:
        """Run the next batch, inside :meth:`recording`."""
        batch = batch.to(self.model.device)
        self._before(batch)
        self.model.forward(batch, logits_to_keep=1)
        self._after(batch)
        self.done += 1

    def run(self, description: str, *, every: float = 30.0) -> State:
        """Run what is left of the plan.

        Args:
            description: of the progress bar.
            every: seconds between two saves of the state.

        Raises:
            TooManyFailuresError: more samples unreadable than the cap allows; the state is saved.
        """
        saved = time.monotonic()
        try:
            sweep = self._sweep(description)
            self.skipped = sweep.skipped
            with torch.no_grad(), self.recording():
                for piece, batch in sweep:
                    self.done = piece.work  # a batch that nothing of can be read is passed over
                    self.step(batch)
                    if time.monotonic() - saved > every:
                        self.save()
                        saved = time.monotonic()
        except TooManyFailuresError:
            self.save()
            raise
        self.done = len(self.plan.batches)
        self.save()
        return self.result()

    def save(self) -> None:
        """Write the state, if a checkpoint was asked for."""
        if self.checkpoint is not None:
            self._write(self.checkpoint, {"plan": self.fingerprint, "batches_done": self.done})

    def _sweep(self, description: str) -> Sweep[int]:
        """Over the batches that are left; the work of each is its number in the plan."""
        left = list(enumerate(self.plan.batches))[self.done :]
        return Sweep(
            self.model,
            [Piece(n, tuple(self.plan.samples[i] for i in one), len(one)) for n, one in left],
            self.batching,
            samples=len(self.plan.samples),
            description=description,
            finished=sum(map(len, self.plan.batches[: self.done])),
            skipped=self.skipped,
            share=self.share,
        )

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
