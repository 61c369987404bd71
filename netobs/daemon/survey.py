"""What a question to the kernel or a disk has to find out, asked beside the loop, and not more often than it is worth.

For the order on a hook the kernel takes the lock of all interfaces, so it is looked at when somebody wants to know, and
then for some time not again: ten times as long as it took, and ``FRESH_NS`` at least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple

from netobs.base import background, clock
from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import Timer
from netobs.config import loader
from netobs.kernel import hook_order, libbpf
from netobs.kernel.hook_order import Place
from netobs.kernel.object import PROGRAMS

if TYPE_CHECKING:
    from netobs.daemon.daemon import Daemon

FRESH_NS = 2 * NS_PER_S
RESTS = 10
PATIENCE_NS = NS_PER_S
"""Whoever wants to know waits this long, and then gets what is known: the kernel's lock, or a disk, may hang."""


class Found(NamedTuple):
    """``places``: by interface index and direction, in the host's namespace. ``is_newer``: whether the configuration
    file has another content than what runs; None where it cannot be read."""

    places: dict[tuple[int, str], Place | None]
    is_newer: bool | None


class Survey:
    """``found`` is the last result; ``then`` of ``refresh`` is called when it is fresh, or after ``PATIENCE_NS``."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.found = Found({}, None)
        self._fresh_until_ns = 0
        self._is_asking = False
        self._waiting: list[Callable[[int], None]] = []
        self._patience: Timer | None = None

    def refresh(self, then: Callable[[int], None], now_ns: int) -> None:
        """Calls ``then``, at once if what is known is fresh."""
        if now_ns < self._fresh_until_ns:
            then(now_ns)
            return
        self._waiting.append(then)
        if not self._is_asking:
            self._is_asking = True
            background.run(self._daemon.loop, "survey", self._question(), self._on_found)
        if self._patience is None:
            self._patience = self._daemon.loop.call_at(now_ns + PATIENCE_NS, self._tell)

    def _question(self) -> Callable[[], tuple[Found, int]]:
        daemon = self._daemon
        ours = {libbpf.number_of(daemon.datapath.program_fd(name)) for name in PROGRAMS}
        hooks = [(one.interface.index, one.direction, one.method) for one in daemon.points.placed()]
        path, known = daemon.config.path, daemon.config.checksum

        def ask() -> tuple[Found, int]:
            began_ns = clock.monotonic_ns()
            places = {
                (index, direction): hook_order.place_of(index, direction, method, ours)
                for index, direction, method in hooks
            }
            try:
                is_newer: bool | None = loader.checksum(path) != known
            except (OSError, ValueError):
                is_newer = None
            return Found(places, is_newer), clock.monotonic_ns() - began_ns

        return ask

    def _on_found(self, result: tuple[Found, int] | NetobsError, now_ns: int) -> None:
        self._is_asking = False
        if not isinstance(result, NetobsError):
            self.found, took_ns = result
            self._fresh_until_ns = now_ns + max(FRESH_NS, RESTS * took_ns)
        self._tell(now_ns)

    def _tell(self, now_ns: int) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(now_ns)
