"""The coarse clock of the programs: jiffies, and what they are in terms of CLOCK_MONOTONIC.

A program reads jiffies in 1 ns, the precise clock in 30. As a rule jiffies advance in step with CLOCK_MONOTONIC
(kernel/time/tick-sched.c: tick_do_update_jiffies64), and one offset holds for good. Without high resolution timers
(highres=off) each timer interrupt is a jiffy, and the two drift apart (kernel/time/tick-common.c: tick_periodic).
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Callable

from netobs.base import clock

log = logging.getLogger("netobs.capture")

SAMPLES = 8
EVICTIONS = 4
"""Readings of so many evictions in a row tell that the clock has gone ahead: one may be late by itself."""


class CoarseClock:
    """CLOCK_MONOTONIC at jiffy 0: ``start`` finds it, ``follow`` keeps it true.

    ``read`` gives (jiffies, ns of CLOCK_MONOTONIC) of one moment. Within a tick the difference between the two grows
    from the offset to a tick more.
    """

    def __init__(self, read: Callable[[], tuple[int, int]], tick_ns: int) -> None:
        self._read, self._tick_ns = read, tick_ns
        self._recent: deque[int] = deque(maxlen=EVICTIONS)
        self._first_ns = self.offset_ns = 0
        self._has_said = False

    def _difference(self) -> int:
        jiffies, now_ns = self._read()
        return now_ns - jiffies * self._tick_ns

    def _set(self, least_ns: int) -> None:
        """``least_ns``: the offset and at most a quarter of a tick. That is taken off, so that a coarse time is never
        ahead of the clock."""
        self.offset_ns = least_ns - self._tick_ns // 4

    def start(self) -> None:
        """Takes several samples, spread over more than a tick, and sleeps in between."""
        differences = []
        for _ in range(SAMPLES):
            differences.append(self._difference())
            clock.sleep_ns(self._tick_ns * 12 // (10 * SAMPLES))
        self._set(min(differences))
        self._first_ns = self.offset_ns

    def follow(self) -> bool:
        """Reads the clocks once. Whether ``offset_ns`` is another one now: because a coarse time would be ahead of the
        clock, or was more than a tick behind at each of the last ``EVICTIONS`` readings."""
        difference = self._difference()
        self._recent.append(difference)
        least_ns = min(self._recent)
        is_behind = len(self._recent) == EVICTIONS and least_ns - self.offset_ns > self._tick_ns * 5 // 4
        if difference >= self.offset_ns and not is_behind:
            return False
        self._set(min(difference, least_ns))
        self._say()
        return True

    def _say(self) -> None:
        drift_ns = self.offset_ns - self._first_ns
        if abs(drift_ns) > self._tick_ns and not self._has_said:
            self._has_said = True
            log.warning(
                "the kernel's ticks have drifted from its clock by %.1f ms: each eviction corrects the times of flows; "
                "capture.precise_time = true avoids the error",
                drift_ns / 1e6,
            )
