"""What the exchange and the hooks cost, in time and memory, side by side with the bare model.

``python -m benchmarks.overhead`` builds random models of the families asked for, proves that all
variants compute the same, then times them in interleaved rounds: each round runs every variant once,
through every backbone, beginning with another one each time, so that drift of the machine hits all
alike. Ratios are taken within a round. Media are decoded and processed before anything is timed.
Memory is measured in a fresh process per variant and size, or by PyTorch's count on a CUDA device.

For a GPU: ``python -m benchmarks.overhead --device cuda --dtype bfloat16 --size 7b --family
llava-next qwen2-vl``; ``--device cpu --size tiny`` takes the same path in seconds.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import transformers
import tyro

from benchmarks._memory import Job, Memory, measured, on_cuda
from benchmarks._models import Backbone, Built, FamilyName, build
from benchmarks._sizes import Device, Dtype, Size, SizeName
from benchmarks._variants import VARIANTS, Setting, Variant, chosen

VariantName = Literal["bare", "spliced", "collect", "cache", "mmneuron"]
_SIZES: Mapping[SizeName, tuple[str, ...]] = {
    "tiny": ("1x150", "3x220"),
    "small": ("1x200", "8x300", "4x500", "1x1000", "1x2000", "2x2000"),
    # A LLaVA-NeXT picture of one tile takes 1,176 tokens.
    "7b": ("1x1300", "8x1300", "1x3000", "4x3000"),
}


@dataclass(frozen=True)
class Options:
    """Time and memory of the hooked models against the bare Hugging Face models."""

    family: tuple[FamilyName, ...] = ("llava-next",)
    """Families of models, one table for each."""
    backbone: tuple[Backbone, ...] = ("hooked_transformer", "bridge")
    """Backbones, side by side in each table."""
    size: SizeName = "small"
    """Of the random models: 6 layers, or the widths of the published 7B models; tiny is for tests."""
    sizes: tuple[str, ...] | None = None
    """Samples x tokens of each, e.g. 8x300 4x500; default: by the model's size."""
    variant: tuple[VariantName, ...] | None = None
    """What to run beside the bare forward; default: all, but for 7b without the cache of all MLPs."""
    repeats: int = 3
    """Rounds; each runs every variant once."""
    threads: int = field(default_factory=torch.get_num_threads)
    """Threads that PyTorch computes with."""
    device: Device = "cpu"
    """Where to run."""
    dtype: Dtype = "float32"
    """Of weights and activations."""
    memory: bool = True
    """Also measure peak memory; on a CPU in a fresh process per variant and size."""
    json: Path | None = None
    """Write everything there as well, after each size."""

    @property
    def prompts(self) -> list[Size]:
        """Samples and tokens of each batch."""
        return [Size.parse(text) for text in self.sizes or _SIZES[self.size]]

    @property
    def names(self) -> tuple[str, ...]:
        """The variants to run."""
        if self.variant is not None:
            return self.variant
        # All MLPs' activations of a 7B model take 3 MB a token.
        return tuple(name for name in VARIANTS if self.size != "7b" or name != "cache")


@dataclass(frozen=True)
class Row:
    """One variant at one size.

    Attributes:
        family: of the model.
        size: samples and tokens of each.
        variant: its name.
        backbone: through which it ran, if through one.
        difference: of its logits from the bare ones, relative by norm.
        seconds: of each round.
        ratios: to the bare forward of the same round.
        tokens: tokens that a run computes.
        memory: None where it was not measured.
    """

    family: str
    size: str
    variant: str
    backbone: str | None
    difference: float
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
    about = environment(options)
    print("\n".join(f"{name}: {value}" for name, value in about.items()), "\n")
    print(
        "\n".join(f"{n:9} {what}" for n, what in VARIANTS.items() if n in ("bare", *options.names))
    )
    rows: list[Row] = []
    for family in options.family:
        held = _resident(options, family)
        built = build(family, options.size, options.backbone, options.device, options.dtype)
        parameters = float(sum(one.numel() for one in built.first.hf.parameters()))
        about[family] = f"{built.size}; {parameters:.2g} parameters"
        print(f"\n{family}: {about[family]}\n{_header(options.memory)}")
        for size in options.prompts:
            try:
                new = _rows(options, built, size, held)
            except torch.OutOfMemoryError as error:
                # The other sizes are still worth having.
                print(f"{size!s:>8} out of memory: {str(error).splitlines()[0]}\n", flush=True)
                continue
            print(table(new) + "\n", flush=True)
            rows += new
            if options.json is not None:
                _write(options.json, about, rows)
        del built
        gc.collect()  # a model and its hooks refer to each other
    print(_LEGEND)
    return rows


