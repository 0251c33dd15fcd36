"""The largest activations of chosen neurons, where they occurred, and how activations are spread.

All of it is of bounded size, [neuron, key, k] and [neuron, key, bin], and merges exactly: it does not
depend on the order of samples or on how they were batched, as long as the activations do not (those
of two batchings may differ by rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from os import PathLike

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.errors import StatisticsError
from mmlens.storage.tensorfile import open_tensors, write_tensors

FORMAT = "mmlens.top_activations/1"
#: Of several modules, in one file.
FORMAT_ALL = "mmlens.top_activations_by_module/1"
_NOUN = "file of top activations"
#: Beyond this exponent of two, in both directions, bins are open.
_SMALLEST, _LARGEST, _PER_OCTAVE = -10, 10, 2
#: What a file holds as tensors, and as JSON in its header.
_FIELDS = ("neurons", "values", "samples", "positions", "histogram")
_LISTS = ("shape", "ids", "sources", "keys")
_HEADER = ("module", *_LISTS, "by", "group", "distinct", "model_hash")


@cache
def bin_edges() -> Float[Tensor, " edge"]:
    """The edges of the histogram's bins: a grid that is logarithmic on both sides of zero.

    0, and plus and minus 2^(j/2) from 2^-10 to 2^10. Bin i holds what lies above edge i-1 and not above
    edge i; the first and the last are open. Zero is an edge, so the bins above it count exactly
    the activations that are positive. The grid is fixed beforehand, the same for every neuron, so that
    histograms of parts of the data add up to that of the whole.
    """
    steps = torch.arange(_SMALLEST * _PER_OCTAVE, _LARGEST * _PER_OCTAVE + 1)
    positive = torch.exp2(steps.double() / _PER_OCTAVE)
    return torch.cat([-positive.flip(0), torch.zeros(1, dtype=torch.double), positive]).float()


def histogram(values: Float[Tensor, "pos neuron"]) -> Int[Tensor, "neuron bin"]:
    """How many of each neuron's values fall into each bin of :func:`bin_edges`."""
    edges = bin_edges().to(values.device)
    bins = torch.bucketize(values.T.contiguous(), edges)
    counts = torch.zeros((values.shape[1], len(edges) + 1), dtype=torch.int64, device=values.device)
    return counts.scatter_add_(1, bins, torch.ones_like(bins))


def largest(
    values: Float[Tensor, "*row entry"],
    samples: Int[Tensor, "*row entry"],
    positions: Int[Tensor, "*row entry"],
    k: int,
    sources: Int[Tensor, " sample"] | None = None,
) -> tuple[Float[Tensor, "*row k"], Int[Tensor, "*row k"], Int[Tensor, "*row k"]]:
    """The k largest values with their sample and position; of equal ones the first sample, then position.

    Args:
        values: -inf where an entry means nothing.
        samples, positions: where each occurred.
        k: how many; where there are fewer, the rest is -inf, -1, -1.
        sources: for each sample, its source; of each source only the largest is kept.
    """
    if (lacking := k - values.shape[-1]) > 0:
        pad = torch.nn.functional.pad
        values = pad(values, (0, lacking), value=-torch.inf)
        samples, positions = (pad(x, (0, lacking), value=-1) for x in (samples, positions))
    values, samples, positions = _ordered(values, samples, positions)
    if sources is not None:
        # Missing entries (-1) read any source; being last, they can only hide one another.
        source = sources[samples]
        same = source[..., :, None] == source[..., None, :]
        values = values.masked_fill(same.tril(-1).any(-1), -torch.inf)
        values, samples, positions = _ordered(values, samples, positions)
    values, samples, positions = (x[..., :k] for x in (values, samples, positions))
    missing = values == -torch.inf
    return values, samples.masked_fill(missing, -1), positions.masked_fill(missing, -1)


def _ordered(
    values: Float[Tensor, "*row entry"],
    samples: Int[Tensor, "*row entry"],
    positions: Int[Tensor, "*row entry"],
) -> list[Tensor]:
    found = [values, samples, positions]
    # Stable sorts, the least important first.
    for which, descending in ((2, False), (1, False), (0, True)):
        index = found[which].sort(dim=-1, descending=descending, stable=True).indices
        found = [x.gather(-1, index) for x in found]
    return found


