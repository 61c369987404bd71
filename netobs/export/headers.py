"""The headers of one collector's Messages: Sequence Number, and Export Time, which follows the clocks."""

from __future__ import annotations

from typing import Callable, Generic

from netobs.base.clock import NS_PER_S, ClockPair
from netobs.export.protocol import H


class Headers(Generic[H]):
    """``last`` is the most recent header. ``new_header`` makes one for the encoder, see TransportSession."""

    def __init__(self, new_header: Callable[[int, int, int, int], H], observation_domain: int) -> None:
        self._new_header = new_header
        self._domain = observation_domain
        self._clock = ClockPair(0, 0)
        self.last = new_header(0, 0, observation_domain, 0)

    def begin(self, sequence: int = 0) -> None:
        """A Transport Session starts: its first Sequence Number is 0 (RFC 7011, section 3.1), or ``sequence`` where it
        goes on from a former process."""
        self.last = self._new_header(self.last.export_time_s, sequence, self._domain, 0)

    def see_clock(self, clock: ClockPair) -> None:
        """Sets the present clocks: somebody may have set the wall clock."""
        self._clock = clock

    def realtime_ns(self, now_ns: int) -> int:
        """The wall clock at ``now_ns`` (CLOCK_MONOTONIC)."""
        return self._clock.realtime_ns + now_ns - self._clock.monotonic_ns

    def next(self, now_ns: int) -> bool:
        """Makes ``last`` a header with the present time. Returns whether its Export Time went back.

        Export Time follows the wall clock, in whichever direction somebody sets it. A step back of one second is
        ignored, because two readings of the clocks are never of the same instant.
        """
        realtime_ns = self.realtime_ns(now_ns)
        before_s, export_time_s = self.last.export_time_s, realtime_ns // NS_PER_S
        if before_s == export_time_s + 1:
            export_time_s = before_s
        self.last = self._new_header(export_time_s, self.last.sequence, self._domain, realtime_ns - now_ns)
        return export_time_s < before_s
