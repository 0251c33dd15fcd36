"""What the exchange and the hooks cost, in time and memory, side by side with the bare model.

``python -m benchmarks.overhead`` builds a random LLaVA-NeXT, proves that all variants compute the
same, then times them in interleaved rounds: each round runs every variant once, beginning with
another one each time, so that drift of the machine hits all alike. Ratios are taken within a round.
Pictures are decoded and processed before anything is timed. Memory is measured in a fresh process
per variant and size.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
import tyro

from benchmarks._memory import Memory, measured
from benchmarks._models import Device, Dtype, ModelSize, Size, build
from benchmarks._variants import VARIANTS, Setting


@dataclass(frozen=True)
class Options:
    """Time and memory of the hooked model against the bare Hugging Face model."""

    sizes: tuple[str, ...] = ("1x200", "8x300", "4x500", "1x1000", "1x2000", "2x2000")
    """Samples x tokens of each."""
    repeats: int = 3
    """Rounds; each runs every variant once."""
    threads: int = field(default_factory=torch.get_num_threads)
    """Threads that PyTorch computes with."""
    device: Device = "cpu"
    """Where to run."""
    dtype: Dtype = "float32"
    """Of weights and activations."""
    memory: bool = True
    """Also measure peak memory, in a fresh process per variant and size."""
    json: Path | None = None
    """Write everything there as well."""
    model: ModelSize = field(default_factory=ModelSize)
    """The random model."""


@dataclass(frozen=True)
class Row:
    """One variant at one size.

    Attributes:
        seconds: of each round.
        ratios: to the bare forward of the same round.
        tokens: tokens that a run computes.
        memory: None where it was not measured.
    """

    size: str
    variant: str
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    tokens: int
    memory: Memory | None

    @property
    def rate(self) -> float:
        """Tokens per second, at the median time."""
        return self.tokens / median(self.seconds)


def main(options: Options) -> list[Row]:
    """Check, measure, print; also to JSON where asked.

    Raises:
        AssertionError: a variant computes something else than the bare model.
    """
    torch.set_num_threads(options.threads)
    sizes = [Size.parse(text) for text in options.sizes]
    about = environment(options)
    print("\n".join(f"{name}: {value}" for name, value in about.items()), "\n")
    print("\n".join(f"{name:9} {what}" for name, what in VARIANTS.items()), "\n")
    jobs = [(variant, size) for size in sizes for variant in VARIANTS]
    memory: Iterable[Memory | None] = [None] * len(jobs)
    if options.memory:
        memory = list(measured(jobs, options.model, options.device, options.dtype, options.threads))
    held = dict(zip(jobs, memory, strict=True))

    model = build(options.model, options.device, options.dtype)
    rows: list[Row] = []
    for size in sizes:
        setting = Setting(model, size)
        setting.check()  # warms up as well
        seconds = rounds(setting, options.repeats)
        bare = seconds["bare"]
        new = [
            Row(
                size=str(size),
                variant=name,
                seconds=tuple(times),
                ratios=tuple(t / b for t, b in zip(times, bare, strict=True)),
                tokens=size.total,
                memory=held[name, size],
            )
            for name, times in seconds.items()
        ]
        print(table(new, header=not rows), flush=True)
        rows += new
    print(f"\n{_LEGEND}")
    if options.json is not None:
        content = {"environment": about, "rows": [_plain(row) for row in rows]}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return rows


def rounds(setting: Setting, repeats: int) -> Mapping[str, list[float]]:
    """Seconds of every variant in each round, interleaved, the order rotated by one each time."""
    names = list(VARIANTS)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for start in range(repeats):
        turn = start % len(names)
        for name in names[turn:] + names[:turn]:
            begin = time.perf_counter()
            setting.run(name)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def environment(options: Options) -> dict[str, str]:
    """Where and with what this was measured."""
    device = options.device
    if device == "cuda":
        device = f"cuda ({torch.cuda.get_device_name()})"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores{load}, {platform.system()}",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}",
        "run": f"{device}, {options.dtype}, {options.threads} threads, {options.repeats} rounds",
        "model": str(options.model),
    }


_LEGEND = (
    "ratio: to the bare forward, median over rounds of the ratio in a round [smallest-largest].\n"
    "peak: MB held at most while the variant ran, weights and libraries included, and its ratio to "
    "bare's.\n"
    "extra: MB of that above what was held before, with model and inputs ready; ratio to bare's."
)
_HEADER = (
    f"{'size':>8} {'variant':9} {'ms':>9} {'tokens/s':>9} {'ratio':>6} {'':15}"
    f"{'peak MB':>9} {'ratio':>6} {'extra MB':>9} {'ratio':>6}"
)


def table(rows: Sequence[Row], *, header: bool) -> str:
    """The rows of one size, the bare one first."""
    lines = [_HEADER] if header else [""]
    bare = rows[0].memory
    for row in rows:
        spread = f"[{min(row.ratios):.2f}-{max(row.ratios):.2f}]"
        line = (
            f"{row.size:>8} {row.variant:9} {median(row.seconds) * 1e3:9.1f} {row.rate:9.0f} "
            f"{median(row.ratios):6.2f} {spread:15}"
        )
        if row.memory is not None and bare is not None:
            line += f"{row.memory.peak:9.0f} {row.memory.peak / bare.peak:6.2f} "
            line += f"{row.memory.increment:9.1f} {_ratio(row.memory.increment, bare.increment)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _ratio(value: float, base: float) -> str:
    return f"{value / base:6.2f}" if base > 0 else f"{'-':>6}"


def _plain(row: Row) -> dict[str, Any]:
    ratios = {"ratio": median(row.ratios), "tokens_per_second": row.rate}
    return asdict(row) | {"median_seconds": median(row.seconds)} | ratios


if __name__ == "__main__":
    main(tyro.cli(Options))
