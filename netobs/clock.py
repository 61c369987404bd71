"""The only place that reads the time. Every stage gets ``now_ns`` or a ``ClockPair`` as an argument."""

from __future__ import annotations

import time

from netobs.records import ClockPair

NS_PER_S = 1_000_000_000


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC in ns, the clock of ``bpf_ktime_get_ns``."""
    return time.monotonic_ns()


def read_pair() -> ClockPair:
    """Both clocks as near to each other as can be: the best of three readings, bracketed by the monotonic clock."""
    best, pair = None, ClockPair(0, 0)
    for _ in range(3):
        before = time.monotonic_ns()
        realtime = time.time_ns()
        after = time.monotonic_ns()
        if best is None or after - before < best:
            best, pair = after - before, ClockPair((before + after) // 2, realtime)
    return pair
