"""How samples are made into batches: the options of every pass, and which samples run together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

from mmlens.errors import SampleError

T = TypeVar("T")
R = TypeVar("R")

Template = Literal["auto", "chat", "plain", "none"]


@dataclass(frozen=True)
class Batching:
    """How samples become prompts and batches; the same for every pass over samples.

    Attributes:
        template: prompt form, as in :meth:`mmlens.HookedMLLM.prepare`.
        token_budget: prompt tokens per batch at most, padding included.
        max_batch: samples per batch at most.
        max_failures: share of samples that may be left out for unreadable media.
        progress: show a progress bar.

    Raises:
        SampleError: a budget or batch size below one, or a share of failures outside [0, 1].
    """

    template: Template = "auto"
    token_budget: int = 4096
    max_batch: int = 64
    max_failures: float = 0.05
    progress: bool = True

    def __post_init__(self) -> None:
        _check_sizes(self.token_budget, self.max_batch)
        if not 0 <= self.max_failures <= 1:
            raise SampleError(
                f"max_failures is a share of the samples, from 0 to 1; {self.max_failures} given."
            )


def _check_sizes(token_budget: int, max_batch: int) -> None:
    if token_budget < 1 or max_batch < 1:
        raise SampleError(
            f"token_budget and max_batch must be at least 1; {token_budget} and {max_batch} given."
        )


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
    _check_sizes(token_budget, max_batch)
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
