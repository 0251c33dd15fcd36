"""The one loop over samples: order, what is skipped, the cap on failures, resuming, sharing by rank."""

from dataclasses import replace

import pytest

import mmlens
from mmlens.errors import TooManyFailuresError
from mmlens.streaming.batching import Batching
from mmlens.streaming.distributed import Share
from mmlens.streaming.sweep import Piece, Rows, Sweep, planned
from tests.tiny import llava_next as tiny

TWO = Batching(max_batch=2, progress=False)


@pytest.fixture(scope="module")
def model():
    return mmlens.splice(tiny.model("mistral"), tiny.processor(), check=False)


@pytest.fixture(scope="module")
def samples():
    return tiny.samples()


def gone(sample):
    return replace(sample, id=f"gone-{sample.id}", images=("/no/such/picture.png",))


def test_pieces_come_in_order_each_with_its_samples(model, samples):
    pieces = planned(model, [("a", samples[:3]), ("b", samples)], TWO)
    assert [piece.work for piece in pieces] == ["a"] * 2 + ["b"] * 5
    assert all(piece.units == len(piece.samples) <= 2 for piece in pieces)
    sweep = Sweep(model, pieces, TWO, samples=len(samples), description="")
    tokens = 0
    for (piece, batch), wanted in zip(sweep, pieces, strict=True):
        assert piece is wanted and batch.samples == piece.samples
        tokens += int(batch.groups.attention.sum())
    assert sweep.tokens == tokens > 0 and not sweep.skipped


def test_unreadable_samples_are_left_out_and_a_piece_of_them_passed_over(model, samples):
    bad, worse = gone(samples[0]), gone(samples[1])
    pieces = [Piece(0, (samples[0], bad), 2), Piece(1, (worse,), 1), Piece(2, (samples[2],), 1)]
    loose = replace(TWO, max_failures=0.5)
    sweep = Sweep(model, pieces, loose, samples=4, description="")
    seen = [(piece.work, [s.id for s in batch.samples]) for piece, batch in sweep]
    assert seen == [(0, [samples[0].id]), (2, [samples[2].id])]
    assert set(sweep.skipped) == {bad.id, worse.id}
    assert "does not exist" in sweep.skipped[bad.id]


def test_the_cap_on_failures(model, samples):
    pieces = [Piece(0, (samples[0],), 1), Piece(1, (gone(samples[1]),), 1)]
    sweep = Sweep(model, pieces, TWO, samples=2, description="")
    seen = []
    with pytest.raises(TooManyFailuresError, match="1 of 2 samples"):
        for piece, _ in sweep:
            seen.append(piece.work)
    assert seen == [0]
    # Samples that are known to be unreadable count before anything is run.
    with pytest.raises(TooManyFailuresError, match="'x': torn"):
        Sweep(model, pieces, TWO, samples=2, description="", skipped={"x": "torn"})


class Bar:
    """In the place of a progress bar."""

    def __init__(self, **options):
        self.options, self.counts = options, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, n):
        self.counts.append(n)


def test_the_bar_counts_units(model, samples, monkeypatch):
    bars = []

    def made(**options):
        bars.append(Bar(**options))
        return bars[-1]

    monkeypatch.setattr("mmlens.streaming.sweep.tqdm", made)
    pieces = [Piece(0, (samples[0],), 6), Piece(1, (samples[1],), 4)]
    sweep = Sweep(model, pieces, Batching(), samples=2, description="some", unit="run", finished=3)
    for piece, _ in sweep:
        if piece.work == 0:
            sweep.advance(2)
            sweep.advance(1)
    (bar,) = bars
    about = {"desc": "some", "unit": "run", "initial": 3, "total": 13, "disable": None}
    assert bar.options == about
    assert bar.counts == [2, 1, 3, 4]
    for share, batching in ((Share(1, 2), Batching()), (Share(), TWO)):
        list(Sweep(model, pieces, batching, samples=2, description="", share=share))
        assert bars[-1].options["disable"] is True


def test_rows_are_resumed_by_key(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = Rows(path, ("condition", "id"))
    rows.add([{"condition": "mask", "id": "a", "x": 1}, {"condition": "none", "id": "a", "x": 2}])
    with path.open("a") as file:
        file.write('{"condition": "none", "id": "b"')  # killed while it was writing
    again = Rows(path, ("condition", "id"))
    assert ("mask", "a") in again and ("none", "b") not in again
    assert again["none", "a"]["x"] == 2
    wanted = [("none", "a"), ("none", "b"), ("mask", "a")]
    assert [row["x"] for row in again.of(wanted)] == [2, 1]
    again.add([{"condition": "none", "id": "b", "x": 3}])
    assert [row["x"] for row in Rows(path, ("condition", "id")).of(wanted)] == [2, 3, 1]


def test_a_share_takes_every_nth_and_has_files_of_its_own(tmp_path):
    parts = [Share(rank, 3).of(range(8)) for rank in range(3)]
    assert [list(part) for part in parts] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert Share().file(tmp_path / "a.jsonl") == tmp_path / "a.jsonl"
    assert Share(1, 3).file(tmp_path / "a.jsonl") == tmp_path / "a.1-of-3.jsonl"
    assert Share(1, 3).file(None) is None


def lengths(model, samples, path, share):
    """A pass whose rows are the lengths of prompts."""
    rows = Rows(share.file(path), ("id",))
    pieces = share.of(planned(model, [(None, samples)], TWO))
    left = [piece for piece in pieces if any((s.id,) not in rows for s in piece.samples)]
    for _, batch in Sweep(model, left, TWO, samples=len(samples), description="", share=share):
        counts = batch.groups.attention.sum(-1).tolist()
        rows.add([{"id": s.id, "n": n} for s, n in zip(batch.samples, counts, strict=True)])
    rows.merge(share)
    return rows.of((s.id,) for s in samples)


def test_an_interrupted_pass_runs_what_is_missing(model, samples, tmp_path):
    whole = lengths(model, samples, None, Share())
    path = tmp_path / "rows.jsonl"
    lengths(model, samples, path, Share())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]))
    assert lengths(model, samples, path, Share()) == whole
    assert path.read_text().splitlines(keepends=True) == lines
