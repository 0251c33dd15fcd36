"""How answers are decoded: greedily, or by draws that belong to the sample alone.

Neither the batch nor the condition decides what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from mmlens.errors import SampleError
from mmlens.model.batch import Batch
from mmlens.storage.fingerprint import data_fingerprint


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; see :func:`mmlens.ablation.evaluate.evaluate`.

    Attributes:
        max_new_tokens: length of an answer at most.
        temperature: 0 decodes greedily; above 0 tokens are drawn (:class:`SeededSampling`).
        seed: of the draws.
    """

    max_new_tokens: int
    temperature: float
    seed: int

    def options(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments of ``generate`` for the rows of a batch."""
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        options["num_beams"] = 1  # a checkpoint's own settings may ask for beams
        if self.temperature:
            assert batch.samples is not None
            seeds = [seed_of(self.seed, sample.id) for sample in batch.samples]
            drawn = LogitsProcessorList([SeededSampling(seeds, self.temperature)])
            options["logits_processor"] = drawn
        return options


class SeededSampling(LogitsProcessor):
    """Makes greedy decoding a draw from softmax(logits / temperature), by the Gumbel-max trick.

    With g of a standard Gumbel distribution, argmax(logits / T + g) is such a draw. Each row has a
    generator of its own, so a sample's answer does not depend on what it is batched with, nor on
    how often a run was interrupted; and different interventions see the same draws, so that their
    answers differ by what was done and not by chance. No global random state is touched. No top-k
    or top-p: MMNeuron's code samples at T = 0.9 with whatever else the checkpoint's generation
    config says (methods 2.5).

    It is a processor of one call of ``generate``: make a new one for each.

    Args:
        seeds: one per row of the batch.
        temperature: above 0.

    Raises:
        SampleError: a temperature of 0 or below; or, when run, other rows than seeds (beams).
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        if temperature <= 0:
            raise SampleError(f"Sampling needs a temperature above 0; {temperature} was given.")
        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(
        self,
        input_ids: Int[Tensor, "batch pos"],  # noqa: ARG002
        scores: Float[Tensor, "batch d_vocab"],
    ) -> Float[Tensor, "batch d_vocab"]:
        """The scores of the next token, with a draw's noise on them."""
        if len(scores) != len(self._generators):
            raise SampleError(
                f"Sampling was given {len(self._generators)} seeds, but {len(scores)} rows are decoded; it "
                "takes no beams."
            )
        noise = torch.stack([gumbel(scores.shape[-1], one) for one in self._generators])
        return scores.float() / self._temperature + noise.to(scores.device, torch.float32)


def gumbel(count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Standard Gumbel numbers, -ln of standard exponential ones; on the CPU, the same everywhere."""
    exponential = torch.empty(count, dtype=torch.float64).exponential_(generator=generator)
    return -exponential.clamp(min=torch.finfo(torch.float64).tiny).log()


def seed_of(seed: int, name: str) -> int:
    """A seed for one sample, of a run's seed and the sample's id."""
    return int(data_fingerprint([seed, name]), 16) % 2**63
