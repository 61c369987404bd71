"""A wall clock that is set is said once; one that NTP corrects, or that was read a little late, is not."""

from __future__ import annotations

import pytest

from netobs.base.clock import ClockPair
from netobs.base.wall_clock import WallClock

S = 1_000_000_000


def test_a_step_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    wall = 1_700_000_000 * S + 250_000_000
    clock = WallClock(ClockPair(100 * S, wall))
    for seconds, step in ((5, 0), (10, S), (15, 3600 * S), (20, 3600 * S), (25, -86_400 * S)):
        clock.see(ClockPair((100 + seconds) * S, wall + seconds * S + step))
    assert [line.split(":")[0] for line in caplog.messages] == [
        "the wall clock was set forward by 3599.000 s",
        "the wall clock was set back by 90000.000 s",
    ]


def test_sysuptime_begins_at_a_whole_second() -> None:
    assert WallClock(ClockPair(100 * S, 1_700_000_000 * S + 250_000_000)).boot_ns == 99_750_000_000
