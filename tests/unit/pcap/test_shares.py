"""How much is taken of each ring."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netobs.pcap.tap.rings import shares

MIB = 1 << 20


def test_all_where_it_is_not_too_much() -> None:
    assert shares([800, 0, 2400], MIB) == [800, 0, 2400]
    assert shares([], MIB) == []


def test_equal_shares_of_the_rest() -> None:
    assert shares([4 * MIB, 0, 4 * MIB, MIB // 2], 2 * MIB) == [3 * MIB // 4, 0, 3 * MIB // 4, MIB // 2]


@given(st.lists(st.integers(0, 1 << 22), max_size=9), st.integers(0, 1 << 24))
def test_within_the_limit_but_for_a_byte_of_each(available: list[int], max_bytes: int) -> None:
    """A byte stands for the record that it belongs to."""
    counts = shares(available, max_bytes)
    assert all(min(there, 1) <= count <= there for there, count in zip(available, counts))
    assert sum(counts) <= max(max_bytes, 0) + len(counts)
    for there, count in zip(available, counts):  # nobody gets less than another, but who has no more
        assert count == there or count >= max(counts) - len(counts)
    if sum(available) <= max_bytes:
        assert counts == available
