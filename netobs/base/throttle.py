"""A bound on what others can make the log say."""

from __future__ import annotations

from collections import OrderedDict

from netobs.base.clock import NS_PER_S

REPEAT_NS = 60 * NS_PER_S
"""How long the same is not said again."""
MAX_REMEMBERED = 64
"""So many different things are said in that time, then no more: a scan from everywhere fills no log."""


class LogThrottle:
    """Says what is new, and not what was said a moment ago. Bounded in memory and in what is said."""

    def __init__(self, repeat_ns: int = REPEAT_NS, remembered: int = MAX_REMEMBERED) -> None:
        self.withheld = 0
        """So many times the answer was no."""
        self._repeat_ns = repeat_ns
        self._remembered = remembered
        self._said: OrderedDict[object, int] = OrderedDict()  # what and when, oldest first

    def __len__(self) -> int:
        return len(self._said)

    def may_say(self, what: object, now_ns: int) -> bool:
        """Whether ``what`` is to be said now; it then counts as said."""
        while self._said and next(iter(self._said.values())) <= now_ns - self._repeat_ns:
            self._said.popitem(last=False)
        if what in self._said or len(self._said) >= self._remembered:
            self.withheld += 1
            return False
        self._said[what] = now_ns
        return True
