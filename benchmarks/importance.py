"""Importance scores against the straightforward computation: `python -m benchmarks.importance`.

A random Qwen2-VL of the 7B model's width with a few layers, one sample of 1,246 tokens with a picture,
MINER's token sets. The ways take turns; each runs alone in a fresh process for its memory:

    forward          the forward pass through the hooked backbone, no hooks
    straightforward  as MINER's code is shaped (methods 3.2, 3.9): the attention of all heads materialised,
                     products [token x neuron] per score and set, then their sum; the whole matrix read
                     from a file, added to and written back for every sample
    identity         the same with row and column sums in place of those products
    importance       mmlens.importance.collect's step: attention in blocks, one product per layer

`beyond` is time beyond the forward itself: what the way's hooks take on the very tensors of one forward,
which are replayed to them (a difference of whole runs would drown in the forward's own noise). `ratio` is
the straightforward way's to it, median over rounds. `forward` there is the time of the forward.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks._families import FAMILIES
from benchmarks._memory import resident_peak
from benchmarks._models import build
from benchmarks._sizes import Device, Dtype, Size
from mmlens.importance.collect import ChosenScores, ImportanceStream
from mmlens.importance.formulas import SCORES, AttentionMode, min_max, token_set_scores
from mmlens.streaming.batching import Batching
from mmlens.streaming.plan import make_plan
from tests.tiny.common import ModelSize, Widths

#: MINER's token sets that a picture's prompt has (methods 3.1).
SETS = ("text", "special", "special_text", "image", "prompt")
Way = Literal["forward", "straightforward", "identity", "importance"]
WAYS: tuple[Way, ...] = ("forward", "straightforward", "identity", "importance")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    tokens: int = 1246
    """Tokens of the sample."""
    layers: int = 2
    """Layers of the decoder, at the width of Qwen2-VL-7B."""
    modes: tuple[AttentionMode, ...] = ("causal", "paper")
    """What attention is."""
    growth: tuple[int, ...] = (623, 1246, 2492, 4984)
    """Tokens at which memory is measured."""
    repeats: int = 5
    """Rounds in which the ways take turns."""
    threads: int = 2
    """CPU threads."""
    device: Device = "cpu"
    """Where."""
    dtype: Dtype = "float32"
    """In what precision the model runs."""


def widths(layers: int) -> ModelSize:
    """Qwen2-VL-7B's decoder with fewer layers, and a tower that takes next to no time."""
    full = FAMILIES["qwen2-vl"].sizes["7b"]
    return replace(full, layers=layers, vocab=2000, tower=Widths(1, 160, 640, 2))


def products(x: Tensor, a: Tensor, mode: AttentionMode) -> Tensor:
    """Every score of one set as it is written down: matrices [token, neuron] first, then their sums."""
    by_query, by_key = (a.softmax(0), a.softmax(1)) if mode == "paper" else (a, a)
    scores = [
        (x > 0).to(x.dtype).mean(0),
        x.mean(0),
        x.amax(0),
        (by_query.T @ x).sum(0),  # [key, neuron], summed over keys
        (by_key @ x).sum(0),  # [query, neuron], summed over queries
    ]
    return min_max(torch.stack(scores))