def _resident(options: Options, family: FamilyName) -> dict[tuple[Variant, Size], Memory | None]:
    """Memory of every variant and size in processes of their own; empty where that is not asked."""
    if not options.memory or options.device == "cuda":
        return {}
    variants = chosen(options.names, options.backbone)
    keys = [(variant, size) for size in options.prompts for variant in variants]
    model = (family, options.size, options.dtype, options.threads)
    jobs = [
        Job(*model, variant, size, hooked=variant.backbone or options.backbone[0])
        for variant, size in keys
    ]
    return dict(zip(keys, measured(jobs), strict=True))


def _rows(
    options: Options,
    built: Built,
    size: Size,
    held: Mapping[tuple[Variant, Size], Memory | None],
) -> list[Row]:
    """Every variant at one size."""
    setting = Setting(built, size, options.names)
    differences = setting.check()  # warms up as well
    memory = {variant: held.get((variant, size)) for variant in setting.variants}
    if options.memory and options.device == "cuda":
        memory = {variant: on_cuda(setting, variant) for variant in setting.variants}
    seconds = rounds(setting, options.repeats)
    bare = seconds[Variant("bare")]
    return [
        Row(
            family=built.family.name,
            size=str(size),
            variant=variant.name,
            backbone=variant.backbone,
            difference=differences[variant],
            seconds=tuple(times),
            ratios=tuple(t / b for t, b in zip(times, bare, strict=True)),
            tokens=size.total,
            memory=memory[variant],
        )
        for variant, times in seconds.items()
    ]


def rounds(setting: Setting, repeats: int) -> Mapping[Variant, list[float]]:
    """Seconds of every variant in each round, interleaved, the order rotated by one each time."""
    variants = setting.variants
    seconds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for start in range(repeats):
        turn = start % len(variants)
        for variant in variants[turn:] + variants[:turn]:
            begin = time.perf_counter()
            setting.run(variant)
            seconds[variant].append(time.perf_counter() - begin)
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
        "run": f"{device}, {options.dtype}, {options.threads} threads, {options.repeats} rounds, "
        f"models: {options.size}",
    }


_LEGEND = (
    "differs: logits of the last position from bare's, norm of the difference over the norm.\n"
    "ratio: to the bare forward, median over rounds of the ratio in a round [smallest-largest].\n"
    "peak: MB held at most while the variant ran, weights included (and libraries, on a CPU), and "
    "its ratio to bare's.\n"
    "extra: MB of that above what was held before, with model and inputs ready; ratio to bare's."
)


def _header(memory: bool) -> str:
    names = (
        f"{'size':>8} {'variant':9} {'backbone':18} {'differs':>8} {'ms':>9} {'tokens/s':>9} "
        f"{'ratio':>6}"
    )
    more = f" {'':15}{'peak MB':>9} {'ratio':>6} {'extra MB':>9} {'ratio':>6}"
    return names + more if memory else names


def table(rows: Sequence[Row]) -> str:
    """The rows of one size, the bare one first."""
    lines = []
    bare = rows[0].memory
    for row in rows:
        spread = f"[{min(row.ratios):.2f}-{max(row.ratios):.2f}]"
        line = (
            f"{row.size:>8} {row.variant:9} {row.backbone or '-':18} {row.difference:8.1e} "
            f"{median(row.seconds) * 1e3:9.1f} {row.rate:9.0f} {median(row.ratios):6.2f} {spread:15}"
        )
        if row.memory is not None and bare is not None:
            line += f"{row.memory.peak:9.0f} {row.memory.peak / bare.peak:6.2f} "
            line += f"{row.memory.increment:9.1f} {_ratio(row.memory.increment, bare.increment)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _ratio(value: float, base: float) -> str:
    return f"{value / base:6.2f}" if base > 0 else f"{'-':>6}"


def _write(path: Path, about: Mapping[str, str], rows: Sequence[Row]) -> None:
    plain = [
        {
            **asdict(row),
            "median_seconds": median(row.seconds),
            "ratio": median(row.ratios),
            "tokens_per_second": row.rate,
        }
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": about, "rows": plain}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
