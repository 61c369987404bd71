"""What the loop does not know: the order on the hooks, the content of the configuration file, the counts of packet
capture. It is asked for when somebody wants to know. Threads and other processes find it out; the loop does not wait.

For the order on a hook the kernel takes the lock of all interfaces. After it was looked at, the answer is good for ten
times as long as that took, and for ``FRESH_NS`` at least.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from netobs.base import background, clock
from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import Timer
from netobs.config import Config, loader
from netobs.kernel import hook_order, libbpf
from netobs.kernel.hook_order import Place
from netobs.kernel.object import PROGRAMS

if TYPE_CHECKING:
    from netobs.daemon.daemon import Daemon

FRESH_NS = 2 * NS_PER_S
RESTS = 10
PATIENCE_NS = NS_PER_S
"""Whoever wants to know waits this long, and then gets what is known: the kernel's lock, or a disk, may hang."""


Places = dict[tuple[int, str], Optional[Place]]


class Found(NamedTuple):
    """``places``: by interface index and direction, in the host's namespace. ``is_newer``: whether the configuration
    file has another content than what runs; None where it cannot be read."""

    places: Places
    is_newer: bool | None


class Survey:
    """``found`` is the last result; ``then`` of ``refresh`` is called with a new one, or after ``PATIENCE_NS``."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.found = Found({}, None)
        self._fresh_until_ns = 0  # the places
        self._is_looking = self._is_asking = False  # the thread, and the process of packet capture
        self._waiting: list[Callable[[int], None]] = []
        self._patience: Timer | None = None

    def refresh(self, then: Callable[[int], None], now_ns: int) -> None:
        """Calls ``then`` soon."""
        self._waiting.append(then)
        if not self._is_looking:
            self._is_looking = True
            question = self._question(now_ns < self._fresh_until_ns)
            background.run(self._daemon.loop, "survey", question, self._on_found)
        if not self._is_asking:
            self._is_asking = self._daemon.packets.ask_state(self._on_packets)
        if self._patience is None:
            self._patience = self._daemon.loop.call_at(now_ns + PATIENCE_NS, self._tell)

    def _question(self, places_are_fresh: bool) -> Callable[[], tuple[Found, int]]:
        """What the thread does. Its result has how long the places took, 0: they are not new."""
        config, known = self._daemon.config, self.found.places
        look = None if places_are_fresh else self._look()

        def ask() -> tuple[Found, int]:
            places, took_ns = (known, 0) if look is None else look()
            return Found(places, _is_newer(config)), took_ns

        return ask

    def _look(self) -> Callable[[], tuple[Places, int]]:
        daemon = self._daemon
        ours: set[int] = set()
        with contextlib.suppress(OSError):  # the right to ask is gone
            ours.update(libbpf.number_of(daemon.datapath.program_fd(name)) for name in PROGRAMS)
        hooks = [(one.interface.index, one.direction, one.method) for one in daemon.points.placed()]

        def look() -> tuple[Places, int]:
            began_ns = clock.monotonic_ns()
            places = {
                (index, direction): hook_order.place_of(index, direction, method, ours)
                for index, direction, method in hooks
            }
            return places, clock.monotonic_ns() - began_ns

        return look

    def _on_found(self, result: tuple[Found, int] | NetobsError, now_ns: int) -> None:
        self._is_looking = False
        if not isinstance(result, NetobsError):
            self.found, took_ns = result
            if took_ns:
                self._fresh_until_ns = now_ns + max(FRESH_NS, RESTS * took_ns)
        self._settle(now_ns)

    def _on_packets(self, now_ns: int) -> None:
        self._is_asking = False
        self._settle(now_ns)

    def _settle(self, now_ns: int) -> None:
        if not (self._is_looking or self._is_asking):
            self._tell(now_ns)

    def _tell(self, now_ns: int) -> None:
        self._is_asking = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(now_ns)


def _is_newer(config: Config) -> bool | None:
    try:
        return loader.checksum(config.path) != config.checksum
    except (OSError, ValueError):
        return None
