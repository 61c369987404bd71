"""The live table without a daemon: own programs for one client, for as long as it stays.

`netobs top` starts this process with a connection, whose number is the only argument; standard input has [capture] of
the configuration and what the client wants to see first, pickled.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys

from netobs.base import child, clock, log, malloc
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop, Timer
from netobs.config import CaptureConfig
from netobs.datapath.capture import Capture, check_interfaces
from netobs.datapath.view import STATE_MAP, TableView
from netobs.flow.records import concatenate
from netobs.kernel.observation_points import RESTORE_NS, SLICE_NS
from netobs.kernel.tc_handle import own_place
from netobs.live.client import encoded
from netobs.live.flows import rows_of
from netobs.live.looks import Looks

EMERGENCY_SPACING_NS = clock.NS_PER_S // 10
"""The least time between two evictions, even if the table keeps asking for them."""
ATTACH_PAUSE_NS = clock.NS_PER_S // 50


class Alone:
    """``start`` -> the loop runs until the client has gone -> the owner closes ``capture``."""

    def __init__(self, config: CaptureConfig, capture: Capture, loop: EventLoop) -> None:
        self._config, self._capture, self._loop = config, capture, loop
        self._points, self._datapath = capture.points, capture.datapath
        self._looks = Looks(loop)
        self._looks.on_idle = loop.stop
        self._emergency: Timer | None = None
        self._evicted_ns = 0

    def start(self, sock: socket.socket, query: dict[str, object], now_ns: int) -> None:
        """Attaches, and looks.

        :raises NetobsError: the kernel refused something, or there is no such interface.
        """
        self._capture.load()
        check_interfaces(self._config, self._points.links.interfaces())
        datapath, shape = self._datapath, self._datapath.shape()
        maps = {name: os.dup(datapath.map_fd(name)) for name in (*datapath.table.MAPS, STATE_MAP)}
        self._looks.view = TableView(shape, maps, datapath.state.active_half)
        self._looks.table = shape.flow_table
        self._points.want_all()
        self._loop.add_reader(self._points.links.fileno(), self._on_links)
        self._loop.add_reader(datapath.ring.fd, self._on_ring)
        self._attach(now_ns)
        self._restore(now_ns)
        self._evict_regularly(now_ns)
        self._tell(now_ns)
        self._looks.add(sock, query, now_ns)

    def _attach(self, now_ns: int) -> None:
        if self._points.work(clock.is_over_in(SLICE_NS)):
            self._loop.call_at(now_ns + ATTACH_PAUSE_NS, self._attach)

    def _on_links(self, now_ns: int) -> None:
        self._points.follow_links()
        self._attach(now_ns)

    def _restore(self, now_ns: int) -> None:
        self._points.restore()
        self._attach(now_ns)
        self._loop.call_at(now_ns + RESTORE_NS, self._restore)

    def _tell(self, now_ns: int) -> None:
        """Once a second: the names of interfaces, and how it goes."""
        self._looks.names = self._points.interface_names.table()
        lost = self._datapath.read_ledger().lost.packets
        self._looks.condition = {"interfaces": len(self._points.attached), "lost_packets": lost}
        self._loop.call_at(now_ns + clock.NS_PER_S, self._tell)

    def _evict_regularly(self, now_ns: int) -> None:
        if self._evicted_ns:  # not at the start
            self._evict(now_ns)
        self._evicted_ns = now_ns
        self._loop.call_at(now_ns + self._config.eviction_interval_ns, self._evict_regularly)

    def _evict(self, now_ns: int) -> None:
        """Keeps the table from getting full."""
        self._emergency, self._evicted_ns = None, now_ns
        rows = concatenate([self._datapath.evict(clock.monotonic_ns()), self._datapath.read_ring().records])
        self._looks.evicted(rows_of(rows), self._datapath.state.active_half)

    def _on_ring(self, now_ns: int) -> None:
        """Packets that the table had no room for."""
        reading = self._datapath.read_ring()
        self._looks.evicted(rows_of(reading.records), self._datapath.state.active_half)
        if reading.table_full and self._emergency is None:
            due_ns = max(now_ns, self._evicted_ns + EMERGENCY_SPACING_NS)
            self._emergency = self._loop.call_at(due_ns, self._evict)


def main() -> None:
    """``FD``: run, for the client there."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # the end of the connection ends it, and its programs
    child.set_name("netobs-top")
    malloc.return_large()
    log.set_up("warning")
    config, query = pickle.load(sys.stdin.buffer)
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        with EventLoop() as loop, own_place() as place, contextlib.closing(Capture(config, place=place)) as capture:
            Alone(config, capture, loop).start(sock, query, clock.monotonic_ns())
            loop.run()
    except NetobsError as error:
        with contextlib.suppress(OSError):
            sock.sendall(encoded(ok=False, error=str(error)))
        sys.exit(1)
