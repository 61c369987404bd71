"""The live table as a process of its own: reads the daemon's maps, and serves its clients.

The daemon starts it (netobs.daemon.live) with one end of a pair of sockets (SOCK_SEQPACKET), and sends JSON:

    {"maps": [name, ...], "shape": [...], "half": 0}     with a descriptor of each map
    {"rows": 17, "half": 1, "missed": 0}                 with a file of memory that has the rows of an eviction
    {"names": true}                                      with one that has JSON: interfaces' names
    {"condition": {...}, "half": 1, "missed": 0}         what the daemon says of itself, once a second
    {"client": {...}}                                    with a connection, and what it wants to see

It sends {"taken": bytes} for the rows, and {"idle": clients} when the last of so many clients has gone. When the
channel ends, it ends. It cannot write the maps, has no capability, and hands no descriptor on.
"""

from __future__ import annotations

import contextlib
import difflib  # noqa: F401 - netobs.config.text imports it later, when this process's user may read no module
import faulthandler
import gc
import json
import logging
import mmap
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np

from netobs.base import capabilities, child, malloc
from netobs.base.loop import EventLoop
from netobs.datapath.view import TableShape, TableView
from netobs.flow.interface_names import interface_table
from netobs.flow.records import Records
from netobs.kernel import libbpf
from netobs.live.flows import ROW
from netobs.live.looks import Looks

log = logging.getLogger("netobs")

MESSAGE_BYTES, MOST_DESCRIPTORS = 1 << 20, 16
_OOM_ADJUSTMENT = "500"  # when memory runs out, the kernel ends this process, not the daemon (oom_score_adj, proc(5))


class Process:
    """Runs until the daemon ends the channel."""

    def __init__(self, channel: socket.socket, loop: EventLoop) -> None:
        self._channel, self._loop = channel, loop
        self._clients = 0
        self._looks = Looks(loop, self._drain)
        self._looks.on_idle = lambda: self._tell(idle=self._clients)
        self._has_rights = True
        channel.setblocking(False)
        loop.add_reader(channel.fileno(), self._on_readable)

    def _tell(self, **message: object) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps(message).encode())

    def _on_readable(self, now_ns: int) -> None:
        self._drain(now_ns)

    def _drain(self, now_ns: int = 0) -> bool:
        """Takes in all messages. Whether an eviction was among them."""
        has_rows = False
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, MOST_DESCRIPTORS)
            except BlockingIOError:
                return has_rows
            except OSError:
                data = b""
            if not data:
                self._loop.remove(self._channel.fileno())
                self._loop.stop()
                return has_rows
            has_rows |= self._take(json.loads(data), fds, now_ns)

    def _take(self, message: dict[str, Any], fds: list[int], now_ns: int) -> bool:
        """Whether it tells of an eviction."""
        if "maps" in message:
            self._open(message, fds)
        elif "rows" in message:
            self._looks.evicted(_rows(message["rows"], fds), message["half"], message["missed"])
            self._tell(taken=message["rows"] * ROW.itemsize)
        elif "names" in message:
            with open(fds[0], "rb") as file:
                keys, names, spaces = json.loads(file.read())
            self._looks.names = interface_table(
                {key: (name, "") for key, name in zip(keys, names)}, dict(enumerate(spaces))
            )
        elif "condition" in message:
            self._looks.condition = message["condition"]
            return self._looks.follow(message["half"], message["missed"])
        elif "client" in message:
            self._clients += 1
            self._looks.add(socket.socket(fileno=fds[0]), message["client"], now_ns)
        return "rows" in message

    def _open(self, message: dict[str, Any], fds: list[int]) -> None:
        """The maps to look at from now on."""
        if self._looks.view is not None:
            self._looks.view.close()
        shape = TableShape(*message["shape"])
        self._looks.view = TableView(shape, dict(zip(message["maps"], fds)), message["half"])
        self._looks.table = shape.flow_table
        if self._has_rights:
            self._has_rights = False
            _drop_rights()


def _rows(count: int, fds: list[int]) -> Records:
    if not count:
        return np.zeros(0, ROW)
    with contextlib.closing(mmap.mmap(fds[0], count * ROW.itemsize, mmap.MAP_SHARED, mmap.PROT_READ)) as memory:
        os.close(fds[0])
        return np.frombuffer(memory, ROW).copy()


def _drop_rights() -> None:
    """Hash maps are read by bpf(), which kernels before 6.0 let nobody without CAP_BPF call, where
    kernel.unprivileged_bpf_disabled is set (kernel/bpf/syscall.c: __sys_bpf)."""
    before = capabilities.in_effect()
    capabilities.set_aside(before)
    reaches = libbpf.reaches_kernel()
    capabilities.take_up(before)
    if reaches:
        child.give_up_privileges()
    else:
        capabilities.keep_only(capabilities.BPF)


def main() -> None:
    """``FD``: run, with the channel there."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)  # the daemon ends this process
    child.end_with_parent()
    child.set_name("netobs-live")
    child.keep_capabilities_to_itself()
    malloc.return_large()
    faulthandler.enable()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_ADJUSTMENT)
    with socket.socket(fileno=int(sys.argv[1])) as channel, EventLoop() as loop:
        process = Process(channel, loop)
        gc.freeze()
        loop.run()
        del process
