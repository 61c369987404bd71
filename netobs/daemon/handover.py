"""From one generation of programs and maps to the next: after a start, and at a reload."""

from __future__ import annotations

import logging
from typing import Callable

from netobs.base import clock
from netobs.base.loop import EventLoop
from netobs.config import CaptureConfig
from netobs.daemon.evictions import Evictions
from netobs.datapath.capture import Capture
from netobs.datapath.datapath import CLOCK_PROGRAM, Datapath
from netobs.datapath.turns import Turns
from netobs.flow.records import Records
from netobs.kernel import methods

log = logging.getLogger("netobs")

LOADED_WITH = ("sampling", "flow_table", "max_flows", "precise_time")
"""The keys of [capture] that another load of the programs puts into force."""
MOVED_BY = ("attach", "anchor")
"""Those that put the programs in another place on their hooks."""
RETRY_NS = clock.NS_PER_S


class Handover:
    """``take_former`` after a start; ``load`` -> ``use`` or ``undo`` at a reload."""

    def __init__(
        self, capture: Capture, evictions: Evictions, meter: Callable[[Records], None], loop: EventLoop
    ) -> None:
        self._capture, self._evictions, self._meter, self._loop = capture, evictions, meter, loop
        self._next: Datapath | None = None
        self._turns: Turns | None = None
        self.swap_others: Callable[[Callable[[int], None], int], None] = lambda then, now_ns: then(now_ns)
        """Called when the capture has another datapath, for programs that are not on its own hooks. It calls its
        argument when these are swapped."""

    def load(self, present: CaptureConfig, wanted: CaptureConfig) -> None:
        """Loads other programs and maps, unless those of ``present`` are what is ``wanted``, and programs for a move to
        another place on the hooks. May be called in a thread: a large table takes seconds.

        :raises CaptureError: they cannot be loaded, or not be attached as ``wanted``.
        """
        if any(getattr(present, name) != getattr(wanted, name) for name in LOADED_WITH):
            self._next = self._capture.load_beside(wanted)
        if any(getattr(present, name) != getattr(wanted, name) for name in MOVED_BY):
            datapath = self._next or self._capture.datapath
            methods.possible(wanted.attach, datapath.program_fd(CLOCK_PROGRAM))
            self._turns = Turns(datapath)
            self._turns.load()

    def undo(self) -> None:
        """What was loaded is not used."""
        if self._turns is not None:
            self._turns.close()
            self._turns = None
        if self._next is not None:
            self._next.close()
            self._next = None

    def use(self, now_ns: int) -> None:
        """What was loaded counts from now on."""
        if self._next is not None:
            self._capture.replace(self._next)
            self._evictions.follow(self._next)
            self._next = None
            self.swap_others(self.take_former, now_ns)
        if self._turns is not None:
            self._capture.points.placing.use_turns(self._turns)
            self._turns = None

    def take_former(self, now_ns: int) -> None:
        """The programs on all hooks are the present ones: takes the last flows out of the maps of former ones."""
        try:
            for rows in self._capture.datapath.take_former(clock.monotonic_ns()):
                self._meter(rows)
        except OSError as error:
            log.error("the flows of the former programs stay in the kernel for now: %s", error.strerror)
            self._loop.call_at(now_ns + RETRY_NS, self.take_former)
