"""Estimates which Messages over UDP were refused: an ICMP error does not tell how many it stands for."""

from __future__ import annotations

from collections import deque

from netobs.export.stats import ExportStats
from netobs.flow.tally import Tally

ANSWER_NS = 250_000_000
"""An ICMP error returns within a round trip, which takes less than this between any two places on Earth."""


class Refusals:
    """Counts refused Messages in ``stats``, under ``refused``.

    The rule: the first error stands for everything that was sent in the last ``ANSWER_NS``. From then on the collector
    is known to refuse, and each further error stands for everything since the previous error: hosts limit the rate of
    ICMP errors (on Linux, except for loopback: net.ipv4.icmp_ratelimit), so one may stand for many Messages. The
    Messages since the last error arrived if no other error follows in time (``cleared``), else they were refused
    (``closed``).
    """

    def __init__(self, stats: ExportStats) -> None:
        self._stats = stats
        self._in_doubt: deque[tuple[int, Tally]] = deque()  # time of sending, and amount
        self._known = False  # whether the collector refuses

    def sent(self, tally: Tally, now_ns: int) -> None:
        """The kernel has accepted ``tally``."""
        if not tally.flows:
            return
        if self._known and self._in_doubt:
            _, waiting = self._in_doubt.pop()
            tally += waiting
        self._in_doubt.append((now_ns, tally))
        self._forget_old(now_ns)

    def answered(self, now_ns: int) -> None:
        """An ICMP error came back."""
        self._forget_old(now_ns)
        self._known = True
        self._stats.count_refused(sum((tally for _, tally in self._in_doubt), Tally()))
        self._in_doubt.clear()

    def cleared(self) -> None:
        """No error came back for long enough: the collector accepts Messages again."""
        self._known = False
        self._in_doubt.clear()

    def closed(self) -> None:
        """No error can come back any more. If the collector refuses, everything in doubt was refused."""
        if self._known:
            self.answered(0)
        self.cleared()

    def _forget_old(self, now_ns: int) -> None:
        while not self._known and self._in_doubt and now_ns - self._in_doubt[0][0] > ANSWER_NS:
            self._in_doubt.popleft()
