"""Keeps the programs on the wanted interfaces: a slice of that work at a time, between the other work of the loop."""

from __future__ import annotations

from typing import Callable

from netobs.base import clock
from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Timer
from netobs.config import CaptureConfig
from netobs.config.selector import InterfaceSelector
from netobs.kernel import many
from netobs.kernel.observation_points import RESTORE_NS, SLICE_NS, ObservationPoints

PROGRESS_NS = NS_PER_S
"""How often the operator and the service manager hear of work that takes long."""


class Attaching:
    """``start`` -> follows the interfaces -> ``stop`` -> ``finish`` takes all programs off. Nothing of it keeps the
    loop much longer than ``SLICE_NS``."""

    def __init__(
        self, points: ObservationPoints, loop: EventLoop, told: Callable[[int], None], changed: Callable[[int], None]
    ) -> None:
        """``told`` is called every ``PROGRESS_NS`` while more is due, ``changed`` when nothing is due any more: the
        interfaces may be others."""
        self._points, self._loop = points, loop
        self._told, self._changed = told, changed
        self._again: Timer | None = None
        self._restoring: Timer | None = None
        self._then: list[Callable[[int], None]] = []
        self._rested_ns = 0  # until then, it is somebody else's turn
        self._done = 0
        self._told_ns = 0

    def start(self, now_ns: int) -> None:
        """Attaches to the interfaces that are there, the first ones now, and follows them from now on."""
        self._points.want_all()
        self._loop.add_reader(self._points.links.fileno(), self._on_links)
        self._restoring = self._loop.call_at(now_ns + RESTORE_NS, self._restore)
        self._told_ns = now_ns
        self._slice()

    @property
    def is_busy(self) -> bool:
        """Whether interfaces are due."""
        return self._points.due > 0

    def progress(self) -> str:
        """How far the present work is: ``attaching: 312 of 2,000 interfaces``."""
        what = "attaching" if self._points.wants_any else "detaching"
        return f"{what}: {self._done:,} of {self._done + self._points.due:,} interfaces"

    def select(self, selector: InterfaceSelector, config: CaptureConfig, now_ns: int) -> None:
        """Switches to other interfaces, and to the directions, method and place that ``config`` has."""
        self._points.select(selector, config.direction)
        self._points.move_to(config.attach, config.anchor == "last")
        self._work(now_ns)

    def when_done(self, then: Callable[[int], None], now_ns: int) -> None:
        """Calls ``then`` as soon as nothing is due."""
        if self.is_busy:
            self._then.append(then)
        else:
            then(now_ns)

    def stop(self) -> None:
        """Follows no interface any more. The programs stay where they are."""
        self._loop.remove(self._points.links.fileno())
        for timer in (self._again, self._restoring):
            if timer is not None:
                timer.cancel()
        self._again = self._restoring = None
        self._then.clear()

    def finish(self, then: Callable[[int], None], now_ns: int) -> None:
        """After ``stop``: takes the programs off all interfaces, then calls ``then``."""
        self._points.want_none()
        self._done, self._told_ns = 0, now_ns
        self.when_done(then, now_ns)
        self._work(now_ns)

    def _on_links(self, now_ns: int) -> None:
        self._points.follow_links()
        self._work(now_ns)

    def _restore(self, now_ns: int) -> None:
        self._restoring = self._loop.call_at(now_ns + RESTORE_NS, self._restore)
        self._points.restore()
        self._work(now_ns)

    def _work(self, now_ns: int) -> None:
        """Begins with what is due as soon as the last slice is long enough ago, unless it goes on anyway."""
        if self._again is None:
            self._told_ns = now_ns
            if now_ns >= self._rested_ns:
                self._go_on(now_ns)
            else:
                self._again = self._loop.call_at(self._rested_ns, self._go_on)

    def _go_on(self, now_ns: int) -> None:
        self._slice()
        if not self.is_busy:
            self._loop.call_at(now_ns, self._changed)
            then, self._then = self._then, []
            for call in then:
                call(now_ns)
        elif now_ns - self._told_ns >= PROGRESS_NS:
            self._told_ns = now_ns
            self._told(now_ns)

    def _slice(self) -> None:
        before, began_ns = self._points.due, clock.monotonic_ns()
        is_busy = self._points.work(clock.is_over_in(SLICE_NS))
        self._done = self._done + before - self._points.due if is_busy else 0
        self._rested_ns = many.rested_ns(began_ns) if self._points.wants_any else began_ns  # a stop does not pause
        self._again = self._loop.call_at(self._rested_ns, self._go_on) if is_busy else None
