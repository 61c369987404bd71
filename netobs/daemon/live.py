"""The daemon's part of the live table: a process (netobs.live.process) from its first client to its last.

It gets descriptors of the maps, the connections of clients, the rows of each eviction, and once a second the daemon's
condition. It is never waited for: rows for which it has no room are left out, and it says so to its clients.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.base.loop import Timer
from netobs.daemon.child_process import ChildProcess
from netobs.datapath.view import STATE_MAP
from netobs.flow.key_hash import WORD
from netobs.flow.records import Records

if TYPE_CHECKING:
    from netobs.daemon.control import Request
    from netobs.daemon.daemon import Daemon
    from netobs.datapath.datapath import Datapath
    from netobs.flow.interface_names import InterfaceTable

log = logging.getLogger("netobs")

MODULE = "netobs.live.process"
TICK_NS = NS_PER_S
END_NS = 2 * NS_PER_S
ROW_WORDS = 8
"""Of a Flow Record, what netobs.live.flows needs: the key, packets and octets."""
MOST_UNREAD_BYTES = 64 << 20
"""Rows that are on their way to the process."""


class Live:
    """``add`` for each client, ``close`` at the end."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._process: ChildProcess | None = None
        self._leaving: list[ChildProcess] = []
        self._timer: Timer | None = None
        self._clients = self._unread_bytes = self._missed = 0
        self._shown: Datapath | None = None
        self._names: InterfaceTable | None = None

    def add(self, request: Request, now_ns: int) -> None:
        """Gives the connection of ``request`` to the process."""
        try:
            process = self._process or self._begin(now_ns)
        except OSError as error:
            request.refuse(f"netobs top: its process cannot be started: {error.strerror}", now_ns)
            return
        sock, _ = request.connection.hand_over()
        with sock:
            if process.tell(sock.fileno(), client=request.asked):
                self._clients += 1
            else:
                with contextlib.suppress(OSError):
                    sock.send(b'{"netobs":1,"ok":false,"error":"netobs top: its process is busy; try again"}\n')

    def _begin(self, now_ns: int) -> ChildProcess:
        def on_end(why: str, _now_ns: int) -> None:
            self._on_end(process, why)

        process = ChildProcess(MODULE, self._daemon.loop, self._on_message, on_end)
        self._process, self._shown, self._names = process, None, None
        self._clients = self._unread_bytes = self._missed = 0
        self._daemon.on_rows = self.pass_on
        self._tick(now_ns)
        return process

    def _tick(self, now_ns: int) -> None:
        self._show_maps()
        names = self._daemon.points.interface_names.table()
        if names is not self._names and self._tell_names(names):
            self._names = names
        self._tell(condition=self._daemon.telling.condition()._asdict(), **self._so_far())
        self._timer = self._daemon.loop.call_at(now_ns + TICK_NS, self._tick)

    def _tell(self, *fds: int, **message: object) -> bool:
        return self._process is not None and self._process.tell(*fds, **message)

    def _show_maps(self) -> None:
        """The process looks at the maps that packets are counted in now: a reload may have made others."""
        datapath = self._daemon.datapath
        if datapath is self._shown:
            return
        maps = [*datapath.table.MAPS, STATE_MAP]
        fds = [datapath.map_fd(name) for name in maps]
        if self._tell(*fds, maps=maps, shape=datapath.shape(), half=datapath.passed_half):
            self._shown = datapath

    def _so_far(self) -> dict[str, int]:
        """All evictions were passed on, after which packets go to this half, but for those that are missing."""
        return {"half": self._daemon.datapath.passed_half, "missed": self._missed}

    def _tell_names(self, table: InterfaceTable) -> bool:
        texts = [[name.decode() for name in names.tolist()] for names in (table.names, table.namespaces)]
        with _memory(json.dumps([table.keys.tolist(), *texts]).encode()) as fd:
            return self._tell(fd, names=True)

    def pass_on(self, rows: Records) -> None:
        """``rows`` were taken out of the maps."""
        self._show_maps()
        message = {"rows": len(rows), **self._so_far()}
        size = len(rows) * ROW_WORDS * WORD.itemsize
        if not size:
            self._missed += not self._tell(**message)
            return
        if self._unread_bytes + size > MOST_UNREAD_BYTES:
            self._missed += 1
            return
        words = rows.view(WORD).reshape(len(rows), -1)[:, :ROW_WORDS]
        with _memory(np.ascontiguousarray(words).data.cast("B")) as fd:
            if self._tell(fd, **message):
                self._unread_bytes += size
            else:
                self._missed += 1

    def _on_message(self, message: dict[str, Any], now_ns: int) -> None:
        if "taken" in message:
            self._unread_bytes -= int(message["taken"])
        elif message["idle"] == self._clients and self._process is not None:
            process, self._process = self._process, None
            self._rest()
            self._leaving.append(process)
            process.end(END_NS, now_ns)

    def _rest(self) -> None:
        """Without a process there is nothing to do."""
        self._daemon.on_rows = None
        if self._timer is not None:
            self._timer.cancel()

    def _on_end(self, process: ChildProcess, why: str) -> None:
        if process in self._leaving:
            self._leaving.remove(process)
            return
        self._process = None
        self._rest()
        log.error("netobs top: %s; flows are measured without it, and its clients have to start again", why)

    def close(self) -> None:
        """Ends all, at once."""
        if self._process is not None:
            self._rest()
        for process in (self._process, *self._leaving):
            if process is not None:
                process.kill()
        self._process = None


@contextlib.contextmanager
def _memory(data: bytes | memoryview) -> Iterator[int]:
    """A file of memory with ``data``."""
    fd = os.memfd_create("netobs-live", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
