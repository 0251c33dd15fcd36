"""The ways of running a batch that are compared, and the proof that they compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._models import Size, samples
from mmlens import Batch, HookedMLLM
from mmlens.collection import Collection, make_plan
from mmlens.names import LANGUAGE

#: Name -> what it is, in the order of the table.
VARIANTS: Mapping[str, str] = {
    "bare": "the Hugging Face model's SDPA forward under no_grad",
    "spliced": "the same through the hooked backbone, no hooks",
    "collect": "mmlens.collect's step: counts, sums, squares, maxima of 'prompt' by domain",
    "cache": "run_with_cache of hook_pre, hook_pre_linear and hook_post of every layer's MLP",
    "mmneuron": "MMNeuron's published way: batch of one, autograd on, counters in a patched HF MLP",
}
_POINTS = ("pre", "pre_linear", "post")
# Largest difference of logits in units of their standard deviation, and the largest pre-activation,
# in the same units, whose sign may depend on the order of summation.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.02}


class Setting:
    """A model, a batch that lies ready on its device, and the variants as methods.

    All of them encode the pictures, run all layers, make the logits of the last position only, and
    keep no key-value cache.

    Args:
        model: a spliced model with a processor.
        size: samples and tokens.
    """

    def __init__(self, model: HookedMLLM, size: Size) -> None:
        self.model, self.size = model, size
        rows = samples(size)
        plan = make_plan(
            model, rows, (LANGUAGE,), ("prompt",), "domain", "chat", size.total, size.samples
        )
        self.batch = model.prepare(rows, template="chat")
        if self.batch.shape != (size.samples, size.tokens):
            raise ValueError(f"{size} wanted, {tuple(self.batch.shape)} made.")
        self.singles = [model.prepare(row, template="chat") for row in rows]
        self.domains = [str(row.domain) for row in rows]
        self._names = [
            model.module(LANGUAGE).hook(layer, point)
            for layer in range(model.cfg.n_layers)
            for point in _POINTS
        ]
        self._run = Collection(model, plan, checkpoint=None, max_failures=0.0)
        self._counters = MMNeuronCounters(model, self.domains)

    def run(self, variant: str) -> None:
        """Run one variant once, to its end."""
        getattr(self, variant)()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def bare(self) -> Any:
        """The bare forward."""
        return self.model.hf(**self.batch.inputs, use_cache=False, logits_to_keep=1)

    @torch.no_grad()
    def spliced(self) -> Any:
        """The spliced forward."""
        return self.model.forward(self.batch, logits_to_keep=1)

    @torch.no_grad()
    def collect(self) -> None:
        """One step of a collection, its hooks set and taken away as well."""
        with self._run.listening():
            self._run.step(self.batch, {})

    @torch.no_grad()
    def cache(self) -> Any:
        """A forward that keeps the activations of all MLPs."""
        return self.model.run_with_cache(self.batch, self._names, logits_to_keep=1)[1]

    def mmneuron(self) -> None:
        """Every sample alone, with the autograd graph that nobody needs."""
        with self._counters.patched():
            for one, domain in zip(self.singles, self.domains, strict=True):
                self._counters.count(one, domain)

    def check(self) -> None:
        """Each variant once: its logits are the bare ones, its counts those of the others.

        Raises:
            AssertionError: they are not.
        """
        logits = {name: torch.cat(self._logits_of(name)).float() for name in VARIANTS}
        tolerance = _TOLERANCE[self.model.dtype]
        for name, found in logits.items():
            error = (found - logits["bare"]).abs().max() / logits["bare"].std()
            assert error < tolerance, f"{name} at {self.size}: logits are off by {error:.1e} std"
        steps = self._run.done
        statistics = self._run.statistics()
        pre = self._pre()
        near = pre.abs() < tolerance * pre.std()
        for index, domain in enumerate(statistics.keys):
            rows = [i for i, d in enumerate(self.domains) if d == domain]
            ours = statistics.modules[LANGUAGE].positive[index, 0]
            theirs = self._counters.positive[domain].cpu() * steps // self._counters.passes
            allowed = near[:, rows].sum((1, 2)).cpu() * steps
            assert bool(((ours - theirs).abs() <= allowed).all()), f"counts differ at {self.size}"

    def _logits_of(self, variant: str) -> list[Tensor]:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            seen.append(output.logits[:, -1].detach())

        handle = self.model.hf.register_forward_hook(keep)
        try:
            self.run(variant)
        finally:
            handle.remove()
        return seen

    def _pre(self) -> Tensor:
        names = [name for name in self._names if name.endswith("hook_pre")]
        with torch.no_grad():
            _, cache = self.model.run_with_cache(self.batch, names, logits_to_keep=1)
        return torch.stack([cache[name] for name in names]).float()


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
