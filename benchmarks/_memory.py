"""Peak memory of one variant, alone in a fresh process."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks._models import Device, Dtype, ModelSize, Size, build
from benchmarks._variants import Setting

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


def measured(
    jobs: Sequence[tuple[str, Size]], model: ModelSize, device: Device, dtype: Dtype, threads: int
) -> Iterator[Memory | None]:
    """The memory of each (variant, size), each in a process of its own; None where unmeasurable."""
    if device == "cpu" and not _CLEAR.exists():
        yield from (None for _ in jobs)
        return
    # The server imports the libraries once and computes nothing; every job is forked from it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for variant, size in jobs:
            yield pool.submit(_alone, variant, size, model, (device, dtype, threads)).result()


def _alone(variant: str, size: Size, model: ModelSize, where: tuple[Device, Dtype, int]) -> Memory:
    device, dtype, threads = where
    torch.set_num_threads(threads)
    setting = Setting(build(model, device, dtype), size)
    setting.run("bare")  # the libraries' own buffers belong to the baseline
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        baseline = torch.cuda.memory_allocated()
        setting.run(variant)
        return Memory(baseline / 2**20, torch.cuda.max_memory_allocated() / 2**20)
    _trim()
    _CLEAR.write_text("5")  # VmHWM starts again from here (proc(5))
    before = _status("VmRSS")
    setting.run(variant)
    return Memory(before, _status("VmHWM"))


def _trim() -> None:
    """Give freed memory back, where the C library can: a variant must not fill old holes unseen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
