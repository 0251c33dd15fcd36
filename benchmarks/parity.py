"""Is it exact? Every family, variant and backbone against plain Hugging Face, on small random models.

    python -m benchmarks.parity                          # all of them, as a table
    python -m benchmarks.parity --families qwen2-vl --out parity.md

The models are built from their configs with the real architectures and processors. Both paddings,
several pictures, pictures of different sizes, none, video and sounds of different lengths are in
the samples; the figures are the worst of them. ``logits``, ``hooks`` and ``zeroed`` are the largest
difference on real tokens, divided by the largest value of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import tyro
from torch import Tensor, nn

import mmlens
from mmlens.errors import UnsupportedModelError
from mmlens.hook_names import LANGUAGE, mlp_hook
from mmlens.model.batch import Batch
from tests.tiny import NAMES, family
from tests.tiny.common import TinyFamily

BACKBONES = ("hooked_transformer", "bridge")
#: What is generated: keyword arguments of Hugging Face's ``generate``.
DECODING: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.9},
    "beams": {"do_sample": False, "num_beams": 3},
    "static": {"do_sample": False, "cache_implementation": "static"},
}


@dataclass(frozen=True)
class Parity:
    """How one model compares with plain Hugging Face.

    Attributes:
        family, variant, backbone: which model.
        logits: relative difference of logits, the worse of both paddings.
        alone: the same between a row in a padded batch and the row alone, both through the hooks.
        hooks: relative difference of any ``hook_pre`` or ``hook_post`` of any module.
        flips: activations whose sign differs, out of ``activations``.
        zeroed: relative difference of logits with a fifth of the language neurons silenced, against
            zeroed columns of the down projections.
        tokens: ways of decoding whose tokens differ anywhere; ``-`` is none.
        bf16: error of bfloat16 logits against the float32 truth, divided by Hugging Face's own.
    """

    family: str
    variant: str
    backbone: str
    logits: float
    alone: float
    hooks: float
    flips: int
    activations: int
    zeroed: float
    tokens: str
    bf16: float


@dataclass(frozen=True)
class Options:
    """What to compare."""

    families: tuple[str, ...] = NAMES
    """Families, by name."""
    backbones: tuple[Literal["hooked_transformer", "bridge"], ...] = BACKBONES
    """Backbones; one that cannot represent a decoder is left out for it."""
    seed: int = 0
    """Of the random weights."""
    out: Path | None = None
    """Also write the tables there, as Markdown: the worst of each family, and every variant."""


def measure(tiny: TinyFamily, variant: str, backbone: Any, seed: int = 0) -> Parity:
    """Compare one variant of a family, on one backbone, with plain Hugging Face.

    Raises:
        UnsupportedModelError: the backbone cannot represent the decoder.
    """
    hf = tiny.variants[variant](seed)
    model = mmlens.splice(hf, tiny.processor(), backbone=backbone, check=False)
    samples = tiny.samples()
    batches = [model.prepare(samples, padding_side=side) for side in ("left", "right")]
    left = batches[0]
    hooks, flips, activations = compare_hooks(model, left)
    different = [name for name, how in DECODING.items() if not same_tokens(model, left, how)]
    return Parity(
        family=tiny.name,
        variant=variant,
        backbone=backbone,
        logits=max(relative(model(b), plain(hf, b), b.groups.attention) for b in batches),
        alone=compare_alone(model, left, samples),
        hooks=hooks,
        flips=flips,
        activations=activations,
        zeroed=compare_zeroed(model, left, seed),
        tokens=" ".join(different) or "-",
        bf16=compare_bf16(tiny, variant, backbone, seed),
    )


@torch.no_grad()
def plain(hf: Any, batch: Batch) -> Tensor:
    """Logits of the plain Hugging Face model."""
    return hf(**batch.inputs, use_cache=False).logits


def relative(ours: Tensor, theirs: Tensor, real: Tensor) -> float:
    """Largest difference where ``real`` is true, divided by the reference's largest value."""
    ours, theirs = ours[real].detach().double(), theirs[real].detach().double()
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def compare_alone(
    model: mmlens.HookedMLLM, batch: Batch, samples: Sequence[mmlens.Sample]
) -> float:
    """Last-token logits of rows in a padded batch against those of each row alone."""
    together = model(batch)[:, -1]
    alone = torch.cat([model(model.prepare(one))[:, -1] for one in samples])
    return relative(together, alone, torch.ones(len(samples), dtype=torch.bool))


