"""Mean and standard error of values that come in parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations from it, of values that come in parts.

    Attributes:
        n: values so far.
        mean: their mean; 0 where there is none.
        m2: sum of (value - mean)^2.
    """

    n: Int[Tensor, "*cell"]
    mean: Float[Tensor, "*cell"]
    m2: Float[Tensor, "*cell"]

    @classmethod
    def of(cls, values: Float[Tensor, "*cell value"]) -> Moments:
        """Of the values along the last axis; NaN is no value. float64 inside."""
        there = ~values.isnan()
        kept = torch.where(there, values.double(), 0.0)
        n = there.sum(-1)
        mean = kept.sum(-1) / n.clamp(min=1)
        m2 = torch.where(there, kept - mean[..., None], 0.0).square().sum(-1)
        return cls(n, mean, m2)

    def __add__(self, other: Moments) -> Moments:
        """Of both parts together (Chan, Golub and LeVeque 1979)."""
        n = self.n + other.n
        share = other.n.double() / n.clamp(min=1)
        gap = other.mean - self.mean
        return Moments(
            n, self.mean + gap * share, self.m2 + other.m2 + gap.square() * self.n * share
        )

    def standard_error(self) -> Float[Tensor, "*cell"]:
        """Sample standard deviation / sqrt(n); NaN for fewer than two values."""
        variance = self.m2 / (self.n - 1)
        return torch.where(self.n > 1, (variance / self.n).sqrt(), torch.nan)