class Bench:
    """A model, one sample, and the ways to its scores."""

    def __init__(self, options: Options, mode: AttentionMode, tokens: int, folder: Path) -> None:
        torch.set_num_threads(options.threads)
        built = build(
            "qwen2-vl",
            widths(options.layers),
            ["hooked_transformer"],
            options.device,
            options.dtype,
        )
        self.model = built.first
        self.mode: AttentionMode = mode
        samples = built.samples(Size(1, tokens))
        # The picture is encoded once: what is measured is the decoder.
        self.batch = self.model.encode_media(self.model.prepare(samples))
        assert self.batch.shape == (1, tokens)
        batching = Batching(token_budget=tokens, max_batch=1, max_failures=0.0)
        plan = make_plan(self.model, samples, ("language",), SETS, "domain", batching=batching)
        self.stream = ImportanceStream(self.model, plan, ChosenScores(SCORES, mode), batching)
        self.file = folder / "matrix.npy"
        shape = (len(SCORES), len(SETS), *self.model.module("language").shape)
        np.save(self.file, np.zeros(shape, np.float32))
        self.found: Tensor | None = None

    @torch.no_grad()
    def run(self, way: Way) -> None:
        """The forward with a way's hooks, once."""
        if way == "importance":
            with self.stream.recording():
                self.stream.step(self.batch)
        else:
            with self.model.hooks(fwd_hooks=self._hooks(way)):
                self.model.forward(self.batch, logits_to_keep=1)
            self._written(way)
        _synchronise(self.model)

    @torch.no_grad()
    def kept(self) -> dict[str, Tensor]:
        """Everything that the ways' hooks see in one forward, by name in the order of firing."""
        names = [name for name, _ in self._hooks("identity")]
        _, cache = self.model.run_with_cache(self.batch, names, logits_to_keep=1)
        return {name: cache[name] for name in names}

    @torch.no_grad()
    def replay(self, way: Way, kept: Mapping[str, Tensor]) -> None:
        """A way's work without the forward."""
        if way == "importance":
            reader = self.stream._reader
            assert reader is not None
            # What Hugging Face hands to the layers for a prompt without padding: no mask.
            for layer in range(self.model.cfg.n_layers):
                reader._masks[layer], reader._seen[layer] = None, {}
            self.stream._before(self.batch)
            hooks = dict(self.stream._hooks())
        else:
            hooks = dict(self._hooks(way))
        for name, tensor in kept.items():
            hooks[name](tensor, hook=SimpleNamespace(name=name))
        self._written(way)
        _synchronise(self.model)

    def _hooks(self, way: Way) -> list[tuple[str, Callable[..., None]]]:
        if way in ("forward", "importance"):
            return []
        scores = products if way == "straightforward" else token_set_scores
        members = [self.batch.groups.mask(name)[0] for name in SETS]
        seen: dict[str, Tensor] = {}
        self.rows: list[Tensor] = []

        def keep(tensor: Tensor, hook: Any) -> None:
            seen[hook.name.rsplit(".", 1)[-1]] = tensor[0].float()

        def score(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001
            x = torch.nn.functional.silu(tensor[0].float())
            a = self._attention(seen["hook_rot_q"], seen["hook_rot_k"])
            found = [scores(x[m], a[m][:, m], self.mode) for m in members]
            self.rows.append(torch.stack(found, 1))

        hooks: list[tuple[str, Callable[..., None]]] = []
        for layer in range(self.model.cfg.n_layers):
            hooks += [(f"blocks.{layer}.attn.hook_rot_{one}", keep) for one in "qk"]
            hooks.append((f"blocks.{layer}.mlp.hook_pre", score))
        return hooks

    def _written(self, way: Way) -> None:
        """The matrix as MINER's code keeps it: a file that every sample reads and writes."""
        if way in ("straightforward", "identity"):
            self.found = torch.stack(self.rows, 2).cpu()
            np.save(self.file, np.load(self.file) + self.found.numpy())

    def _attention(self, q: Tensor, k: Tensor) -> Tensor:
        """All heads' probabilities at once, averaged afterwards."""
        q, k = q.transpose(0, 1), k.transpose(0, 1)
        k = k.repeat_interleave(len(q) // len(k), 0)
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
        if self.mode == "causal":
            above = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(above, -torch.inf)
        return scores.softmax(-1).mean(0)

    def difference(self) -> float:
        """Largest difference between the streamed scores of one step and the straightforward ones."""
        before = self.stream.result().sums
        self.run("importance")
        self.run("straightforward")
        assert self.found is not None
        return float((self.stream.result().sums - before)[0].sub(self.found).abs().max())


def timed(bench: Bench, repeats: int) -> tuple[list[float], dict[Way, list[float]]]:
    """Seconds of the forward, and of every way's work beyond it, a round at a time."""
    kept = bench.kept()
    forward: list[float] = []
    beyond: dict[Way, list[float]] = {way: [] for way in WAYS if way != "forward"}
    for _ in range(repeats + 1):  # the first round warms up
        started = time.perf_counter()
        bench.run("forward")
        forward.append(time.perf_counter() - started)
        for way, times in beyond.items():
            started = time.perf_counter()
            bench.replay(way, kept)
            times.append(time.perf_counter() - started)
    return forward[1:], {way: times[1:] for way, times in beyond.items()}


def _synchronise(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def memory(options: Options, mode: AttentionMode, tokens: int, way: Way) -> tuple[float, float]:
    """Megabytes held before a way runs, and the most while it does."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, mode, tokens, Path(folder))
        bench.run("forward")  # the libraries' own buffers belong to the baseline
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            bench.run(way)
            return before / 2**20, torch.cuda.max_memory_allocated() / 2**20
        return resident_peak(lambda: bench.run(way))


def alone(options: Options, mode: AttentionMode, tokens: int, way: Way) -> float:
    """Megabytes that a way takes beyond what is held, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        before, peak = pool.submit(memory, options, mode, tokens, way).result()
    return peak - before


def main(options: Options) -> None:
    """Print the tables."""
    print(
        f"torch {torch.__version__}, {options.device}, {options.dtype}, {options.threads} threads, "
        f"{options.repeats} rounds; decoder: {widths(options.layers)}; {options.tokens} tokens, "
        f"sets {', '.join(SETS)}"
    )
    for mode in options.modes:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(options, mode, options.tokens, Path(folder))
            print(f"\nattention_mode={mode!r}: scores differ by at most {bench.difference():.1e}")
            forward, beyond = timed(bench, options.repeats)
            del bench
        print(f"{'':16s} {'ms':>8s} {'ratio':>7s} {'extra MB':>9s}")
        held = alone(options, mode, options.tokens, "forward")
        print(f"{'forward':16s} {1000 * statistics.median(forward):8.0f} {'':>7s} {held:9.0f}")
        for way, times in beyond.items():
            ratios = [s / t for s, t in zip(beyond["straightforward"], times, strict=True)]
            held = alone(options, mode, options.tokens, way)
            print(
                f"{way:16s} {1000 * statistics.median(times):8.0f} {statistics.median(ratios):7.1f} "
                f"{held:9.0f}",
                flush=True,
            )
    print("\nextra MB against tokens (attention_mode='causal')")
    print(f"{'':16s}" + "".join(f"{tokens:>9d}" for tokens in options.growth))
    for way in WAYS:
        taken = [alone(options, "causal", tokens, way) for tokens in options.growth]
        print(f"{way:16s}" + "".join(f"{mb:9.0f}" for mb in taken), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
