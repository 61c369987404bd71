"""How much is taken of each ring."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netobs.pcap.tap.perf import LONGEST_RECORD_BYTES, shares

MIB = 1 << 20


def test_all_where_it_is_not_too_much() -> None:
    assert shares([800, 0, 2400], MIB) == [800, 0, 2400]
    assert shares([], MIB) == []


def test_equal_shares_of_the_rest() -> None:
    assert shares([4 * MIB, 0, 4 * MIB, MIB // 2], 2 * MIB) == [3 * MIB // 4, 0, 3 * MIB // 4, MIB // 2]


@given(st.lists(st.integers(0, 1 << 19).map(lambda words: words * 8), max_size=9), st.integers(0, 1 << 24))
def test_within_the_limit_but_for_a_record_of_each(available: list[int], max_bytes: int) -> None:
    counts = shares(available, max_bytes)
    assert all(count % 8 == 0 for count in counts)
    assert all(min(there, LONGEST_RECORD_BYTES) <= count <= there for there, count in zip(available, counts))
    assert sum(counts) <= max(max_bytes, 0) + len(counts) * LONGEST_RECORD_BYTES
    for there, count in zip(available, counts):  # nobody gets less than another, but who has no more
        assert count == there or count >= max(counts) - 8 * len(counts)
    if sum(available) <= max_bytes:
        assert counts == available
