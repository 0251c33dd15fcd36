"""The logit lens against the straightforward computation: `python -m benchmarks.lens`.

A random LLaVA-NeXT, one prompt of 2,000 positions, a vocabulary of 32,000. Each way runs in turn
for its time, and alone in a fresh process for its memory:

    forward    the Hugging Face forward, logits at the last position only
    logits     the same with the logits of every position, as it is by default
    lens       mmlens.logit_lens: entropy and top ten of every layer and position
    kept       the same numbers from all logits of all layers at once
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from torch import Tensor

import mmlens
from benchmarks._memory import resident_peak
from benchmarks._models import build
from benchmarks._sizes import Size, SizeName
from mmlens.lens.readout import Readout
from mmlens.lens.result import LensResult


@dataclass(frozen=True)
class Options:
    """What to measure."""

    size: str = "1x2000"
    """Samples x positions."""
    model: SizeName = "small"
    """Which random model."""
    threads: int = 2
    """CPU threads."""
    repeats: int = 5
    """Rounds in which the ways take turns."""


@torch.no_grad()
def kept(model: mmlens.HookedMLLM, batch: mmlens.Batch) -> tuple[Tensor, Tensor]:
    """Entropy and top ten ids, [layer, batch, pos], by the definition, everything held at once."""
    readout = Readout.of(model.adapter)
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(batch, names, logits_to_keep=1)
    logits = torch.stack([readout.logits(cache[name]) for name in names]).float()
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1), logits.topk(10, dim=-1).indices


def ways(options: Options) -> dict[str, Callable[[], Any]]:
    """Name -> what runs once."""
    torch.set_num_threads(options.threads)
    built = build("llava-next", options.model, ["hooked_transformer"], "cpu", "float32")
    model, inputs = built.first, built.first.prepare(built.samples(Size.parse(options.size)))

    @torch.no_grad()
    def forward(keep: int) -> Any:
        return model.hf(**inputs.inputs, use_cache=False, logits_to_keep=keep)

    return {
        "forward": lambda: forward(1),
        "logits": lambda: forward(0),
        "lens": lambda: mmlens.logit_lens(model, inputs),
        "kept": lambda: kept(model, inputs),
    }


def memory(options: Options, name: str) -> tuple[float, float]:
    """Resident megabytes before a way runs, and the most while it does."""
    made = ways(options)
    made["forward"]()  # the libraries' own buffers belong to the baseline
    return resident_peak(made[name])


def difference(lens: LensResult, entropy: Tensor, top: Tensor) -> tuple[float, float]:
    """Largest difference of entropies in nats, and share of top tokens that are the same."""
    real = ~lens.entropy[0].isnan()
    apart = (lens.entropy[:, real] - entropy[:, real]).abs().max()
    same = (lens.top_ids[:, real] == top[:, real]).float().mean()
    return float(apart), float(same)


def main(options: Options) -> None:
    """Print the table."""
    made = ways(options)
    apart, same = difference(made["lens"](), *made["kept"]())
    print(
        f"lens against kept: entropy differs by at most {apart:.1e} nats, {same:.2%} of top ten the same"
    )
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(options.repeats):
        for name, run in made.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    context = multiprocessing.get_context("spawn")
    print(f"{'':8s} {'seconds':>8s} {'ratio':>6s} {'peak MB':>8s} {'ratio':>6s} {'extra MB':>9s}")
    base = 0.0
    for name, times in seconds.items():
        with ProcessPoolExecutor(1, context) as pool:
            before, peak = pool.submit(memory, options, name).result()
        base = base or peak
        ratio = statistics.median(t / f for t, f in zip(times, seconds["forward"], strict=True))
        print(
            f"{name:8s} {statistics.median(times):8.2f} {ratio:6.2f} {peak:8.0f} {peak / base:6.2f} "
            f"{peak - before:9.0f}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
