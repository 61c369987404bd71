"""The wall-clock time of a captured packet follows a wall clock that is set, and readings of it do not shake it."""

from __future__ import annotations

import pytest

from netobs.base.clock import ClockPair
from netobs.base.loop import EventLoop
from netobs.config.selector import InterfaceSelector
from netobs.pcap.distribution import Distribution
from netobs.pcap.tap.tap import Tap

pytestmark = pytest.mark.kernel

MS = 1_000_000
WALL_NS = 1_700_000_000_000 * MS


def test_a_batch_has_the_present_wall_clock() -> None:
    """The clock is set forward by 3 ms, 10 ms after the first batch."""
    readings = [(0, 0), (10, 3 * MS), (11, 3 * MS + 400), (12, 3 * MS - 400), (13, -2 * MS)]
    pairs = iter(ClockPair(at_ms * MS, at_ms * MS + WALL_NS + set_ns) for at_ms, set_ns in readings)
    tap = Tap(InterfaceSelector(("none0",), ()), "both", 1 << 20)
    with EventLoop() as loop:
        distribution = Distribution(tap, loop, lambda: next(pairs))
        offsets = [distribution.context(at_ms * MS).offset_ns - WALL_NS for at_ms, _ in readings]
    tap.close()
    assert offsets == [0, 3 * MS, 3 * MS, 3 * MS, -2 * MS]