def compare_hooks(model: mmlens.HookedMLLM, batch: Batch) -> tuple[float, int, int]:
    """Every ``hook_pre`` and ``hook_post`` against Hugging Face's own tensors: (difference, flips, of)."""
    with recorded(hf_points(model)) as reference, torch.no_grad():
        model.hf(**batch.inputs, use_cache=False)
    ours: dict[str, list[Tensor]] = {}

    def keep(tensor: Tensor, hook: Any) -> None:
        ours.setdefault(hook.name, []).append(tensor.detach().clone())

    with torch.no_grad():
        model.run_with_hooks(batch, fwd_hooks=[(name, keep) for name in reference])
    worst, flips, total = 0.0, 0, 0
    for name, theirs in reference.items():
        assert len(ours[name]) == len(theirs), f"{name} fired {len(ours[name])} times"
        for mine, other in zip(ours[name], theirs, strict=True):
            real = torch.ones(mine.shape[:-1], dtype=torch.bool)
            if mine.shape[:2] == batch.shape:
                real &= batch.groups.attention
            worst = max(worst, relative(mine, other, real))
            flips += int(((mine > 0) != (other > 0))[real].sum())
            total += int(real.sum()) * mine.shape[-1]
    return worst, flips, total


def hf_points(model: mmlens.HookedMLLM) -> dict[str, tuple[nn.Module, bool]]:
    """Hook name -> (the Hugging Face module that holds the same tensor, whether as its input)."""
    points: dict[str, tuple[nn.Module, bool]] = {}
    layers: list[Any] = list(model.adapter.decoder().layers)
    for index, layer in enumerate(layers):
        mlp = layer.mlp
        points[mlp_hook(LANGUAGE, index, "pre")] = (mlp.gate_proj, False)
        points[mlp_hook(LANGUAGE, index, "pre_linear")] = (mlp.up_proj, False)
        points[mlp_hook(LANGUAGE, index, "post")] = (mlp.down_proj, True)
    for name, tower in model.adapter.towers().towers.items():
        for index, mlp in enumerate(tower.mlps):
            points[mlp_hook(name, index, "pre")] = (mlp.first, False)
            points[mlp_hook(name, index, "post")] = (mlp.second, True)
    return points


