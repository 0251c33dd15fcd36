"""MINER's importance score matrix: scores averaged over samples, then over data sets (methods 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.importance.formulas import SCORES
from mmlens.storage.tensorfile import open_tensors, write_tensors

FORMAT = "mmlens.importance/1"
#: The weight vectors that MINER's code tries, in the order of SCORES; ``paper`` is its default.
WEIGHTS: Mapping[str, tuple[float, ...]] = {
    **{name: tuple(float(name == one) for one in SCORES) for name in SCORES},
    "mean_max": (0.0, 0.5, 0.5, 0.0, 0.0),
    "attention": (0.0, 0.0, 0.0, 0.5, 0.5),
    "paper": (0.0, 0.25, 0.25, 0.5, 0.0),
    "paper_q": (0.0, 0.25, 0.25, 0.0, 0.5),
    "equal": (0.2, 0.2, 0.2, 0.2, 0.2),
}
Weights = str | Sequence[float] | Mapping[str, float]
_SAME = ("model_hash", "module", "by", "scores", "groups", "attention_mode", "template")


@dataclass(frozen=True)
class ImportanceScores:
    """Importance of the neurons of one module for token groups, per data set.

    Attributes:
        sums: sum over samples of their min-max normalised scores, each in [0, 1].
        samples: samples that had a token of the group.
        datasets: values of the field ``by``, sorted.
        scores: names, of :data:`SCORES`.
        groups: token groups.
        by: the field of the samples that the data sets are values of.
        attention_mode: ``paper`` or ``causal``; None where no attention score was asked.
        skipped: sample id -> why it was left out.
        module: whose neurons.
        model_hash: fingerprint of the model.
        template: the prompt template.
    """

    sums: Float[Tensor, "dataset score group layer neuron"]
    samples: Int[Tensor, "dataset group"]
    datasets: tuple[str, ...]
    scores: tuple[str, ...]
    groups: tuple[str, ...]
    by: str
    attention_mode: str | None
    skipped: Mapping[str, str]
    module: str = "language"
    model_hash: str | None = None
    template: str = "auto"

    def __add__(self, other: ImportanceScores) -> ImportanceScores:
        """Scores of both sets of samples together; sums are float64, numbers of samples exact.

        Raises:
            StatisticsError: they are of other models, modules, fields, scores, groups or modes.
        """
        if not isinstance(other, ImportanceScores):
            return NotImplemented
        for what in _SAME:
            if getattr(self, what) != getattr(other, what):
                raise StatisticsError(
                    f"These importance scores do not belong together: their {what} are "
                    f"{getattr(self, what)!r} and {getattr(other, what)!r}."
                )
        if self.sums.shape[3:] != other.sums.shape[3:]:
            raise StatisticsError(
                f"Importance scores of {tuple(self.sums.shape[3:])} and {tuple(other.sums.shape[3:])} "
                "layers and neurons do not add."
            )
        names = tuple(sorted({*self.datasets, *other.datasets}))
        a, b = self._spread(names), other._spread(names)
        return replace(
            a,
            sums=a.sums + b.sums,
            samples=a.samples + b.samples,
            skipped={**a.skipped, **b.skipped},
        )

    def means(self) -> Float[Tensor, "dataset score group layer neuron"]:
        """The mean score over a data set's samples that have the group; 0 where none has.

        MINER's code divides by all samples of the data set. That is the same where all of them have
        the same groups, as in its benchmarks; here a sample without a picture says nothing of ``image``.
        """
        number = self.samples[:, None, :, None, None]
        return self.sums / number.clamp(min=1)

    def matrix(
        self, datasets: Sequence[str] | None = None
    ) -> Float[Tensor, "score group layer neuron"]:
        """The importance score matrix: the mean over data sets that have the group, each alike.

        A group that none of them has is 0 (see :meth:`present`).

        Args:
            datasets: which; default: all.

        Raises:
            StatisticsError: there is no such data set, or none was named.
        """
        chosen = self._chosen(datasets)
        means, has = self.means()[chosen], self.samples[chosen] > 0
        number = has.sum(0)[None, :, None, None]
        return means.sum(0) / number.clamp(min=1)

    def present(self, datasets: Sequence[str] | None = None) -> tuple[str, ...]:
        """The groups that at least one sample (of these data sets) has."""
        has = (self.samples[self._chosen(datasets)] > 0).any(0)
        return tuple(group for group, one in zip(self.groups, has.tolist(), strict=True) if one)

    def combine(
        self,
        weights: Weights = "paper",
        groups: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
    ) -> Float[Tensor, "group layer neuron"]:
        """W_m = sum over scores T of w_T ISM[T, m] (methods 3.3).

        Args:
            weights: a name of :data:`WEIGHTS`, a weight for each of ``self.scores`` in their order, or
                some scores' weights by name. They are not negative and sum to 1.
            groups: which, in this order; default: all.
            datasets: which the matrix is averaged over; default: all.

        Raises:
            StatisticsError: weights that do not fit the scores; an unknown group or data set; a group
                that no sample of the data sets has.
        """
        groups = self.groups if groups is None else groups
        if not groups:
            raise StatisticsError(
                f"No group was named; name some of {', '.join(self.groups)}, of which "
                f"{', '.join(self.present(datasets)) or 'none'} occur."
            )
        if unknown := [group for group in groups if group not in self.groups]:
            raise StatisticsError(
                f"Group {unknown[0]!r} was not collected; there are {', '.join(self.groups)}."
            )
        has = self.present(datasets)
        if absent := [group for group in groups if group not in has]:
            named = ", ".join(self.datasets if datasets is None else datasets)
            raise StatisticsError(
                f"No sample of {named} has a token of group {absent[0]!r}, so it has no importance "
                f"scores; leave it out (the groups that occur: {', '.join(has) or 'none'})."
            )
        w = torch.tensor(weight_vector(weights, self.scores), dtype=self.sums.dtype)
        combined = torch.einsum("s,sgln->gln", w, self.matrix(datasets))
        return combined[[self.groups.index(group) for group in groups]]

    def check_model(self, model_hash: str) -> None:
        """Raise StatisticsError if the scores are of another model."""
        if self.model_hash is not None and self.model_hash != model_hash:
            raise StatisticsError(
                f"These importance scores are of another model (weights {self.model_hash}, the model at "
                f"hand has {model_hash}); collect them anew."
            )

    def save(self, path: str | PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Write tensors as safetensors with everything else as JSON in its header, atomically."""
        header = {
            **{name: getattr(self, name) for name in (*_SAME, "datasets")},
            "skipped": dict(self.skipped),
            "extra": dict(extra or {}),
        }
        write_tensors(path, FORMAT, {"sums": self.sums, "samples": self.samples}, header)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> ImportanceScores:
        """Read scores that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            StatisticsError: the file is damaged or not of this format.
        """
        return load_with_extra(path)[0]

    def _chosen(self, datasets: Sequence[str] | None) -> list[int]:
        names = self.datasets if datasets is None else datasets
        if not names:
            raise StatisticsError(
                f"No data set was named; name some of {', '.join(self.datasets)}, or none at all for all of "
                "them (datasets=None)."
            )
        if unknown := [name for name in names if name not in self.datasets]:
            raise StatisticsError(
                f"{self.by} {unknown[0]!r} was not collected; there are {', '.join(self.datasets)}."
            )
        return [self.datasets.index(name) for name in names]

    def _spread(self, names: tuple[str, ...]) -> ImportanceScores:
        if names == self.datasets:
            return self
        rows = [names.index(name) for name in self.datasets]
        sums = self.sums.new_zeros((len(names), *self.sums.shape[1:]))
        samples = self.samples.new_zeros((len(names), len(self.groups)))
        sums[rows], samples[rows] = self.sums, self.samples
        return replace(self, sums=sums, samples=samples, datasets=names)


