"""Limits the log lines that others can cause."""

from __future__ import annotations

from collections import OrderedDict

from netobs.base.clock import NS_PER_S

REPEAT_NS = 60 * NS_PER_S
"""How long a line is not repeated."""
MAX_REMEMBERED = 64
"""So many different things are said in that time, then no more: a scan from everywhere fills no log."""


class LogThrottle:
    """Lets new lines pass, and not those that were logged a moment ago. Bounded in memory and in lines."""

    def __init__(self, repeat_ns: int = REPEAT_NS, remembered: int = MAX_REMEMBERED) -> None:
        self.withheld = 0
        """Number of suppressed lines."""
        self._repeat_ns = repeat_ns
        self._remembered = remembered
        self._said: OrderedDict[object, int] = OrderedDict()  # what and when, oldest first

    def __len__(self) -> int:
        return len(self._said)

    def may_say(self, what: object, now_ns: int) -> bool:
        """Whether to log ``what`` now; it then counts as logged."""
        while self._said and next(iter(self._said.values())) <= now_ns - self._repeat_ns:
            self._said.popitem(last=False)
        if what in self._said or len(self._said) >= self._remembered:
            self.withheld += 1
            return False
        self._said[what] = now_ns
        return True
