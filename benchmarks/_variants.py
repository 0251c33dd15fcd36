"""The ways of running a batch that are compared, and the proof that they compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._models import Backbone, Built
from benchmarks._sizes import Size
from mmlens import Batch, HookedMLLM
from mmlens.hook_names import LANGUAGE
from mmlens.streaming.batching import Batching
from mmlens.streaming.collect import Collection
from mmlens.streaming.plan import make_plan

#: Name -> what it is, in the order of the table.
VARIANTS: Mapping[str, str] = {
    "bare": "the Hugging Face model's SDPA forward under no_grad",
    "spliced": "the same through the hooked backbone, no hooks",
    "collect": "mmlens.collect's step: counts, sums, squares, maxima of 'prompt' by domain",
    "cache": "run_with_cache of hook_pre, hook_pre_linear and hook_post of every layer's MLP",
    "mmneuron": "MMNeuron's published way: batch of one, autograd on, counters in a patched HF MLP",
}
#: Those that run once for each backbone.
HOOKED = ("spliced", "collect", "cache")
_POINTS = ("pre", "pre_linear", "post")
# Largest difference of the logits from the bare ones, relative by norm. A wrong splice is off by
# tenths; half precision rounds by the order of summation, and deep models pile that up.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
# The largest pre-activation, in units of their standard deviation, whose sign that order may change.
_SIGN = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.02}


@dataclass(frozen=True)
class Variant:
    """A way of running a batch.

    Attributes:
        name: of :data:`VARIANTS`.
        backbone: through which it runs; None where there is none.
    """

    name: str
    backbone: Backbone | None = None

    def __str__(self) -> str:
        return self.name if self.backbone is None else f"{self.name} {self.backbone}"


def chosen(names: Sequence[str], backbones: Sequence[Backbone]) -> list[Variant]:
    """The variants of these names, the hooked ones for each backbone; always the bare one, first."""
    variants = []
    for name in VARIANTS:
        if name in HOOKED and name in names:
            variants += [Variant(name, backbone) for backbone in backbones]
        elif name == "bare" or name in names:
            variants.append(Variant(name))
    return variants


class Setting:
    """A model, a batch that lies ready on its device, and what runs it.

    All variants encode the media, run all layers, ask for the logits of the last position only (the
    forward of Qwen2-Audio makes them all), and keep no key-value cache.

    Args:
        built: a hooked model.
        size: samples and tokens.
        names: variants to run; the bare one is always among them.
    """

    def __init__(self, built: Built, size: Size, names: Sequence[str] = tuple(VARIANTS)) -> None:
        self.model, self.size = built.first, size
        self.variants = chosen(names, list(built.hooked))
        rows = built.samples(size)
        self.batch = self.model.prepare(rows)
        if self.batch.shape != (size.samples, size.tokens):
            raise ValueError(f"{size} wanted, {tuple(self.batch.shape)} made.")
        self.domains = [str(row.domain) for row in rows]
        self.hooked: dict[Backbone, HookedRuns] = {
            backbone: HookedRuns(model, self.batch) for backbone, model in built.hooked.items()
        }
        self._singles = [self.model.prepare(row) for row in rows] if "mmneuron" in names else []
        self._counters = MMNeuronCounters(self.model, self.domains)

    def run(self, variant: Variant) -> None:
        """Run one variant once, to its end."""
        runs = self if variant.backbone is None else self.hooked[variant.backbone]
        getattr(runs, variant.name)()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def bare(self) -> Any:
        """The bare forward."""
        return self.model.hf(**self.batch.inputs, use_cache=False, logits_to_keep=1)

    def mmneuron(self) -> None:
        """Every sample alone, with the autograd graph that nobody needs."""
        with self._counters.patched():
            for one, domain in zip(self._singles, self.domains, strict=True):
                self._counters.count(one, domain)

    def check(self) -> dict[Variant, float]:
        """Each variant once: its logits are the bare ones, its counts those of the others.

        Returns:
            The difference of each variant's logits from the bare ones, relative by norm.

        Raises:
            AssertionError: they are not.
        """
        logits = {one: torch.cat(self._logits_of(one)).double() for one in self.variants}
        bare = logits[Variant("bare")]
        differences = {one: float((x - bare).norm() / bare.norm()) for one, x in logits.items()}
        for variant, difference in differences.items():
            # Written so that no number, an overflow's, is a failure too.
            assert difference < _TOLERANCE[self.model.dtype], (
                f"{variant} at {self.size}: logits are off by {difference:.1e} of their norm"
            )
        if self._counters.passes:
            for backbone, runs in self.hooked.items():
                if Variant("collect", backbone) in self.variants:
                    self._check_counts(runs, f"{backbone} at {self.size}")
        return differences

    def _check_counts(self, runs: HookedRuns, where: str) -> None:
        steps = runs.collection.done
        statistics = runs.collection.result()
        near = runs.near_zero(_SIGN[self.model.dtype])
        for index, domain in enumerate(statistics.keys):
            rows = [i for i, d in enumerate(self.domains) if d == domain]
            ours = statistics.modules[LANGUAGE].positive[index, 0]
            theirs = self._counters.positive[domain].cpu() * steps // self._counters.passes
            allowed = near[:, rows].sum(1) * steps
            assert bool(((ours - theirs).abs() <= allowed).all()), f"counts differ: {where}"

    def _logits_of(self, variant: Variant) -> list[Tensor]:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            seen.append(output.logits[:, -1].detach().clone())  # a view would keep all of them

        handle = self.model.hf.register_forward_hook(keep)
        try:
            self.run(variant)
        finally:
            handle.remove()
        return seen


class HookedRuns:
    """The variants that run through one backbone.

    Attributes:
        collection: what ``collect`` adds its steps to.
    """

    def __init__(self, model: HookedMLLM, batch: Batch) -> None:
        assert batch.samples is not None
        self.model, self.batch = model, batch
        count, tokens = batch.shape
        rows = batch.samples
        batching = Batching(token_budget=count * tokens, max_batch=count, max_failures=0.0)
        plan = make_plan(model, rows, (LANGUAGE,), ("prompt",), "domain", batching=batching)
        self.collection = Collection(model, plan, batching)
        self._names = [
            model.module(LANGUAGE).hook(layer, point)
            for layer in range(model.cfg.n_layers)
            for point in _POINTS
        ]

    @torch.no_grad()
    def spliced(self) -> Any:
        """The spliced forward."""
        return self.model.forward(self.batch, logits_to_keep=1)

    @torch.no_grad()
    def collect(self) -> None:
        """One step of a collection, its hooks set and taken away as well."""
        with self.collection.recording():
            self.collection.step(self.batch)

    @torch.no_grad()
    def cache(self) -> Any:
        """A forward that keeps the activations of all MLPs."""
        return self.model.run_with_cache(self.batch, self._names, logits_to_keep=1)[1]

    @torch.no_grad()
    def near_zero(self, bound: float) -> Tensor:
        """[layer, row, neuron]: positions whose pre-activation is within ``bound`` deviations of zero.

        Layer by layer as they pass: all pre-activations of a 7B model at once take gigabytes.
        """
        near: list[Tensor] = []

        def count(pre: Tensor, hook: Any) -> None:  # noqa: ARG001
            near.append((pre.abs() < bound * pre.float().std()).sum(1).cpu())

        hooks = [(name, count) for name in self._names if name.endswith("hook_pre")]
        self.model.run_with_hooks(self.batch, fwd_hooks=hooks, logits_to_keep=1)
        return torch.stack(near)


class MMNeuronCounters:
    """MMNeuron's collection, written from its description: counters in a patched MLP forward.

    Of the modules that it counts in, the language model alone; what it is compared with counts
    there too.

    Attributes:
        positive: domain -> [layer, neuron], how often the activation was above zero.
        passes: how often each sample was counted.
    """

    def __init__(self, model: HookedMLLM, domains: Sequence[str]) -> None:
        self.hf = model.hf
        self.passes = 0
        layers: Any = model.adapter.decoder().layers
        self._mlps: list[Any] = [layer.mlp for layer in layers]
        shape = model.module(LANGUAGE).shape
        self.positive = {
            domain: torch.zeros(shape, dtype=torch.int32, device=model.device)
            for domain in sorted(set(domains))
        }
        self._domain = domains[0]

    @contextmanager
    def patched(self) -> Iterator[None]:
        """The MLPs count for as long as this lasts."""
        with ExitStack() as stack:
            for layer, mlp in enumerate(self._mlps):
                mlp.forward = self._forward(layer, mlp)
                stack.callback(mlp.__dict__.pop, "forward")
            self.passes += 1
            yield

    def count(self, one: Batch, domain: str) -> None:
        """A forward of one sample, with gradients."""
        self._domain = domain
        with torch.enable_grad():
            self.hf(**one.inputs, use_cache=False, logits_to_keep=1)

    def _forward(self, layer: int, mlp: Any) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            activation = mlp.act_fn(mlp.gate_proj(x))
            self.positive[self._domain][layer] += (activation > 0).sum((0, 1))
            return mlp.down_proj(activation * mlp.up_proj(x))

        return forward
