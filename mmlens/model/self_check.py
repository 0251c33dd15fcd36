"""The check on load: a model proves on a small probe that its splice is right, or says what is wrong.

A splice can be wrong and look right: plain rotary positions in the place of multimodal ones, a mask
that got lost, features one position off, a projector nobody reads, a hook that never fires. Each of
these breaks one of the properties below, none of which is taken from the code that it checks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from mmlens.adapter import KINDS
from mmlens.data.samples import Sample
from mmlens.errors import SelfCheckError
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.tokens.groups import TokenGroups

logger = logging.getLogger(__name__)
#: Largest allowed relative difference of logits (Frobenius norms). Two right implementations differ
#: by rounding; a wrong one differs by tenths.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
_TEXTS = ("What is this?", "Please say in one word what is shown or heard here.")


@dataclass(frozen=True)
class Probe:
    """What the model is shown.

    Attributes:
        batch: two rows or more of different lengths, with media of every kind the model takes.
        other: the same with other media of the same sizes; None where there are no media.
        alone: the shortest row by itself, and its place in ``batch``.
    """

    batch: Batch
    other: Batch | None
    alone: tuple[int, Batch]


@torch.no_grad()
def self_check(model: HookedMLLM, probe: Probe | None = None) -> tuple[str, ...]:
    """Check a spliced model on a probe; a handful of forward passes.

    Args:
        model: the model.
        probe: what to show it; default: :func:`make_probe`.

    Returns:
        The names of the checks that passed.

    Raises:
        SelfCheckError: one failed; the message names it and says what was found.
    """
    probe = probe if probe is not None else make_probe(model)
    passed = []
    for name, check in CHECKS.items():
        if (problem := check(model, probe)) is not None:
            raise SelfCheckError(
                f"Self-check {name!r} failed on {type(model.hf).__name__} with backbone "
                f"{model.cfg.backbone!r}: {problem} Results would be wrong. Try the other backbone, or "
                "report it; check=False switches the check off."
            )
        passed.append(name)
    logger.info("Self-check passed: %s.", ", ".join(passed))
    return tuple(passed)


def make_probe(model: HookedMLLM) -> Probe:
    """A probe of noise and short questions; of random tokens where the model has no processor."""
    if model.processor is None:
        return _text_probe(model)
    samples = probe_samples(model.adapter.modalities, seed=0)
    batch = model.prepare(samples)
    shortest = int(batch.groups.attention.sum(-1).argmin())
    return Probe(
        batch=batch,
        other=model.prepare(probe_samples(model.adapter.modalities, seed=1)),
        alone=(shortest, model.prepare(samples[shortest])),
    )


def probe_samples(kinds: Sequence[str], seed: int) -> list[Sample]:
    """Samples with one medium each, of every kind, two at least; ``seed`` changes the media alone."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(max(2, len(kinds))):
        kind = kinds[index % len(kinds)]
        sample = Sample(f"probe-{index}", _TEXTS[index % 2])
        samples.append(replace(sample, **{f"{kind}s": (_noise(kind, index, rng),)}))
    return samples


