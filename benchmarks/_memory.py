"""Peak memory: of one variant alone in a fresh process, or on a CUDA device."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks._models import Backbone, FamilyName, build
from benchmarks._sizes import Dtype, Size, SizeName
from benchmarks._variants import Setting, Variant

_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Megabytes (2**20 bytes): resident memory of the process, or PyTorch's on the CUDA device.

    Attributes:
        baseline: held when model and inputs are ready, after one bare forward.
        peak: the most that was held while the variant ran once, the baseline included.
    """

    baseline: float
    peak: float

    @property
    def increment(self) -> float:
        """What the variant took on top of the baseline."""
        return self.peak - self.baseline


@dataclass(frozen=True)
class Job:
    """A variant to be run in a process of its own, on the CPU.

    Attributes:
        hooked: the backbone to hook the model through; it is there when a variant without one runs,
            too, so that all start from the same baseline.
    """

    family: FamilyName
    model: SizeName
    dtype: Dtype
    threads: int
    variant: Variant
    size: Size
    hooked: Backbone


def measured(jobs: Sequence[Job]) -> Iterator[Memory | None]:
    """The resident memory of each, in a process of its own; None where unmeasurable."""
    if not _CLEAR.exists():
        yield from (None for _ in jobs)
        return
    # The server imports the libraries once and computes nothing; every job is forked from it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for job in jobs:
            yield pool.submit(_alone, job).result()


def on_cuda(setting: Setting, variant: Variant) -> Memory:
    """The device memory of a variant: PyTorch counts it exactly, so that no process is needed."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    baseline = torch.cuda.memory_allocated()
    setting.run(variant)
    return Memory(baseline / 2**20, torch.cuda.max_memory_allocated() / 2**20)


def _alone(job: Job) -> Memory:
    torch.set_num_threads(job.threads)
    built = build(job.family, job.model, [job.hooked], "cpu", job.dtype)
    setting = Setting(built, job.size)
    setting.run(Variant("bare"))  # the libraries' own buffers belong to the baseline
    return Memory(*resident_peak(lambda: setting.run(job.variant)))


def resident_peak(run: Callable[[], object]) -> tuple[float, float]:
    """Megabytes resident in this process before something runs, and the most while it does."""
    gc.collect()
    _trim()
    _CLEAR.write_text("5")  # VmHWM starts again from here (proc(5))
    before = _status("VmRSS")
    run()
    return before, _status("VmHWM")


def _trim() -> None:
    """Give freed memory back, where the C library can: a variant must not fill old holes unseen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