@contextmanager
def recorded(points: Mapping[str, tuple[nn.Module, bool]]) -> Iterator[dict[str, list[Tensor]]]:
    """What flows through modules of the plain model, by plain PyTorch hooks; once per call."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, is_input: bool) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            found.setdefault(name, []).append((args[0] if is_input else output).detach().clone())

        return hook

    handles = [
        module.register_forward_hook(keep(name, is_input))
        for name, (module, is_input) in points.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def compare_zeroed(model: mmlens.HookedMLLM, batch: Batch, seed: int) -> float:
    """A fifth of the language neurons silenced, against zeroed columns of the down projections."""
    shape = model.module(LANGUAGE).shape
    chosen = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.2
    neurons = mmlens.NeuronSet(chosen.nonzero().tolist(), LANGUAGE, shape)
    ours = model.run_with_hooks(batch, fwd_hooks=mmlens.hooks.zero(neurons))
    untouched = plain(model.hf, batch)
    layers: list[Any] = list(model.adapter.decoder().layers)
    downs = [layer.mlp.down_proj for layer in layers]
    before = []
    for weight, columns in zip((down.weight for down in downs), chosen, strict=True):
        before.append(weight.clone())
        weight[:, columns] = 0
    try:
        theirs = plain(model.hf, batch)
    finally:
        for down, weight in zip(downs, before, strict=True):
            down.weight.copy_(weight)
    real = batch.groups.attention
    if relative(theirs, untouched, real) < 1e-3:
        raise AssertionError("Silencing a fifth of the neurons did not move the logits.")
    return relative(ours, theirs, real)


def same_tokens(model: mmlens.HookedMLLM, batch: Batch, how: Mapping[str, Any]) -> bool:
    """Whether ``generate`` gives the same tokens, with the same seed.

    What plain Hugging Face cannot decode itself (PaliGemma 2 with a static cache) is left out.
    """
    settings = {"max_new_tokens": 6, "disable_compile": True, **how}
    hf: Any = model.hf
    torch.manual_seed(1)
    try:
        out = hf.generate(**batch.inputs, **settings)
    except AttributeError:
        return True
    torch.manual_seed(1)
    ours = model.generate(batch, **settings).tokens
    return torch.equal(ours, model.adapter.new_tokens(out, batch.shape[1]))


@torch.no_grad()
def compare_bf16(tiny: TinyFamily, variant: str, backbone: Any, seed: int) -> float:
    """Mean error of bfloat16 logits against float32, divided by that of Hugging Face in bfloat16."""
    hf: Any = tiny.variants[variant](seed)
    exact = mmlens.splice(hf, tiny.processor(), backbone=backbone, check=False)
    batch = exact.prepare(tiny.samples())
    real = batch.groups.attention
    truth = plain(hf, batch)[real]
    model = mmlens.splice(hf.to(torch.bfloat16), None, backbone=backbone, check=False)
    half = replace(batch, inputs={n: as_bf16(v) for n, v in batch.inputs.items()})
    ours, theirs = (out[real].float() for out in (model(half), plain(hf, half)))
    return float((ours - truth).abs().mean() / (theirs - truth).abs().mean())


def as_bf16(value: Any) -> Any:
    """Floating-point tensors in bfloat16; ids, masks and what is no tensor stay."""
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.bfloat16) if floating else value


def table(rows: Sequence[Parity]) -> str:
    """The rows as Markdown."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=[f.name for f in fields(Parity)])
    for name in ("logits", "alone", "hooks", "zeroed"):
        frame[name] = frame[name].map(lambda value: "0" if value == 0 else f"{value:.1e}")
    frame["bf16"] = frame["bf16"].map("{:.2f}".format)
    rule = ["---"] * len(frame.columns)
    lines = [frame.columns, rule, *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def summary(rows: Sequence[Parity]) -> str:
    """The worst of a family's variants, as Markdown: a row per family and backbone."""
    worst: dict[tuple[str, str], list[Parity]] = {}
    for row in rows:
        worst.setdefault((row.family, row.backbone), []).append(row)
    folded = []
    for (name, backbone), group in worst.items():
        tokens = sorted({way for row in group for way in row.tokens.split() if way != "-"})
        folded.append(
            Parity(
                family=name,
                variant=", ".join(row.variant for row in group),
                backbone=backbone,
                tokens=" ".join(tokens) or "-",
                **{
                    column: max(getattr(row, column) for row in group)
                    for column in ("logits", "alone", "hooks", "flips", "zeroed", "bf16")
                },
                activations=sum(row.activations for row in group),
            )
        )
    return table(folded)


def main(options: Options) -> None:
    """Measure and print, a row at a time."""
    rows = []
    for name in options.families:
        tiny = family(name)
        for variant in tiny.variants:
            for backbone in options.backbones:
                try:
                    rows.append(measure(tiny, variant, backbone, options.seed))
                except UnsupportedModelError as error:
                    print(f"# {tiny.name} {variant} {backbone}: {error}", flush=True)
                    continue
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    print("\n" + summary(rows))
    if options.out is not None:
        options.out.write_text(
            "# Parity with plain Hugging Face\n\nWritten by `python -m benchmarks.parity --out "
            f"{options.out}`; see there for what is compared.\n\n## The worst of each family\n\n"
            f"{summary(rows)}\n\n## Every variant\n\n{table(rows)}\n"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
