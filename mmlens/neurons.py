"""Immutable sets of neurons of one module, with set algebra."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.storage.atomic import write_json

FORMAT = "mmlens.neuron_set/1"
#: How tables and conditions call the untouched model, and all domains, modalities or data sets together.
NONE, ALL = "none", "all"


class NeuronSet:
    """A set of neurons (layer, index) of one module.

    Args:
        pairs: ``[n, 2]`` of (layer, index), in any order; repeated pairs count once.
        module: the module's name: ``language``, ``vision``, ``projector``, ...
        shape: (layers, neurons per layer) of the module; the complement is taken in it.
        model_hash: fingerprint of the model the neurons belong to (``model.weight_hash``), or None
            for any model of that shape.

    Raises:
        StatisticsError: a pair lies outside ``shape``.

    >>> a = NeuronSet([(0, 1), (1, 2)], "language", (2, 4))
    >>> b = NeuronSet([(1, 2)], "language", (2, 4))
    >>> len(a & b), len(a | b), len(a - b), len(~a)
    (1, 2, 1, 6)
    """

    __slots__ = ("_codes", "_model_hash", "_module", "_shape")

    def __init__(
        self,
        pairs: Iterable[Iterable[int]] | Int[Tensor, "n 2"] | Int[np.ndarray, "n 2"],
        module: str,
        shape: tuple[int, int],
        model_hash: str | None = None,
    ) -> None:
        given: Any = pairs.cpu() if isinstance(pairs, Tensor) else pairs
        if not isinstance(given, Tensor | np.ndarray):
            given = [(layer, index) for layer, index in given]
        array = np.asarray(given, dtype=np.int64).reshape(-1, 2)
        layers, width = (int(n) for n in shape)
        outside = (array < 0).any(axis=1) | (array >= (layers, width)).any(axis=1)
        if outside.any():
            raise StatisticsError(
                f"Neuron (layer, index) = {tuple(array[outside][0].tolist())} lies outside module "
                f"{module!r}, which has {layers} layers of {width} neurons."
            )
        codes = np.unique(array[:, 0] * width + array[:, 1])
        codes.setflags(write=False)
        self._codes, self._module = codes, module
        self._shape, self._model_hash = (layers, width), model_hash

    @classmethod
    def from_mask(
        cls, mask: Bool[Tensor, "layer neuron"], module: str, model_hash: str | None = None
    ) -> NeuronSet:
        """The set of the neurons where ``mask`` is true."""
        return cls(mask.nonzero(), module, (mask.shape[0], mask.shape[1]), model_hash)

    @property
    def module(self) -> str:
        """The module's name."""
        return self._module

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, neurons per layer) of the module."""
        return self._shape

    @property
    def model_hash(self) -> str | None:
        """Fingerprint of the model the neurons belong to, or None for any."""
        return self._model_hash

    def pairs(self) -> Int[Tensor, "n 2"]:
        """(layer, index) of every neuron, sorted."""
        layer, index = np.divmod(self._codes, self._shape[1])
        return torch.from_numpy(np.stack([layer, index], axis=1))

    def mask(self) -> Bool[Tensor, "layer neuron"]:
        """True where a neuron is in the set."""
        flat = torch.zeros(self._shape[0] * self._shape[1], dtype=torch.bool)
        flat[torch.from_numpy(self._codes.copy())] = True
        return flat.view(self._shape)

    def per_layer(self) -> dict[int, Int[Tensor, " n"]]:
        """Layer -> sorted indices, for the layers that have any."""
        layer, index = np.divmod(self._codes, self._shape[1])
        return {int(one): torch.from_numpy(index[layer == one]) for one in np.unique(layer)}

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((layer, index) for layer, index in self.pairs().tolist())

    def __contains__(self, pair: object) -> bool:
        if not (isinstance(pair, Iterable) and len(both := tuple(pair)) == 2):
            return False
        if not all(isinstance(one, int | np.integer) for one in both):
            return False
        layer, index = both
        inside = 0 <= layer < self._shape[0] and 0 <= index < self._shape[1]
        return inside and bool(np.isin(layer * self._shape[1] + index, self._codes))

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return self._combined(other, np.union1d)

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return self._combined(other, np.intersect1d)

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return self._combined(other, np.setdiff1d)

    def __xor__(self, other: NeuronSet) -> NeuronSet:
        return self._combined(other, np.setxor1d)

    def __invert__(self) -> NeuronSet:
        everything = np.arange(self._shape[0] * self._shape[1])
        return self._with(np.setdiff1d(everything, self._codes), self._model_hash)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NeuronSet)
            and (self._module, self._shape) == (other._module, other._shape)
            and np.array_equal(self._codes, other._codes)
        )

    def __hash__(self) -> int:
        return hash((self._module, self._shape, self._codes.tobytes()))

    def __repr__(self) -> str:
        layers, width = self._shape
        return f"NeuronSet({len(self)} of {self._module}'s {layers} x {width} neurons)"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, the form that is saved as JSON."""
        return {
            "format": FORMAT,
            "module": self._module,
            "shape": list(self._shape),
            "model_hash": self._model_hash,
            "neurons": {str(layer): index.tolist() for layer, index in self.per_layer().items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NeuronSet:
        """The inverse of :meth:`to_dict`.

        Raises:
            StatisticsError: the data is not of this format.
        """
        if data.get("format") != FORMAT:
            raise StatisticsError(
                f"This is not a neuron set: its format is {data.get('format')!r}, expected {FORMAT!r}."
            )
        try:
            pairs = [(int(layer), i) for layer, indices in data["neurons"].items() for i in indices]
            layers, width = data["shape"]
            return cls(pairs, data["module"], (layers, width), data["model_hash"])
        except StatisticsError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StatisticsError(f"This neuron set is damaged: {error!r}.") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write the set as JSON, whole or not at all."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> NeuronSet:
        """Read a set that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            StatisticsError: the file is not a neuron set.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise StatisticsError(f"{path} is not a neuron set: {error}.") from error
        if not isinstance(data, dict):
            raise StatisticsError(f"{path} is not a neuron set: it holds no mapping.")
        return cls.from_dict(data)

    def _combined(self, other: NeuronSet, operation: Any) -> NeuronSet:
        if not isinstance(other, NeuronSet):
            return NotImplemented
        if (self._module, self._shape) != (other._module, other._shape):
            raise StatisticsError(
                f"{self!r} and {other!r} are sets of different modules; only sets of one module and "
                "shape combine."
            )
        hashes = {self._model_hash, other._model_hash} - {None}
        if len(hashes) > 1:
            raise StatisticsError(
                f"These neuron sets belong to different models ({' and '.join(sorted(map(str, hashes)))})"
                "; only sets of one model combine."
            )
        return self._with(operation(self._codes, other._codes), hashes.pop() if hashes else None)

    def _with(self, codes: np.ndarray, model_hash: str | None) -> NeuronSet:
        pairs = np.stack(np.divmod(codes, self._shape[1]), axis=1)
        return NeuronSet(pairs, self._module, self._shape, model_hash)


def from_index_lists(
    source: str | PathLike[str] | Sequence[Sequence[Any]],
    names: Sequence[str],
    shape: tuple[int, int],
    *,
    module: str = "language",
    model_hash: str | None = None,
) -> dict[str, NeuronSet]:
    """Neuron sets from the form in which LAPE and MMNeuron publish theirs.

    That form is a list over languages (or domains) of a list over layers of index tensors, written
    with ``torch.save``; it names neither the languages nor the model, so both are given here. LAPE's
    own files order the languages as its ``identify.py`` was given them. Files are read with
    ``torch.load(weights_only=True)``, which runs no code from them. Where the last languages have no
    neuron the published code writes no list for them (methods 2.9, B15): their sets are empty.

    Args:
        source: such a file, or its content.
        names: the languages, in the file's order.
        shape: (layers, neurons per layer) of the module.
        module: the module's name.
        model_hash: fingerprint of the model, or None for any of that shape.

    Raises:
        FileNotFoundError: there is no such file.
        StatisticsError: another form, more lists than names, other layers than ``shape`` has, or an
            index outside it.

    >>> lists = [[torch.tensor([1]), torch.tensor([])], [torch.tensor([0, 2]), torch.tensor([2])]]
    >>> {name: list(one) for name, one in from_index_lists(lists, ["en", "fr"], (2, 4)).items()}
    {'en': [(0, 1)], 'fr': [(0, 0), (0, 2), (1, 2)]}
    """
    lists = _index_lists(source) if isinstance(source, str | PathLike) else source
    if not isinstance(lists, list | tuple) or len(lists) > len(names):
        given = f"{len(lists)} lists" if isinstance(lists, list | tuple) else type(lists).__name__
        raise StatisticsError(
            f"These are {given} for {len(names)} names ({', '.join(names)}); give a list per name, of "
            "a list per layer, of neuron indices."
        )
    sets = {}
    padded = [*lists, *([[()] * shape[0]] * (len(names) - len(lists)))]
    for name, layers in zip(names, padded, strict=True):
        if not isinstance(layers, list | tuple) or len(layers) != shape[0]:
            given = len(layers) if isinstance(layers, list | tuple) else type(layers).__name__
            raise StatisticsError(
                f"{name!r} has {given} layers, but the module {shape[0]}; is it of another model?"
            )
        pairs = [
            (layer, int(index))
            for layer, indices in enumerate(layers)
            for index in _whole_numbers(indices, name)
        ]
        sets[name] = NeuronSet(pairs, module, shape, model_hash)
    return sets


def _whole_numbers(indices: Any, name: str) -> list[int]:
    try:
        tensor = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise StatisticsError(f"A layer of {name!r} is not a list of indices: {error}.") from error
    if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex()):
        raise StatisticsError(
            f"A layer of {name!r} holds {tensor.dtype}; indices are whole numbers."
        )
    return tensor.flatten().tolist()


def _index_lists(path: str | PathLike[str]) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file of index lists {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise nearly anything
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise StatisticsError(
            f"{path} does not hold lists of index tensors alone, and nothing else is read from such a file: "
            f"{first}"
        ) from error


def union(sets: Sequence[NeuronSet]) -> NeuronSet:
    """All neurons of several sets of one module.

    Raises:
        StatisticsError: there is no set.
    """
    if not sets:
        raise StatisticsError("A union is of at least one set of neurons.")
    return reduce(or_, sets)
