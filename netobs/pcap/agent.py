"""The packet capture agent: a tap and a server, on the event loop of its process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Callable

from netobs.base import malloc
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop, Timer
from netobs.config import PacketCaptureConfig
from netobs.config.text import quoted
from netobs.kernel.observation_points import RESTORE_NS
from netobs.pcap.server.access import ServerTls
from netobs.pcap.server.compiling import compile_configured
from netobs.pcap.server.listener import check
from netobs.pcap.server.server import PacketServer
from netobs.pcap.tap.tap import Tap

log = logging.getLogger("netobs.pcap")


def problems(config: PacketCaptureConfig) -> Iterator[NetobsError]:
    """The problems that ``start`` would have, except for the kernel's part. May block (names)."""
    yield from _problem(lambda: compile_configured(config))
    yield from _problem(lambda: config.cert and not config.listen.is_path and ServerTls(config))
    yield from _problem(lambda: check(config.listen))


def _problem(check: Callable[[], object]) -> Iterator[NetobsError]:
    try:
        check()
    except NetobsError as error:
        yield error


def kernel_problem(config: PacketCaptureConfig, attach: str) -> str:
    """The kernel's objection, or an empty string: loads the programs, and attaches nothing."""
    tap = None
    try:
        tap = Tap(config.selector, config.direction, config.buffer_bytes, attach)
        tap.load()
    except NetobsError as error:
        return str(error)
    finally:
        if tap is not None:
            tap.close()
    return ""


class PacketCaptureAgent:
    """``start`` -> the loop runs -> ``stop``, until ``closed`` -> ``close``."""

    def __init__(self, config: PacketCaptureConfig, attach: str, loop: EventLoop) -> None:
        """``config`` names its interfaces; ``attach``: the key capture.attach.

        :raises NetobsError: a certificate cannot be used, or there is no libbpf.
        """
        self._config = config
        self._loop = loop
        self._tap = Tap(config.selector, config.direction, config.buffer_bytes, attach)
        self._server = PacketServer(config, self._tap, loop)
        self._restoring: Timer | None = None

    def start(self, now_ns: int) -> None:
        """Loads the programs and listens. May block while names in the filter are resolved.

        :raises NetobsError: it cannot be done.
        """
        malloc.keep_packets()
        self._tap.load()
        self._server.start(now_ns)
        self._loop.add_reader(self._tap.links.fileno(), lambda _now_ns: self._tap.follow_links())
        self._restore(now_ns)
        where = ", ".join(map(str, self._server.addresses))
        chosen = " or ".join(map(quoted, self._config.filter))
        log.info("packet capture: listening on %s, filter %s", where, chosen)

    def _restore(self, now_ns: int) -> None:
        if self._tap.is_active:
            self._tap.restore()
        self._restoring = self._loop.call_at(now_ns + RESTORE_NS, self._restore)

    @property
    def closed(self) -> bool:
        """After ``stop``: whether all clients have received their queues, or are gone."""
        return self._server.closed

    def stop(self, now_ns: int) -> None:
        """Ends all streams in an orderly way. ``closed`` follows soon."""
        self._server.stop(now_ns)

    def close(self, now_ns: int) -> None:
        """Frees all, at once."""
        if self._restoring is not None:
            self._restoring.cancel()
        self._loop.remove(self._tap.links.fileno())
        self._server.close(now_ns)
        self._tap.close()

    def lines(self, now_ns: int) -> Iterator[str]:
        """The account of the packets, as lines of the log."""
        yield from self._server.stats(now_ns).lines()
        count = self._tap.count()
        yield (
            f"packet buffer: {count.copied} packets copied, {count.lost} lost, {count.own} "
            "left out, of streams of our own"
        )
