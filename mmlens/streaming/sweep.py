"""The one loop over samples: planned batches, prepared one ahead, the unreadable left out.

Every pass of the library is a sweep. What a pass does with a batch is the body of its ``for`` loop::

    rows = Rows(path, ("condition", "id"))
    pieces = [piece for piece in planned(model, blocks, batching) if missing(piece, rows)]
    sweep = Sweep(model, pieces, batching, samples=len(samples), description="evaluate")
    for piece, batch in sweep:
        rows.add(run(batch, piece.work))
    rows.merge(share)

A pass is resumed by leaving out the pieces whose rows are there already. Several processes share it
by rank: each sweeps its share of the pieces, and the rows (or mergeable statistics) are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm.auto import tqdm

from mmlens.data.samples import Sample
from mmlens.model.batch import Batch
from mmlens.model.hooked_mllm import HookedMLLM
from mmlens.storage.atomic import append_jsonl, read_jsonl
from mmlens.streaming.batching import Batching, prefetched
from mmlens.streaming.distributed import ALONE, Share
from mmlens.streaming.plan import check_failures, planned_batches, prepared_or_skipped

Work = TypeVar("Work")


@dataclass(frozen=True)
class Piece(Generic[Work]):
    """Samples that run together, and what is to be done with them.

    Attributes:
        work: the pass's own: conditions to run under, a place in a plan, ...
        samples: of one batch.
        units: what the progress bar counts for it.
    """

    work: Work
    samples: tuple[Sample, ...]
    units: int


def planned(
    model: HookedMLLM,
    blocks: Iterable[tuple[Work, Sequence[Sample]]],
    batching: Batching,
) -> list[Piece[Work]]:
    """Each block's samples in batches of similar length; a piece counts its samples.

    Args:
        model: a hooked model.
        blocks: work, and the samples that it is done with.
        batching: template, budget and batch size.
    """
    return [
        Piece(work, tuple(chosen), len(chosen))
        for work, block in blocks
        for chosen in planned_batches(model, block, batching)
    ]


class Sweep(Generic[Work]):
    """One pass over pieces: iterate over it for (piece, batch) of the samples that can be read.

    The next batch is prepared while one is run. Batches lie on the CPU.

    Args:
        model: a hooked model.
        pieces: what to run, in order; this process's share.
        batching: template, allowed failures, progress bar.
        samples: how many samples the pass has in all, of which ``max_failures`` is a share.
        description: of the progress bar.
        unit: what the bar counts.
        finished: units that an earlier start has done.
        skipped: samples that are known to be unreadable.
        share: this process's part; of several processes the first alone shows a bar.

    Attributes:
        skipped: sample id -> why it could not be read.
        tokens: prompt tokens of the batches so far, padding left out.
    """

    def __init__(
        self,
        model: HookedMLLM,
        pieces: Sequence[Piece[Work]],
        batching: Batching,
        *,
        samples: int,
        description: str,
        unit: str = "sample",
        finished: int = 0,
        skipped: Mapping[str, str] | None = None,
        share: Share = ALONE,
    ) -> None:
        self.model, self.pieces, self.batching = model, pieces, batching
        self.samples = samples
        self.skipped = dict(skipped or {})
        self.tokens = 0
        self._bar_options = {
            "desc": description,
            "unit": unit,
            "initial": finished,
            "total": finished + sum(piece.units for piece in pieces),
            "disable": None if batching.progress and share.rank == 0 else True,
        }
        self._advance = 0
        self.check_failures()

    def check_failures(self) -> None:
        """Raise TooManyFailuresError if more samples are unreadable than the cap allows."""
        check_failures(self.skipped, self.samples, self.batching.max_failures)

    def advance(self, units: int) -> None:
        """Move the bar within a piece; the rest of the piece's units follows at its end."""
        self._advance += units
        self._bar.update(units)

    def __iter__(self) -> Iterator[tuple[Piece[Work], Batch]]:
        """(piece, batch of its readable samples); pieces without any are left out.

        Raises:
            TooManyFailuresError: more samples unreadable than the cap allows.
        """
        prepared = prefetched(self.pieces, self._prepared)
        with tqdm(**self._bar_options) as self._bar:
            for piece, (batch, reasons) in zip(self.pieces, prepared, strict=True):
                self._advance = 0
                self.skipped.update(reasons)
                self.check_failures()
                if batch is not None:
                    self.tokens += int(batch.groups.attention.sum())
                    yield piece, batch
                self._bar.update(piece.units - self._advance)

    def _prepared(self, piece: Piece[Work]) -> tuple[Batch | None, dict[str, str]]:
        return prepared_or_skipped(self.model, piece.samples, self.batching.template)


class Rows:
    """The rows of a resumable pass by key, appended to a JSON-lines file as soon as they are there.

    Args:
        path: the file, read if it is there; None: rows are kept in memory alone.
        key: fields that no two rows share, such as ``("condition", "id")``.
        known: the rows of the file that count; default: all.
    """

    def __init__(
        self,
        path: Path | None,
        key: Sequence[str],
        known: Iterable[dict[str, Any]] | None = None,
    ) -> None:
        self.path, self._key = path, tuple(key)
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        if known is None:
            known = read_jsonl(path) if path is not None else []
        self._keep(known)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep rows, and write them down."""
        self._keep(rows)
        if self.path is not None:
            append_jsonl(self.path, rows)

    def merge(self, share: Share) -> None:
        """Take in the rows of all processes, in the order of ranks; each has written its own."""
        self._keep(share.merged(list(self._rows.values())))

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._rows

    def __getitem__(self, key: tuple[Any, ...]) -> dict[str, Any]:
        return self._rows[key]

    def of(self, keys: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
        """The rows of those keys that there are, in the order of the keys."""
        return [self._rows[key] for key in keys if key in self._rows]

    def _keep(self, rows: Iterable[dict[str, Any]]) -> None:
        self._rows.update({tuple(row[name] for name in self._key): row for row in rows})
