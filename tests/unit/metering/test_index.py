from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netobs.flow.key_hash import Hashes
from netobs.metering.index import DELETED, EMPTY, FIRST_ROW, HashIndex
from netobs.metering.store import MIN_CAPACITY, FlowStore
from tests.unit.metering.flows import many, number


def make_hashes(count: int, spread: int) -> Hashes:
    """Hashes of the reserved rows, then ``count`` others that are ``spread`` apart: the greater, the more collide."""
    return np.concatenate(
        (np.array([EMPTY, DELETED], np.uint64), (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(spread))
    )


def test_rows_are_found_however_many_share_a_slot() -> None:
    for spread in (2, 1 << 10, 1 << 40):
        hashes = make_hashes(600, spread)
        index = HashIndex()
        index.resize(len(hashes))
        for end in (2, 3, 100, 101, 602):
            begin = {2: 2, 3: 2, 100: 3, 101: 100, 602: 101}[end]
            index.insert(begin, hashes[:end])
        assert index.find(hashes[2:], hashes).tolist() == list(range(FIRST_ROW, 602))
        assert not index.find(hashes[2:] + np.uint64(1), hashes).any()


def test_removed_rows_are_gone_and_those_behind_them_stay() -> None:
    hashes = make_hashes(300, 1 << 20)
    index = HashIndex()
    index.resize(len(hashes))
    index.insert(FIRST_ROW, hashes)
    index.remove(np.arange(2, 302, 2))
    expected = [0 if row % 2 == 0 else row for row in range(2, 302)]
    assert np.where(index.find(hashes[2:], hashes) == 0, 0, hashes[2:] // np.uint64(1 << 20) + 1).tolist() == expected


@settings(deadline=None)  # other work on the machine must not fail the test
@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 2**32)), max_size=8))
def test_store_keeps_what_was_not_removed(steps: list[tuple[int, int]]) -> None:
    """Random growth and removal; the hash of flow i is i + 2, so that the store can be checked by itself."""
    store, expected, next_flow = FlowStore(), set(), 0
    for count, seed in steps:
        added = many(count, first=next_flow)
        numbers = np.array([number(row) for row in added], np.uint64)
        store.append(added, np.arange(count), numbers + np.uint64(2), numbers)
        expected |= set(numbers.tolist())
        next_flow += count
        leaving = np.flatnonzero(np.random.default_rng(seed).random(len(store)) < (seed % 5) / 4) + FIRST_ROW
        expected -= {number(row) for row in store.read(leaving)}
        store.remove(leaving)
        store.shrink()
        everything = np.arange(next_flow, dtype=np.uint64)
        found = store.find(everything + np.uint64(2))
        assert set(np.flatnonzero(found).tolist()) == expected
        assert [number(row) for row in store.read(found[found > 0])] == sorted(expected)
        assert len(store) == len(expected)
        assert len(store.due(next_flow // 2)) == sum(flow_number <= next_flow // 2 for flow_number in expected)


def test_memory_follows_the_flows() -> None:
    store = FlowStore()
    empty_size = store.nbytes
    assert empty_size < 1 << 20
    store.append(
        many(100_000), np.arange(100_000), np.arange(2, 100_002, dtype=np.uint64), np.zeros(100_000, np.uint64)
    )
    assert 100_000 * 104 < store.nbytes < 2 * 131_072 * 104
    store.remove(np.arange(FIRST_ROW, 100_000))
    store.shrink()
    assert store.nbytes == empty_size
    assert len(store) == FIRST_ROW
    assert empty_size > MIN_CAPACITY * 104
