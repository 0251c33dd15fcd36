"""The questions of a study: which there are, and which of them a mask is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmlens.data.samples import Sample, take_per_value
from mmlens.errors import SampleError
from mmlens.neurons import ALL


@dataclass(frozen=True)
class Questions:
    """Which questions are asked.

    Attributes:
        own: domain (or data set) -> ids of the questions for its own mask.
        shared: domain -> the part of those that the masks of other domains are asked too.
        samples: all of them.

    Raises:
        SampleError: a domain or data set is called ``all``.
    """

    own: Mapping[str, tuple[str, ...]]
    shared: Mapping[str, tuple[str, ...]]
    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        if ALL in self.own:
            raise SampleError(
                f"A domain or data set cannot be called {ALL!r}: that names all of them together."
            )

    @classmethod
    def choose(
        cls, samples: Sequence[Sample], domains: Sequence[str], own: int, shared: int, seed: int
    ) -> Questions:
        """Draw ``own`` questions of each domain, and ``shared`` of those, with a seed.

        Raises:
            SampleError: a domain has no question.
        """
        chosen = take_per_value(
            [s for s in samples if s.domain in domains], "domain", own, seed=seed
        )
        pools = {d: [s for s in chosen if s.domain == d] for d in domains}
        if empty := [d for d, pool in pools.items() if not pool]:
            present = sorted({str(s.domain) for s in samples})
            raise SampleError(
                f"Domain {empty[0]!r} has no question to evaluate on; there are {', '.join(present)}."
            )
        few = {d: take_per_value(pool, "domain", shared, seed=seed) for d, pool in pools.items()}
        return cls(
            own={d: tuple(s.id for s in pool) for d, pool in pools.items()},
            shared={d: tuple(s.id for s in pool) for d, pool in few.items()},
            samples=tuple(chosen),
        )

    @classmethod
    def by_field(cls, samples: Sequence[Sample], field: str) -> Questions:
        """All samples, each for every mask; a field's values are the data sets, sorted by name."""
        found: dict[str, list[str]] = {}
        for sample in samples:
            found.setdefault(str(sample.get(field)), []).append(sample.id)
        own = {name: tuple(found[name]) for name in sorted(found)}
        return cls(own, own, tuple(samples))

    @property
    def cluster_field(self) -> str | None:
        """``source`` where every sample has that field: what groups dependent questions."""
        return "source" if all("source" in s.fields for s in self.samples) else None

    def clusters(self, field: str | None) -> dict[str, str]:
        """Sample id -> what groups it with dependent questions; itself where no field says so."""
        named = field or "id"
        return {s.id: str(s.fields.get(named, getattr(s, named, s.id))) for s in self.samples}

    def asked(self, label: str, full: bool) -> dict[str, tuple[str, ...]]:
        """Evaluated domain -> questions, for the mask of a domain or ``all``."""
        if full:
            return dict(self.own)
        return {d: self.own[d] if d == label else self.shared[d] for d in self.own}