def weight_vector(weights: Weights, scores: Sequence[str] = SCORES) -> tuple[float, ...]:
    """One weight for each of ``scores``.

    Raises:
        StatisticsError: an unknown name, another number of weights, a weight for a score that is not
            there, a negative one, or a sum other than 1.

    >>> weight_vector("paper")
    (0.0, 0.25, 0.25, 0.5, 0.0)
    >>> weight_vector({"max": 1}, ("mean", "max"))
    (0.0, 1.0)
    """
    if isinstance(weights, str):
        if weights not in WEIGHTS:
            raise StatisticsError(
                f"There are no weights {weights!r}; there are {', '.join(WEIGHTS)}, or give one number "
                f"for each of {', '.join(scores)}."
            )
        weights = {s: w for s, w in zip(SCORES, WEIGHTS[weights], strict=True) if w}
    if isinstance(weights, Mapping):
        if missing := [name for name in weights if name not in scores]:
            raise StatisticsError(
                f"A weight is given for {missing[0]!r}, which was not collected; there are "
                f"{', '.join(scores)}."
            )
        weights = [weights.get(name, 0.0) for name in scores]
    vector = tuple(float(w) for w in weights)
    # Written so that not-a-number is refused too.
    if len(vector) != len(scores) or min(vector) < 0 or not abs(sum(vector) - 1) <= 1e-6:
        raise StatisticsError(
            f"Weights are one number for each of {', '.join(scores)}, none negative, with sum 1; given: "
            f"{vector}."
        )
    return vector


def load_with_extra(path: str | PathLike[str]) -> tuple[ImportanceScores, dict[str, Any]]:
    """Scores and the further data saved with them; errors as in :meth:`ImportanceScores.load`."""
    with open_tensors(path, FORMAT, "file of importance scores") as (header, tensor):
        extra = header.pop("extra")
        lists = {name: tuple(header.pop(name)) for name in ("datasets", "scores", "groups")}
        scores = ImportanceScores(tensor("sums"), tensor("samples"), **lists, **header)
        return scores, extra