def first_maxima(
    values: Float[Tensor, "pos neuron"],
) -> tuple[Float[Tensor, " neuron"], Int[Tensor, " neuron"]]:
    """Each neuron's largest value and the first position that has it."""
    top = values.amax(0)
    # argmax of torch may give any of several equal ones.
    order = torch.arange(len(values), device=values.device)[:, None]
    return top, torch.where(values == top, order, len(values)).amin(0).clamp(max=len(values) - 1)


@dataclass(frozen=True, eq=False)
class TopActivations:
    """The largest activations of one module's chosen neurons, per key.

    The activation is the output of the activation function on the gate branch, before the product
    with the up branch (of an MLP without a gate: the output of the non-linearity).

    Attributes:
        module: the module.
        shape: (layers, neurons per layer) of the module.
        neurons: (layer, index), sorted.
        values: the k largest activations, largest first; -inf where there are fewer.
        samples: the sample of each, as its place in ``ids``; -1 where there is none.
        positions: the position of each within its sample: of ``language`` the token's place in the
            prompt without padding; of a tower the place among the sample's real positions in it, as
            :func:`mmlens.model.places.places_of` numbers them.
        histogram: activations per bin of :func:`bin_edges`; all positions of the group.
        ids: ids of the samples that are named, sorted: of equal activations the one whose sample's
            id comes first is kept, and within a sample the first position.
        sources: for each of these samples, what it shares with others of which only the largest
            activation is kept; its own id where it shares nothing.
        keys: values of the samples' field ``by``.
        group: the token group; ``all`` outside ``language``.
        distinct: what gives a neuron one entry at most, its largest: ``media``, ``sample`` or
            ``position``.
        model_hash: fingerprint of the model.
        skipped: sample id -> why it was left out.
    """

    module: str
    shape: tuple[int, int]
    neurons: Int[Tensor, "n 2"]
    values: Float[Tensor, "n key k"]
    samples: Int[Tensor, "n key k"]
    positions: Int[Tensor, "n key k"]
    histogram: Int[Tensor, "n key bin"]
    ids: tuple[str, ...]
    sources: tuple[str, ...]
    keys: tuple[str, ...]
    by: str
    group: str
    distinct: str
    model_hash: str | None
    skipped: Mapping[str, str]

    @property
    def k(self) -> int:
        """Entries per neuron and key."""
        return self.values.shape[-1]

    @property
    def tokens(self) -> Int[Tensor, " key"]:
        """Positions counted, per key."""
        return self.histogram[0].sum(-1)

    def probabilities(self) -> Float[Tensor, "n key"]:
        """The share of a key's positions on which a neuron's activation is above zero.

        NaN for a key without a position. Methods: MMNeuron section 3.
        """
        above = self.histogram[..., len(bin_edges()) // 2 + 1 :].sum(-1)
        return above.double() / self.histogram.sum(-1).double()

    def __add__(self, other: TopActivations) -> TopActivations:
        """The largest of both; the samples of the two have to be different ones.

        Raises:
            StatisticsError: they are of different models, neurons, groups or settings.
        """
        if not isinstance(other, TopActivations):
            return NotImplemented
        for what in ("module", "shape", "by", "group", "distinct", "model_hash", "k"):
            if getattr(self, what) != getattr(other, what):
                raise StatisticsError(
                    f"These top activations do not belong together: their {what} are "
                    f"{getattr(self, what)!r} and {getattr(other, what)!r}."
                )
        if not torch.equal(self.neurons, other.neurons):
            raise StatisticsError("These top activations are of different neurons.")
        named = dict(zip(self.ids, self.sources, strict=True))
        named |= dict(zip(other.ids, other.sources, strict=True))
        ids = tuple(sorted(named))
        keys = tuple(sorted({*self.keys, *other.keys}))
        sources = tuple(named[name] for name in ids)
        a, b = self.spread(ids, sources, keys), other.spread(ids, sources, keys)
        values, samples, positions = largest(
            *(torch.cat([getattr(a, f), getattr(b, f)], -1) for f in _FIELDS[1:4]),
            k=self.k,
            sources=None if self.distinct == "position" else numbered(sources),
        )
        return replace(
            a,
            values=values,
            samples=samples,
            positions=positions,
            histogram=a.histogram + b.histogram,
            skipped={**a.skipped, **b.skipped},
        ).compact()

    def compact(self) -> TopActivations:
        """The same, with only those samples' ids that are named."""
        used = sorted(set(self.samples.flatten().tolist()) - {-1})
        moved = torch.full((len(self.ids) + 1,), -1)  # the last stands for -1
        moved[used] = torch.arange(len(used))
        return replace(
            self,
            ids=tuple(self.ids[i] for i in used),
            sources=tuple(self.sources[i] for i in used),
            samples=moved[self.samples],
        )

    def spread(
        self, ids: tuple[str, ...], sources: tuple[str, ...], keys: tuple[str, ...]
    ) -> TopActivations:
        """The same among more ids and keys, which contain its own."""
        places = {name: place for place, name in enumerate(ids)}
        moved = torch.tensor([*(places[name] for name in self.ids), -1])  # -1 stays -1
        rows = [keys.index(key) for key in self.keys]
        empty = nothing(len(self.neurons), len(keys), self.k)
        empty["samples"][:, rows] = moved[self.samples]
        for field in ("values", "positions", "histogram"):
            empty[field][:, rows] = getattr(self, field)
        return replace(self, ids=ids, sources=sources, keys=keys, **empty)

    def changing(self) -> dict[str, Tensor]:
        """Copies of the tensors that grow with further samples."""
        return {name: getattr(self, name).clone() for name in _FIELDS[1:]}

    def save(self, path: str | PathLike[str]) -> None:
        """Write tensors as safetensors with everything else as JSON in its header, atomically."""
        write_tensors(path, FORMAT, self.tensors(), self.header())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TopActivations:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            StatisticsError: the file is damaged or not of this format.
        """
        with open_tensors(path, FORMAT, _NOUN) as (header, tensor):
            return cls.from_parts(header, tensor)

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The tensors of a file, by name."""
        return {prefix + field: getattr(self, field) for field in _FIELDS}

    def header(self) -> dict[str, Any]:
        """Everything else of it."""
        return {name: getattr(self, name) for name in _HEADER} | {"skipped": dict(self.skipped)}

    @classmethod
    def from_parts(
        cls, header: Mapping[str, Any], tensor: Callable[[str], Tensor], prefix: str = ""
    ) -> TopActivations:
        """The inverse of :meth:`tensors` and :meth:`header`."""
        tensors = {field: tensor(prefix + field) for field in _FIELDS}
        lists = {name: tuple(header[name]) for name in _LISTS}
        fields: dict[str, Any] = {**tensors, **header, **lists}
        return cls(**fields)


def save_all(
    path: str | PathLike[str], found: Mapping[str, TopActivations], extra: Mapping[str, Any]
) -> None:
    """Write the top activations of several modules, and further data, into one file, atomically."""
    tensors: dict[str, Tensor] = {}
    for module, one in found.items():
        tensors |= one.tensors(f"{module}/")
    headers = {module: one.header() for module, one in found.items()}
    write_tensors(path, FORMAT_ALL, tensors, {"modules": headers, "extra": dict(extra)})


def load_all(path: str | PathLike[str]) -> tuple[dict[str, TopActivations], dict[str, Any]]:
    """The inverse of :func:`save_all`; errors as of :meth:`TopActivations.load`."""
    with open_tensors(path, FORMAT_ALL, _NOUN) as (header, tensor):
        found = {
            module: TopActivations.from_parts(one, tensor, f"{module}/")
            for module, one in header["modules"].items()
        }
        return found, header["extra"]


def numbered(sources: Sequence[str]) -> Int[Tensor, " sample"]:
    """A number for each sample, the same where the source is."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(one, len(numbers)) for one in sources])


def nothing(neurons: int, keys: int, k: int) -> dict[str, Tensor]:
    """The tensors of top activations before anything was seen."""
    shape = (neurons, keys, k)
    return {
        "values": torch.full(shape, -torch.inf),
        "samples": torch.full(shape, -1),
        "positions": torch.full(shape, -1),
        "histogram": torch.zeros((neurons, keys, len(bin_edges()) + 1), dtype=torch.int64),
    }
