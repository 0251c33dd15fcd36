"""What a run will take, estimated before it starts: time, memory and disk, from one batch of each kind."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch

from mmlens.data.samples import Sample
from mmlens.errors import SampleError
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.run.folder import peak_memory_mb
from mmlens.statistics.neuron_statistics import FIELDS
from mmlens.streaming.batching import Batching
from mmlens.streaming.plan import planned_batches, prepared_or_skipped

#: Samples of the batch that is timed at most.
TRIED = 16
_ANSWER_BYTES = 160
_REPEATS = 3


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        forwards, answers: prompts that will be run, and answers generated.
        seconds: of both, on this machine as it is now.
        memory_mb: largest resident memory so far, with one batch of each kind run (and CUDA's).
        disk_mb: of statistics and answers; reports and cards come on top.
    """

    forwards: int
    answers: int
    seconds: float
    memory_mb: float
    disk_mb: float

    @property
    def sentence(self) -> str:
        """For the reader."""
        minutes = self.seconds / 60
        span = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
        return (
            f"About {span} for {self.forwards:,} prompts and {self.answers:,} answers, "
            f"{self.memory_mb / 1024:.1f} GB of memory, {self.disk_mb:,.0f} MB on disk "
            "(from one batch of each; figures and cards come on top)."
        )


def estimate(
    model: HookedMLLM,
    samples: Sequence[Sample],
    *,
    forwards: int,
    answers: int,
    keys: int,
    modules: Sequence[str],
    max_new_tokens: int = 16,
    batching: Batching = Batching(),  # noqa: B008  (frozen)
) -> Estimate:
    """Run one batch and scale it up.

    Args:
        model: a hooked model.
        samples: like those of the run.
        forwards: how many prompts will be run.
        answers: how many answers will be generated.
        keys: domains of the statistics.
        modules: modules of the statistics.
        max_new_tokens: length of an answer at most.
        batching: as in the run.

    Raises:
        SampleError: none of the first samples can be read.
    """
    few = samples[:: max(1, len(samples) // TRIED)][:TRIED]
    first = planned_batches(model, few, batching)[0]
    batch, _ = prepared_or_skipped(model, first, batching.template)
    if batch is None:
        raise SampleError(f"None of the first {len(first)} samples can be read.")
    batch = batch.to(model.device)
    with torch.no_grad():
        model.forward(batch, logits_to_keep=1)  # the first one sets up buffers
        forward = _seconds(lambda: model.forward(batch, logits_to_keep=1))
        answer = _seconds(lambda: model.generate(batch, max_new_tokens, do_sample=False))
    neurons = sum(prod(model.module(name).shape) for name in modules)
    disk = neurons * keys * 8 * (len(FIELDS) - 1) + answers * _ANSWER_BYTES
    return Estimate(
        forwards=forwards,
        answers=answers,
        seconds=(forward * forwards + answer * answers) / len(batch),
        memory_mb=peak_memory_mb(),
        disk_mb=disk / 2**20,
    )


def _seconds(run: Callable[[], object]) -> float:
    """The shortest of a few runs: whatever else the machine does can only add to it."""
    taken = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken)
