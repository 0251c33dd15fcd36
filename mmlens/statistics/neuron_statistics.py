"""Streamed neuron statistics: counts, sums, squares and extremes of activations, mergeable and exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.storage.tensorfile import open_tensors, write_tensors

# Files of format 1 have no minima, which cannot be recovered: they are refused.
FORMAT = "mmlens.statistics/2"
_REFUSED = {
    "mmlens.statistics/1": f"was written by an older mmlens, without the minima that {FORMAT} has: collect the "
    "statistics anew, into another file."
}


@dataclass(frozen=True)
class ModuleStatistics:
    """Statistics of one module's activations a, per key and token group.

    Attributes:
        positive: how often a > 0, strictly.
        total: sum of a.
        squares: sum of a squared.
        maximum: largest a; -inf where a group had no token.
        minimum: smallest a; +inf where a group had no token.
        tokens: positions counted.
    """

    positive: Int[Tensor, "key group layer neuron"]
    total: Float[Tensor, "key group layer neuron"]
    squares: Float[Tensor, "key group layer neuron"]
    maximum: Float[Tensor, "key group layer neuron"]
    minimum: Float[Tensor, "key group layer neuron"]
    tokens: Int[Tensor, "key group"]

    @classmethod
    def empty(cls, keys: int, groups: int, layers: int, width: int) -> ModuleStatistics:
        """Nothing counted yet."""
        shape = (keys, groups, layers, width)
        return cls(
            positive=torch.zeros(shape, dtype=torch.int64),
            total=torch.zeros(shape, dtype=torch.float64),
            squares=torch.zeros(shape, dtype=torch.float64),
            maximum=torch.full(shape, -torch.inf),
            minimum=torch.full(shape, torch.inf),
            tokens=torch.zeros((keys, groups), dtype=torch.int64),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Field name -> tensor."""
        return dict(vars(self))


FIELDS = tuple(field.name for field in fields(ModuleStatistics))
#: What a field holds where nothing was counted, if not 0.
_NOTHING = {"maximum": -torch.inf, "minimum": torch.inf}


