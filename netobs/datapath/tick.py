"""The coarse clock of the programs: jiffies, and what they are in terms of CLOCK_MONOTONIC.

A jiffy costs a program 1 ns to read, the precise clock 30 ns. Jiffies advance in step with CLOCK_MONOTONIC
(kernel/time/tick-sched.c: tick_do_update_jiffies64), so that one offset, found once, holds from then on.
"""

from __future__ import annotations

from typing import Callable

from netobs.base import clock

SAMPLES = 8


def offset_ns(read: Callable[[], tuple[int, int]], tick: int) -> int:
    """CLOCK_MONOTONIC at jiffy 0. ``read`` gives (jiffies, ns of CLOCK_MONOTONIC) of one moment.

    Within a tick the difference grows from the offset to a tick more, so the least of several samples, spread over
    more than a tick, is the offset and at most a sample's distance. That is taken off, so that a coarse time is never
    ahead of the clock.
    """
    differences = []
    for _ in range(SAMPLES):
        jiffies, now_ns = read()
        differences.append(now_ns - jiffies * tick)
        clock.sleep_ns(tick * 12 // (10 * SAMPLES))
    return min(differences) - tick // 4
