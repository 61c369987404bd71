"""Limits of a client: packets, bytes, bytes per second."""

from __future__ import annotations

from typing import NamedTuple

from netobs.base.clock import NS_PER_S
from netobs.base.vectors import Numbers


class Allowance(NamedTuple):
    """The first ``rows`` packets may go to the client; the next ``beyond_rate`` exceed the rate.

    ``end``: the reason why the stream ends after the last of ``rows``; empty if it continues.
    """

    rows: int
    beyond_rate: int
    end: str


class Limits:
    """0 means no limit. A record that starts within the rate passes, however long; its excess is paid back later."""

    def __init__(self, count: int, max_bytes: int, max_rate_bytes: int, now_ns: int) -> None:
        self._count_left = count
        self._counts = count > 0
        self._bytes_left = max_bytes
        self._has_bytes = max_bytes > 0
        self._rate = max_rate_bytes
        self._tokens = float(max_rate_bytes)  # a second's worth at most
        self._filled_ns = now_ns

    def allow(self, ends: Numbers, reserve_bytes: int, now_ns: int) -> Allowance:
        """Number of records (which end at ``ends``) that may go. ``reserve_bytes`` are kept for the stream's end."""
        total = rows = len(ends)
        beyond_rate = 0
        if self._rate:
            tokens = self.tokens(now_ns)
            rows = min(rows, 1 + int(ends.searchsorted(tokens))) if tokens > 0 else 0
            beyond_rate = total - rows
        end = ""
        if self._counts and rows >= self._count_left:
            rows, beyond_rate, end = self._count_left, 0, "count"
        if self._has_bytes:
            room = self._bytes_left - reserve_bytes
            fitting = int(ends.searchsorted(room, side="right"))
            if fitting < rows:
                rows, beyond_rate, end = fitting, 0, "max_bytes"
        return Allowance(rows, beyond_rate, end)

    def has_room(self, size: int) -> bool:
        """Whether this much more may go into the stream."""
        return not self._has_bytes or size <= self._bytes_left

    def spend(self, size: int, packets: int = 0) -> None:
        """Counts bytes that went into the stream."""
        self._tokens -= size
        self._bytes_left -= size
        self._count_left -= packets

    def tokens(self, now_ns: int) -> float:
        """Bytes that the rate allows now; not positive: none. 1 without a rate."""
        if not self._rate:
            return 1
        gained = self._rate * (now_ns - self._filled_ns) / NS_PER_S
        self._tokens = min(float(self._rate), self._tokens + gained)
        self._filled_ns = now_ns
        return self._tokens