@dataclass(frozen=True)
class NeuronStatistics:
    """Statistics of the neurons of one model over samples.

    Attributes:
        modules: module name -> its statistics.
        keys: values of the field ``by``, sorted; the first axis.
        groups: module name -> names of its token groups; the second axis.
        by: the field of the samples that the keys are values of.
        samples: samples counted, per key.
        skipped: sample id -> why it was left out.
        model_hash: fingerprint of the model.
        site: what a is: ``act``, the activation; ``glu``, its product with the up branch.
    """

    modules: Mapping[str, ModuleStatistics]
    keys: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    by: str
    samples: Int[Tensor, " key"]
    skipped: Mapping[str, str]
    model_hash: str | None = None
    site: Literal["act", "glu"] = "act"

    def __add__(self, other: NeuronStatistics) -> NeuronStatistics:
        """Statistics of both sets of samples together.

        Counts add as integers, so they are exact in any order; sums are float64.

        Raises:
            StatisticsError: they are of different models, modules, groups, fields or sites.
        """
        if not isinstance(other, NeuronStatistics):
            return NotImplemented
        for what in ("model_hash", "by", "groups", "site"):
            if getattr(self, what) != getattr(other, what):
                raise StatisticsError(
                    f"These statistics do not belong together: their {what} are "
                    f"{getattr(self, what)!r} and {getattr(other, what)!r}."
                )
        keys = tuple(sorted({*self.keys, *other.keys}))
        a, b = self.with_keys(keys), other.with_keys(keys)
        return replace(
            a,
            modules={name: _added(one, b.modules[name]) for name, one in a.modules.items()},
            samples=a.samples + b.samples,
            skipped={**a.skipped, **b.skipped},
        )

    def with_keys(self, keys: Sequence[str]) -> NeuronStatistics:
        """The same statistics with their keys in another order; keys not yet counted are empty.

        Raises:
            StatisticsError: a key of these statistics is missing from ``keys``.
        """
        if missing := set(self.keys) - set(keys):
            raise StatisticsError(f"The keys {sorted(missing)} would be lost; name them too.")
        if tuple(keys) == self.keys:
            return self
        rows = torch.tensor([list(keys).index(key) for key in self.keys], dtype=torch.long)

        def spread(value: Tensor, fill: float | int = 0) -> Tensor:
            out = torch.full((len(keys), *value.shape[1:]), fill, dtype=value.dtype)
            out[rows] = value
            return out

        modules = {
            name: ModuleStatistics(
                *(spread(value, _NOTHING.get(field, 0)) for field, value in one.tensors().items())
            )
            for name, one in self.modules.items()
        }
        return replace(self, modules=modules, keys=tuple(keys), samples=spread(self.samples))

    def counts(
        self, module: str, group: str | None = None, keys: Sequence[str] | None = None
    ) -> tuple[Int[Tensor, "layer neuron key"], Int[Tensor, " key"]]:
        """Counts above zero and token totals of one module and group, as :mod:`mmlens.entropy` takes them.

        Args:
            module: the module's name.
            group: the token group; default: the module's first.
            keys: order of the last axis; default: all.

        Raises:
            StatisticsError: there is no such module, group or key.
        """
        one, g, rows = self._located(module, group, keys)
        return one.positive[rows, g].permute(1, 2, 0), one.tokens[rows, g]

    def means(
        self, module: str, group: str | None = None, keys: Sequence[str] | None = None
    ) -> Float[Tensor, "layer neuron"]:
        """Mean a of every neuron over the tokens of one group and of some keys, each token once.

        Args:
            module, group, keys: as in :meth:`counts`.

        Raises:
            StatisticsError: there is no such module, group or key, or they have no token.
        """
        one, g, rows = self._counted(module, group, keys)
        return one.total[rows, g].sum(0) / one.tokens[rows, g].sum()

    def minima(
        self, module: str, group: str | None = None, keys: Sequence[str] | None = None
    ) -> Float[Tensor, "layer neuron"]:
        """Smallest a of every neuron over those tokens; arguments and errors as in :meth:`means`."""
        one, g, rows = self._counted(module, group, keys)
        return one.minimum[rows, g].amin(0).double()

    def _counted(
        self, module: str, group: str | None, keys: Sequence[str] | None
    ) -> tuple[ModuleStatistics, int, list[int]]:
        """As :meth:`_located`, with at least one token."""
        one, g, rows = self._located(module, group, keys)
        if not one.tokens[rows, g].sum():
            raise StatisticsError(
                f"No token of group {self.groups[module][g]!r} of {module!r} was counted for "
                f"{', '.join(self.keys[row] for row in rows) or 'no key'}, so it has neither mean nor minimum."
            )
        return one, g, rows

    def _located(
        self, module: str, group: str | None, keys: Sequence[str] | None
    ) -> tuple[ModuleStatistics, int, list[int]]:
        """The module's statistics, the group's place on their second axis, the keys' on the first."""
        one = self.modules.get(module)
        if one is None:
            raise StatisticsError(
                f"Module {module!r} was not collected; there are {', '.join(self.modules)}."
            )
        groups, keys = self.groups[module], self.keys if keys is None else keys
        if group is not None and group not in groups:
            raise StatisticsError(
                f"Group {group!r} was not collected for {module!r}; there are {', '.join(groups)}."
            )
        if unknown := [key for key in keys if key not in self.keys]:
            raise StatisticsError(
                f"{self.by} {unknown[0]!r} was not collected; there are {', '.join(self.keys)}."
            )
        g = groups.index(group) if group is not None else 0
        return one, g, [self.keys.index(key) for key in keys]

    def check_model(self, model_hash: str) -> None:
        """Raise StatisticsError if the statistics are of another model."""
        if self.model_hash is not None and self.model_hash != model_hash:
            raise StatisticsError(
                f"These statistics are of another model (weights {self.model_hash}, the model at hand "
                f"has {model_hash}); collect them anew."
            )

    def save(self, path: str | PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Write tensors as safetensors with everything else as JSON in its header, atomically.

        Args:
            path: a ``.safetensors`` file.
            extra: further JSON data to keep in the header.
        """
        tensors = {
            f"{name}.{field}": value
            for name, one in self.modules.items()
            for field, value in one.tensors().items()
        }
        header = {
            "keys": self.keys,
            "groups": dict(self.groups),
            "by": self.by,
            "samples": self.samples.tolist(),
            "skipped": dict(self.skipped),
            "model_hash": self.model_hash,
            "site": self.site,
            "extra": dict(extra or {}),
        }
        write_tensors(path, FORMAT, tensors, header)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> NeuronStatistics:
        """Read statistics that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            StatisticsError: the file is damaged or not of this format.
        """
        return load_with_extra(path)[0]


def load_with_extra(path: str | PathLike[str]) -> tuple[NeuronStatistics, dict[str, Any]]:
    """Statistics and the further data saved with them; errors as in :meth:`NeuronStatistics.load`."""
    with open_tensors(path, FORMAT, "statistics file", _REFUSED) as (header, tensor):
        statistics = NeuronStatistics(
            modules={
                name: ModuleStatistics(*(tensor(f"{name}.{field}") for field in FIELDS))
                for name in header["groups"]
            },
            keys=tuple(header["keys"]),
            groups={name: tuple(groups) for name, groups in header["groups"].items()},
            by=header["by"],
            samples=torch.tensor(header["samples"], dtype=torch.int64),
            skipped=header["skipped"],
            model_hash=header["model_hash"],
            site=header["site"],
        )
        return statistics, header["extra"]


def _added(a: ModuleStatistics, b: ModuleStatistics) -> ModuleStatistics:
    if a.positive.shape != b.positive.shape:
        raise StatisticsError(
            f"Statistics of shapes {tuple(a.positive.shape)} and {tuple(b.positive.shape)} do not add."
        )
    return ModuleStatistics(
        positive=a.positive + b.positive,
        total=a.total + b.total,
        squares=a.squares + b.squares,
        maximum=torch.maximum(a.maximum, b.maximum),
        minimum=torch.minimum(a.minimum, b.minimum),
        tokens=a.tokens + b.tokens,
    )
