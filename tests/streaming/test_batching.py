import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlens.errors import SampleError
from mmlens.streaming.batching import Batching, plan_batches, prefetched

some_lengths = st.lists(st.integers(0, 50), max_size=60)


@given(some_lengths, st.integers(1, 200), st.integers(1, 10))
def test_a_plan(lengths, budget, most):
    batches = plan_batches(lengths, budget, most)
    # Every position once.
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= most
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    # Longest first, and equal lengths in order.
    order = [i for batch in batches for i in batch]
    keys = [(-lengths[i], i) for i in order]
    assert keys == sorted(keys)
    # A batch is closed only where the next sample does not fit.
    for batch, following in zip(batches, batches[1:], strict=False):
        longest = lengths[batch[0]]
        assert len(batch) == most or (len(batch) + 1) * longest > budget
        assert lengths[following[0]] <= longest
    assert batches == plan_batches(list(lengths), budget, most)


def test_by_hand():
    assert plan_batches([5, 9, 4, 5], token_budget=10) == [[1], [0, 3], [2]]
    assert plan_batches([3] * 5, token_budget=100, max_batch=2) == [[0, 1], [2, 3], [4]]
    assert plan_batches([500, 1, 1], token_budget=10) == [[0], [1, 2]]
    assert plan_batches([2] * 5, token_budget=4, max_batch=64) == [[0, 1], [2, 3], [4]]
    assert plan_batches([], token_budget=1) == []
    assert len(plan_batches([1] * 65, token_budget=10_000)[0]) == 64  # the default


@pytest.mark.parametrize(("budget", "most"), [(0, 1), (-5, 1), (1, 0), (1, -1)])
def test_a_budget_below_one(budget, most):
    with pytest.raises(SampleError, match=f"at least 1; {budget} and {most} given"):
        plan_batches([1], budget, most)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"token_budget": 0}, "token_budget and max_batch"),
        ({"max_batch": 0}, "token_budget and max_batch"),
        ({"max_failures": 1.5}, "from 0 to 1"),
    ],
)
def test_options_of_a_pass_that_cannot_be(options, match):
    with pytest.raises(SampleError, match=match):
        Batching(**options)


@given(st.lists(st.integers(), max_size=20), st.integers(0, 5))
def test_prefetched_keeps_the_order(items, depth):
    assert list(prefetched(items, lambda x: (x, x * 2), depth)) == [(x, x * 2) for x in items]


def test_one_thread_prepares_one_item_at_a_time():
    threads, running, most = set(), 0, 0

    def prepare(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        threads.add(threading.get_ident())
        running -= 1
        return item

    assert list(prefetched(range(50), prepare, depth=4)) == list(range(50))
    assert most == 1
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_the_next_item_is_prepared_before_it_is_asked_for():
    begun = [threading.Event() for _ in range(4)]

    def prepare(item):
        begun[item].set()
        return item

    results = prefetched(range(4), prepare, depth=1)
    assert next(results) == 0
    assert begun[1].wait(timeout=30)  # without anybody asking for it
    assert not begun[3].is_set()  # but no further than the depth
    assert list(results) == [1, 2, 3]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_error_comes_at_its_own_place(depth):
    def prepare(item):
        if item == 3:
            raise SampleError("the third")
        return item

    got = []
    with pytest.raises(SampleError, match="the third"):
        for value in prefetched(range(10), prepare, depth):
            got.append(value)
    assert got == [0, 1, 2]


def test_an_error_of_the_items_comes_through():
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(prefetched(items(), lambda x: x))


def test_leaving_early_prepares_no_more():
    prepared = []

    def prepare(item):
        prepared.append(item)
        return item

    results = prefetched(range(1000), prepare, depth=2)
    assert next(results) == 0
    results.close()
    before = len(prepared)
    assert before <= 4
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]
