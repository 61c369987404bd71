"""Packets, bytes, and bytes in a second."""

from __future__ import annotations

import numpy as np

from lab.packets import SECOND
from netobs.pcap.limits import Allowance, Limits

ENDS = np.arange(100, 1100, 100)  # ten records of 100 bytes


def test_no_limit() -> None:
    limits = Limits(0, 0, 0, now_ns=0)
    for _ in range(3):
        assert limits.allow(ENDS, 112, 0) == Allowance(10, 0, "")
        limits.spend(1000, 10)
    assert limits.tokens(0) > 0
    assert limits.has_room(1 << 40)


def test_count() -> None:
    limits = Limits(12, 0, 0, now_ns=0)
    assert limits.allow(ENDS, 0, 0) == Allowance(10, 0, "")
    limits.spend(1000, 10)
    assert limits.allow(ENDS, 0, 0) == Allowance(2, 0, "count")
    assert limits.allow(ENDS[:2], 0, 0) == Allowance(2, 0, "count")
    assert limits.allow(ENDS[:1], 0, 0) == Allowance(1, 0, "")


def test_bytes_end_at_a_record_and_leave_room_for_the_end() -> None:
    limits = Limits(0, 1000, 0, now_ns=0)
    assert limits.allow(ENDS, 0, 0) == Allowance(10, 0, "")
    assert limits.allow(ENDS, 1, 0) == Allowance(9, 0, "max_bytes")
    limits.spend(24)  # the header
    assert limits.allow(ENDS, 112, 0) == Allowance(8, 0, "max_bytes")
    limits.spend(900, 9)
    assert limits.has_room(76)
    assert not limits.has_room(77)
    assert limits.allow(ENDS, 0, 0) == Allowance(0, 0, "max_bytes")


def test_rate_drops_what_begins_beyond_it() -> None:
    limits = Limits(0, 0, 450, now_ns=0)
    assert limits.allow(ENDS, 0, 0) == Allowance(5, 5, "")  # the fifth begins at 400
    limits.spend(500, 5)
    assert limits.allow(ENDS, 0, SECOND // 10) == Allowance(0, 10, "")  # 45 of the 50 that are owed
    assert limits.allow(ENDS, 0, SECOND // 5) == Allowance(1, 9, "")
    limits.spend(100, 1)
    assert limits.allow(ENDS, 0, 100 * SECOND) == Allowance(5, 5, "")  # a second's worth at most


def test_a_record_longer_than_the_rate_passes_now_and_then() -> None:
    limits = Limits(0, 0, 1000, now_ns=0)
    long = np.array([5000])
    assert limits.allow(long, 0, 0) == Allowance(1, 0, "")
    limits.spend(5000, 1)
    assert limits.allow(long, 0, 4 * SECOND) == Allowance(0, 1, "")
    assert limits.allow(long, 0, 4 * SECOND + 1) == Allowance(1, 0, "")


def test_what_comes_after_the_last_packet_was_not_dropped() -> None:
    limits = Limits(3, 0, 450, now_ns=0)
    assert limits.allow(ENDS, 0, 0) == Allowance(3, 0, "count")
