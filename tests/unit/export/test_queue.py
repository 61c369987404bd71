"""The bounded queue of Data Sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netobs.export.queue import DataSetQueue, Part, row_bytes, tally_of
from netobs.flow.tally import Tally
from tests.unit.export.support import ROW, Rows, rows

BYTES = ROW.itemsize + 16


def test_parts_come_out_in_order_and_can_be_put_back() -> None:
    queue: DataSetQueue[Rows] = DataSetQueue()
    queue.append(Part(rows(0, 10), 0))
    queue.append(Part(rows(10, 5), 0))
    assert queue.bytes == 15 * BYTES
    part = queue.take(4 * BYTES + 1)
    assert part.data_set.rows["number"].tolist() == [0, 1, 2, 3]
    queue.put_back(part.slice(3, 4))
    assert queue.take(1).data_set.rows["number"].tolist() == [3]
    assert len(queue.take(1 << 30)) == 6
    assert len(queue.take(1 << 30)) == 5
    assert not queue
    assert queue.bytes == 0
    with pytest.raises(IndexError):
        queue.take(1)


def test_empty_data_sets_take_no_place() -> None:
    queue: DataSetQueue[Rows] = DataSetQueue()
    queue.append(Part(rows(0, 0), 0))
    queue.put_back(Part(rows(0, 0), 0))
    assert not queue


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(-10, 60 * BYTES))
def test_trim_drops_just_enough_of_the_oldest(sizes: list[int], limit: int) -> None:
    queue: DataSetQueue[Rows] = DataSetQueue()
    start, everything = 0, Tally()
    for size in sizes:
        queue.append(Part(rows(start, size), 0))
        everything += Tally.of(rows(start, size))
        start += size
    dropped = tally_of(queue.trim(limit))
    keep = min(start, max(0, limit) // BYTES)
    assert dropped == Tally.of(rows(0, start - keep))
    left, numbers = Tally(), []
    while queue:
        part = queue.take(7 * BYTES)
        assert row_bytes(part.data_set) == BYTES
        left += Tally.of(part.data_set)
        numbers += part.data_set.rows["number"].tolist()
    assert numbers == list(range(start - keep, start))
    assert dropped + left == everything


def test_what_waits_too_long_is_dropped_and_what_was_put_back_keeps_its_age() -> None:
    queue: DataSetQueue[Rows] = DataSetQueue()
    queue.append(Part(rows(0, 10), 100))
    queue.append(Part(rows(10, 5), 200))
    part = queue.take(4 * BYTES)
    queue.put_back(part.slice(1, 4))
    assert queue.expire(100) == []
    assert tally_of(queue.expire(101)) == Tally.of(rows(1, 9))
    assert (queue.oldest_ns, queue.bytes) == (200, 5 * BYTES)
    assert tally_of(queue.expire(1000)) == Tally.of(rows(10, 5))
    assert (bool(queue), queue.bytes) == (False, 0)


def test_what_another_queue_gave_away_is_merged_by_age() -> None:
    first: DataSetQueue[Rows] = DataSetQueue()
    second: DataSetQueue[Rows] = DataSetQueue()
    for start, at in ((0, 100), (20, 300)):
        first.append(Part(rows(start, 10), at))
        second.append(Part(rows(start + 10, 10), at + 100))
    second.merge(first.give_away())
    assert (bool(first), first.bytes, second.bytes) == (False, 0, 40 * BYTES)
    numbers = [number for part in second.give_away() for number in part.data_set.rows["number"].tolist()]
    assert numbers == list(range(40))
