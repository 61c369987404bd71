"""The only place that reads the time. Every stage gets ``now_ns`` or a ``ClockPair`` as an argument."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

NS_PER_S = 1_000_000_000
_CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; Python has no name for it


_moved_ns = 0


class ClockPair(NamedTuple):
    """CLOCK_MONOTONIC and CLOCK_REALTIME (ns), read at the same moment: turns kernel times into wall-clock times."""

    monotonic_ns: int
    realtime_ns: int

    def to_realtime_ns(self, monotonic_ns: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Wall-clock times (ns since 1970, int64) of ``monotonic_ns``, never later than the pair itself."""
        wall = monotonic_ns.astype(np.int64) + (self.realtime_ns - self.monotonic_ns)
        return np.minimum(wall, self.realtime_ns, out=wall)


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC in ns. After ``move`` it equals the kernel's clock, ``bpf_ktime_get_ns``."""
    return time.monotonic_ns() + _moved_ns


def is_over_in(duration_ns: int) -> Callable[[], bool]:
    """Tells whether so much time has passed since now: for work that is done in slices."""
    end_ns = monotonic_ns() + duration_ns
    return lambda: monotonic_ns() >= end_ns


def move(offset_ns: int) -> None:
    """Sets ``monotonic_ns`` ahead by ``offset_ns`` from now on. Only for the start, because timers that already wait
    would become due at another time."""
    global _moved_ns  # noqa: PLW0603  there is one clock
    _moved_ns += offset_ns


def read_pair() -> ClockPair:
    """Both clocks as close together as possible: the best of three readings, bracketed by the monotonic clock."""
    best, pair = None, ClockPair(0, 0)
    for _ in range(3):
        before = monotonic_ns()
        realtime = time.time_ns()
        after = monotonic_ns()
        if best is None or after - before < best:
            best, pair = after - before, ClockPair((before + after) // 2, realtime)
    return pair


def tick_ns() -> int:
    """Length of a kernel tick: the resolution of CLOCK_MONOTONIC_COARSE (include/linux/hrtimer.h: KTIME_LOW_RES)."""
    return round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * NS_PER_S)


def sleep_ns(duration_ns: int) -> None:
    """Does nothing for a moment. Only for the start: the running daemon waits in its event loop."""
    time.sleep(duration_ns / NS_PER_S)