def _noise(kind: str, index: int, rng: np.random.Generator) -> Any:
    def picture() -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (64, 64 + 32 * index, 3), dtype=np.uint8))

    if kind == "image":
        return picture()
    if kind == "video":
        return [picture() for _ in range(4)]
    rate = 16000
    return rng.normal(0, 0.3, (1 + index) * rate // 2).astype(np.float32), rate


def _text_probe(model: HookedMLLM) -> Probe:
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.adapter.decoder().embed.weight.shape[0]
    ids = torch.randint(vocabulary, (2, 12), generator=generator)
    reserved = torch.tensor(list(model.adapter.placeholders().values()))
    ids[torch.isin(ids, reserved)] = 0
    mask = torch.ones_like(ids)
    mask[0, :4] = 0

    def batch(rows: slice, positions: slice) -> Batch:
        inputs = {"input_ids": ids[rows, positions], "attention_mask": mask[rows, positions]}
        groups = TokenGroups.from_input_ids(
            inputs["input_ids"], inputs["attention_mask"], model.adapter.token_ids(None)
        )
        return Batch(inputs, groups).to(model.device)

    return Probe(batch(slice(None), slice(None)), None, (0, batch(slice(1), slice(4, None))))


# -- the checks: each gives None, or a sentence on what is wrong ----------------------------------


def logits_equal_hugging_face(model: HookedMLLM, probe: Probe) -> str | None:
    """The spliced model's logits are those of the plain Hugging Face model, at every real token."""
    theirs = model.hf(**probe.batch.inputs, use_cache=False).logits
    real = probe.batch.groups.attention
    difference = relative_difference(model(probe.batch)[real], theirs[real])
    if difference <= tolerance(model):
        return None
    return f"the logits differ from Hugging Face's by {difference:.1e} of their norm."


def every_hook_fires(model: HookedMLLM, probe: Probe) -> str | None:
    """Every hook point that can fire does; the towers' where the probe has media."""
    towers = probe.other is not None
    wanted = {
        name
        for name in model.hook_dict
        if model.why_silent(name) is None and (towers or not model.is_tower_hook(name))
    }
    fired: set[str] = set()

    def mark(_tensor: Tensor, hook: Any) -> None:
        fired.add(hook.name)

    model.run_with_hooks(probe.batch, fwd_hooks=[(wanted.__contains__, mark)])
    silent = sorted(wanted - fired)
    if not silent:
        return None
    return f"{len(silent)} of {len(wanted)} hook points never fired, the first {silent[0]!r}."


def media_change_logits(model: HookedMLLM, probe: Probe) -> str | None:
    """Another medium gives other logits at a token of text that follows it, in every row.

    Not necessarily at the last one: a long question may leave the medium outside a sliding window.
    """
    if probe.other is None:
        return None
    text = probe.batch.groups.attention & ~_placeholders(probe.batch)
    changed = (model(probe.batch) != model(probe.other)).any(-1) & text
    dead = (~changed.any(-1)).nonzero()[:, 0].tolist()
    if not dead:
        return None
    return f"row {dead[0]} has the same logits with another medium: what it shows is not read."


def padding_changes_nothing(model: HookedMLLM, probe: Probe) -> str | None:
    """A padded row has the logits of the row alone."""
    row, alone = probe.alone
    padded = model(probe.batch)[row][probe.batch.groups.attention[row]]
    difference = relative_difference(padded, model(alone)[0])
    if difference <= tolerance(model):
        return None
    return f"a padded row's logits differ from those of the row alone by {difference:.1e}."


def placeholders_are_features(model: HookedMLLM, probe: Probe) -> str | None:
    """Features stand exactly at the placeholders: another medium changes the residual stream there."""
    if probe.other is None:
        return None
    model.media_rows(probe.batch)
    here, there = (_run(model, one, "hook_embed")[1] for one in (probe.batch, probe.other))
    changed = (here != there).any(-1)
    placeholders = _placeholders(probe.batch)
    if bool((changed & ~placeholders).any()):
        where = (changed & ~placeholders).nonzero()[0].tolist()
        return f"position {where[1]} of row {where[0]} holds a feature, but no placeholder."
    # A row of patches may end in a learned token, which no medium changes; it never comes first.
    first = placeholders & (placeholders.cumsum(-1) == 1)
    if bool((first & ~changed).any()):
        where = (first & ~changed).nonzero()[0].tolist()
        return f"position {where[1]} of row {where[0]} is a placeholder, but holds no feature."
    return None


def last_lens_equals_logits(model: HookedMLLM, probe: Probe) -> str | None:
    """The final norm and head of the last layer's residual stream give the logits."""
    logits, last = _run(model, probe.batch, f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")
    decoder = model.adapter.decoder()
    lens = model.adapter.final_logits(decoder.head(decoder.norm(last)))
    real = probe.batch.groups.attention
    difference = relative_difference(lens[real], logits[real])
    if difference <= tolerance(model):
        return None
    return f"norm and head of the last layer give logits that differ by {difference:.1e}."


#: Name -> check, in the order in which they run.
CHECKS: dict[str, Callable[[HookedMLLM, Probe], str | None]] = {
    "placeholders equal features": placeholders_are_features,
    "logits equal Hugging Face": logits_equal_hugging_face,
    "every hook point fires": every_hook_fires,
    "another medium changes the logits": media_change_logits,
    "a padded row equals the row alone": padding_changes_nothing,
    "the lens of the last layer equals the logits": last_lens_equals_logits,
}


def _run(
    model: HookedMLLM, batch: Batch, name: str
) -> tuple[Float[Tensor, "batch pos d_vocab"], Float[Tensor, "batch pos d_model"]]:
    """Logits, and the residual stream at a hook point."""
    held: list[Tensor] = []

    def keep(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001
        held.append(tensor.clone())

    return model.run_with_hooks(batch, fwd_hooks=[(name, keep)]), held[0]


def _placeholders(batch: Batch) -> Bool[Tensor, "batch pos"]:
    return batch.groups.stack(KINDS).any(0)


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Norm of the difference over the norm of the reference; infinite where it is no number."""
    ours, theirs = ours.double(), theirs.to(ours.device).double()
    ratio = float((ours - theirs).norm() / theirs.norm())
    return float("inf") if math.isnan(ratio) else ratio


def tolerance(model: HookedMLLM) -> float:
    """The largest relative difference of logits that rounding explains in the model's dtype."""
    return TOLERANCE.get(model.dtype, max(TOLERANCE.values()))
