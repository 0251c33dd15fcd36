"""Plans: which samples run together, in which order, decided before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mmlens.errors import SampleError

T = TypeVar("T")
R = TypeVar("R")


def plan_batches(lengths: Sequence[int], token_budget: int, max_batch: int = 64) -> list[list[int]]:
    """Batches of similar length: positions of samples, longest first.

    A batch of n samples takes n x (its longest) tokens, padding included, and stays within the
    budget; a sample longer than the budget runs alone. The plan depends on its arguments only.
    Longest first, so that a batch that does not fit into memory fails at once.

    Args:
        lengths: tokens of each sample's prompt.
        token_budget: tokens per batch at most.
        max_batch: samples per batch at most.

    Raises:
        SampleError: a budget or batch size below one.

    >>> plan_batches([5, 9, 4, 5], token_budget=10)
    [[1], [0, 3], [2]]
    """
    if token_budget < 1 or max_batch < 1:
        raise SampleError(
            f"token_budget and max_batch must be at least 1; {token_budget} and {max_batch} given."
        )
    batches: list[list[int]] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        size = len(batches[-1]) + 1 if batches else 0
        if 0 < size <= max_batch and size * longest <= token_budget:
            batches[-1].append(position)
        else:
            batches.append([position])
            longest = lengths[position]
    return batches


def prefetched(items: Iterable[T], prepare: Callable[[T], R], depth: int = 1) -> Iterator[R]:
    """``prepare(item)`` for each item in order, one thread working ``depth`` items ahead."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[Future[R]] = []
        try:
            for item in items:
                waiting.append(pool.submit(prepare, item))
                if len(waiting) > depth:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
