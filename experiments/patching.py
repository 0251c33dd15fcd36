"""Where does a picture turn into words? Image-token residuals of one picture patched into another.

    python -m experiments.patching                       # the demo model and its test questions
    python -m experiments.patching --model llava-hf/llava-v1.6-mistral-7b-hf --data my/data

Two pictures of the same size are asked the same question and answered differently. The residual
stream at the first picture's image tokens, layer by layer, is then put in place of the second's:
where the answer becomes the first picture's, the answer was still read from the image tokens there.
Patching all later positions instead shows where it has moved on. The patching is TransformerLens's
own (``transformer_lens.patching``); a hooked model goes in where a HookedTransformer would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.patching import generic_activation_patch

import mmlens
from experiments.shared.start import command_line
from mmlens.data.demos import demo_data
from mmlens.data.media.pictures import picture_size
from mmlens.data.samples import Sample
from mmlens.errors import MMLensError
from mmlens.model.batch import Batch


@dataclass(frozen=True)
class Config:
    """What to patch."""

    model: str = "demo/llava-next"
    """A shipped demo, a Hugging Face hub id, or a local folder."""
    data: Path | None = None
    """Folder with the split; default: the demo's own."""
    split: str = "test"
    """Which split the pictures come from."""
    pairs: int = 16
    """Pairs of pictures."""
    backbone: Literal["auto", "hooked_transformer", "bridge"] = "auto"
    """The language backbone."""
    device: str | None = None
    """Default: CUDA where there is one."""
    out: Path | None = None
    """Also write the table there, as CSV."""


@dataclass(frozen=True)
class Pair:
    """Two pictures, one question, two answers.

    Attributes:
        clean, corrupted: the batches of one row each, alike in shape.
        answers: the token that each of them is answered with.
    """

    clean: Batch
    corrupted: Batch
    answers: tuple[int, int]

    def metric(self, logits: Float[Tensor, "1 pos d_vocab"]) -> Float[Tensor, ""]:
        """How much more likely the clean picture's answer is than the other's, in nats."""
        log_probs = logits[0, -1].float().log_softmax(-1)
        return log_probs[self.answers[0]] - log_probs[self.answers[1]]


def main(config: Config) -> pd.DataFrame:
    """Patch every pair at every layer, and print the means."""
    model = mmlens.load(config.model, backbone=config.backbone, device=config.device)
    folder = config.data or demo_data(config.model)
    if folder is None:
        raise MMLensError(f"{config.model} is no demo, so it has no data of its own: give --data.")
    found = list(pairs(model, mmlens.load_samples(folder, config.split), config.pairs))
    if not found:
        raise MMLensError(
            f"No two pictures of the same size in {folder} are asked the same question and answered "
            "differently; give other data."
        )
    table = patched(model, found)
    print(f"{len(found)} pairs of pictures, {config.model}")
    print(table.to_string(index=False, float_format="{:.2f}".format))
    if config.out is not None:
        table.to_csv(config.out, index=False)
    return table


@torch.no_grad()
def pairs(model: mmlens.HookedMLLM, samples: Sequence[Sample], count: int) -> Iterator[Pair]:
    """Pairs that differ in the picture alone and in the answer; every picture is used once."""
    left = count
    for group in _alike(samples):
        answered = []
        for sample in group[: 2 * left]:
            batch = model.prepare(sample)
            answered.append((batch, int(model(batch)[0, -1].argmax())))
        while left and (match := _differing(answered)) is not None:
            (clean, first), (corrupted, second) = (answered[i] for i in match)
            yield Pair(clean, corrupted, (first, second))
            answered = [one for i, one in enumerate(answered) if i not in match]
            left -= 1
        if not left:
            return


def patched(model: mmlens.HookedMLLM, found: Sequence[Pair]) -> pd.DataFrame:
    """The effect of patching, by layer.

    Returns:
        A row per layer: ``image``, ``later``: mean log probability ratio of the clean picture's answer
        to the other's (nats) with the residual stream patched at the image tokens, and at all
        positions behind them; ``image_flips``, ``later_flips``: share of pairs whose answer flips.
    """
    layers = pd.DataFrame({"layer": range(model.cfg.n_layers)})
    columns: dict[str, list[Tensor]] = {"image": [], "later": []}
    for pair in found:
        _, cache = model.run_with_cache(
            pair.clean, names_filter=lambda name: name.endswith("hook_resid_pre")
        )
        image = pair.corrupted.groups.mask("image")[0]
        later = ~image & (image.cumsum(-1) > 0)
        for name, positions in (("image", image), ("later", later)):
            hooked: Any = model  # TransformerLens types its models as HookedTransformer
            tokens: Any = pair.corrupted
            with torch.no_grad():
                effect = generic_activation_patch(
                    hooked,
                    tokens,
                    cache,
                    pair.metric,
                    _put(positions),
                    "resid_pre",
                    index_df=layers,
                )
            assert isinstance(effect, Tensor)
            columns[name].append(effect)
    table = layers.copy()
    for name, effects in columns.items():
        stacked = torch.stack(effects).double()
        table[name] = stacked.mean(0).tolist()
        table[f"{name}_flips"] = (stacked > 0).double().mean(0).tolist()
    return table


def _put(positions: Bool[Tensor, " pos"]) -> Any:
    def patch(corrupted: Tensor, index: Sequence[int], clean: Tensor) -> Tensor:  # noqa: ARG001
        return torch.where(positions[:, None], clean, corrupted)

    return patch


def _alike(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples of one picture with the same question and picture size."""
    groups: dict[Any, list[Sample]] = {}
    for sample in samples:
        if len(sample.images) == 1:
            groups.setdefault((sample.text, picture_size(sample.images[0])), []).append(sample)
    return [group for group in groups.values() if len(group) > 1]


def _differing(answered: Sequence[tuple[Batch, int]]) -> tuple[int, int] | None:
    for first, second in combinations(range(len(answered)), 2):
        if answered[first][1] != answered[second][1]:
            return first, second
    return None


if __name__ == "__main__":
    command_line(main, Config)
