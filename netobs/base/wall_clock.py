"""Notices that the wall clock was set, and keeps the start of sysUptime, which does not depend on it."""

from __future__ import annotations

import logging

from netobs.base.clock import NS_PER_S, ClockPair

log = logging.getLogger("netobs")

STEP_NS = NS_PER_S
"""Longer steps are logged; NTP corrects small differences with a slower or faster clock."""


class WallClock:
    """CLOCK_REALTIME relative to CLOCK_MONOTONIC, as reported to ``see``."""

    def __init__(self, pair: ClockPair) -> None:
        self.boot_ns = pair.monotonic_ns - pair.realtime_ns % NS_PER_S
        """CLOCK_MONOTONIC at the start of the exporter: a whole second of the wall clock, so that milliseconds fit."""
        self._offset_ns = pair.realtime_ns - pair.monotonic_ns
        self.steps = 0
        """How often a step was logged."""

    def see(self, pair: ClockPair) -> None:
        """Reads the present clocks, and logs a step."""
        offset_ns = pair.realtime_ns - pair.monotonic_ns
        step_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        if abs(step_ns) > STEP_NS:
            self.steps += 1
            log.warning("the wall clock was set %s by %.3f s: Export Time follows it; flows that wait keep their times",
                        "forward" if step_ns > 0 else "back", abs(step_ns) / NS_PER_S)  # fmt: skip
