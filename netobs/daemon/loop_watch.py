"""Warns the operator about long silences of the event loop, in which evictions, exports and signals wait."""

from __future__ import annotations

import logging

from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Silence

log = logging.getLogger("netobs")

AGAIN_NS = 60 * NS_PER_S
"""After a warning, further silences are only counted for this time; the next warning has their number."""


class LoopWatch:
    """Listens to ``loop`` from now on."""

    def __init__(self, loop: EventLoop) -> None:
        self._quiet_until_ns = 0
        self._untold = 0
        self.silences = 0
        """All that were long."""
        loop.on_silence = self.tell

    def tell(self, silence: Silence, now_ns: int) -> None:
        """Logs a long silence, or counts it."""
        self.silences += 1
        if now_ns < self._quiet_until_ns:
            self._untold += 1
            return
        others = f", and {self._untold} times more than a second since the last warning" if self._untold else ""
        log.warning("the loop was silent for %s%s: evictions and exports waited; give netobs more CPU, or see "
                    "netobs(8)", silence, others)  # fmt: skip
        self._quiet_until_ns, self._untold = now_ns + AGAIN_NS, 0
