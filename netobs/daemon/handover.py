"""From one generation of programs and maps to the next: after a start, and at a reload."""

from __future__ import annotations

import logging
from typing import Callable

from netobs.base import clock
from netobs.base.loop import EventLoop
from netobs.config import CaptureConfig
from netobs.daemon.evictions import Evictions
from netobs.datapath.capture import Capture
from netobs.datapath.datapath import Datapath
from netobs.flow.records import Records

log = logging.getLogger("netobs")

LOADED_WITH = ("sampling", "flow_table", "max_flows", "precise_time")
"""The keys of [capture] that another load of the programs puts into force."""
RETRY_NS = clock.NS_PER_S


class Handover:
    """``take_former`` after a start; ``load`` -> ``use`` or ``undo`` at a reload."""

    def __init__(
        self, capture: Capture, evictions: Evictions, meter: Callable[[Records], None], loop: EventLoop
    ) -> None:
        self._capture, self._evictions, self._meter, self._loop = capture, evictions, meter, loop
        self._next: Datapath | None = None
        self.swap_others: Callable[[], None] = lambda: None
        """Called when the capture has another datapath: for programs that are not on its own hooks."""

    def load(self, present: CaptureConfig, wanted: CaptureConfig) -> None:
        """Loads other programs and maps, unless those of ``present`` are what is ``wanted``. May be called in a thread:
        a large table takes seconds.

        :raises CaptureError: they cannot be loaded.
        """
        if any(getattr(present, name) != getattr(wanted, name) for name in LOADED_WITH):
            self._next = self._capture.load_beside(wanted)

    def undo(self) -> None:
        """What was loaded is not used."""
        if self._next is not None:
            self._next.close()
            self._next = None

    def use(self, now_ns: int) -> None:
        """What was loaded counts from now on."""
        if self._next is not None:
            self._capture.replace(self._next)
            self.swap_others()
            self._evictions.follow(self._next)
            self._next = None
            self.take_former(now_ns)

    def take_former(self, now_ns: int) -> None:
        """The programs on all hooks are the present ones: takes the last flows out of the maps of former ones."""
        try:
            for rows in self._capture.datapath.take_former(clock.monotonic_ns()):
                self._meter(rows)
        except OSError as error:
            log.error("the flows of the former programs stay in the kernel for now: %s", error.strerror)
            self._loop.call_at(now_ns + RETRY_NS, self.take_former)
