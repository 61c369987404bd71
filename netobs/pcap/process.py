"""Packet capture as a process of its own: a tap and a server on its own event loop, and the channel to the daemon.

The daemon starts it (netobs.daemon.packet_capture) with one end of a pair of sockets (SOCK_SEQPACKET). It receives the
settings, pickled, then commands as JSON. It sends JSON: {"listening": true} and {"left": true} once each, {"problem":
text} instead, {"account": [line, ...], "level": n}, {"state": as PacketServer.state has it}. When the channel ends, the
daemon is gone: the process then ends its streams in an orderly way, and itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import logging
import os
import pickle
import signal
import socket
import sys
from pathlib import Path
from typing import Callable

from netobs.base import child, clock, log, malloc
from netobs.base.errors import NetobsError
from netobs.base.loop import POLL_NS, EventLoop
from netobs.base.tls_server import ServerTls
from netobs.config.packet_capture import Settings
from netobs.config.text import quoted
from netobs.kernel import privileges
from netobs.kernel.listening import check
from netobs.pcap.server.admission import LISTEN, server_files
from netobs.pcap.server.compiling import compile_configured
from netobs.pcap.server.server import PacketServer
from netobs.pcap.tap.tap import Tap

logger = logging.getLogger("netobs.pcap")

MESSAGE_BYTES = 1 << 20
END_S = 10
"""How long the end may take in every case."""
_OOM_ADJUSTMENT = "500"  # when memory runs out, the kernel ends this process, not the daemon (oom_score_adj, proc(5))


class Process:
    """A tap and a server, until the daemon says "stop", or is gone."""

    def __init__(self, settings: Settings, channel: socket.socket, loop: EventLoop) -> None:
        """Raises NetobsError if a certificate cannot be used, or there is no libbpf."""
        config = settings.config
        self._config = config
        self._channel = channel
        self._loop = loop
        self._stopping = False
        self._tap = Tap(config.selector, config.direction, config.buffer_bytes, settings.attach)
        self._server = PacketServer(config, self._tap, loop)

    def run(self) -> None:
        """Raises NetobsError if it cannot begin."""
        now_ns = clock.monotonic_ns()
        malloc.keep_packets()
        try:
            self._tap.load()
            self._server.start(now_ns)
            _drop_rights()
            self._loop.add_reader(self._tap.links.fileno(), self._server.distribution.follow_links)
            self._server.distribution.restore(now_ns)
            where = ", ".join(map(str, self._server.admission.addresses))
            chosen = " or ".join(map(quoted, self._config.filter))
            logger.info("packet capture: listening on %s, filter %s", where, chosen)
            child.end_with_parent(0)  # from here on, the end has to close streams and detach programs
            self._loop.add_reader(self._channel.fileno(), self._on_message)
            self._tell(listening=True)
            self._loop.run()
        finally:
            self._loop.remove(self._tap.links.fileno())
            self._server.close(clock.monotonic_ns())
            self._tap.close()

    def _tell(self, **message: object) -> None:
        """Messages that the daemon cannot accept are lost; it asks again."""
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)

    def _on_message(self, now_ns: int) -> None:
        try:
            message = self._channel.recv(MESSAGE_BYTES)
        except OSError:
            message = b""
        command = json.loads(message or b'{"do": "stop"}')
        if not message:
            self._loop.remove(self._channel.fileno())
        if command["do"] == "stop" and not self._stopping:
            self._stop(now_ns)
        elif command["do"] == "log":
            log.set_up(command["level"])
        elif command["do"] == "account":
            self._account(command["level"], now_ns)
        elif command["do"] == "state":
            self._tell(state=self._server.state())

    def _account(self, level: int, now_ns: int) -> None:
        count = self._tap.count()
        buffer = f"{count.copied} packets copied, {count.lost} lost, {count.own} left out, of streams of our own"
        lines = [*self._server.account(now_ns), f"packet buffer: {buffer}"]
        self._tell(account=lines, level=level)

    def _stop(self, now_ns: int) -> None:
        self._stopping = True
        signal.alarm(END_S)
        self._server.stop(now_ns)
        self._tell(left=True)
        self._when_closed(now_ns)

    def _when_closed(self, now_ns: int) -> None:
        if not self._server.admission.connections:
            self._account(logging.INFO, now_ns)
            self._loop.stop()
        else:
            self._loop.call_at(now_ns + POLL_NS, self._when_closed)


def _drop_rights() -> None:
    """It serves clients from here on. The three that loading needs stay permitted, for rings, filters and interfaces
    that come later."""
    privileges.keep_only(privileges.TO_LOAD)
    privileges.set_aside()


def main() -> None:
    """``FD``: run, with the channel there. ``FD check`` and ``FD check kernel``: print a problem a line, as JSON with
    whether it may resolve by itself; the settings come from standard input."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)  # the daemon ends this process in its own order
    child.end_with_parent()
    if sys.argv[1] == "check":
        _check(pickle.load(sys.stdin.buffer), "kernel" in sys.argv)
        return
    child.set_name("netobs-capture")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_ADJUSTMENT)
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        sys.exit(_serve(channel))


def _check(settings: Settings, kernel: bool) -> None:
    """The problems that ``Process.run`` would have. May block (names). Attaches nothing."""
    child.keep_capabilities_to_itself()
    config = settings.config

    def load() -> None:
        with contextlib.closing(Tap(config.selector, config.direction, config.buffer_bytes, settings.attach)) as tap:
            tap.load()

    checks: list[Callable[[], object]] = [lambda: compile_configured(config), lambda: check(LISTEN, config.listen)]
    if config.cert and not config.listen.is_path:
        checks.insert(1, lambda: ServerTls(server_files(config)))
    for each in [*checks, load] if kernel else checks:
        try:
            each()
        except NetobsError as problem:  # noqa: PERF203 - each of a handful is reported
            print(json.dumps([str(problem), problem.may_pass]))


def _serve(channel: socket.socket) -> int:
    """The exit status: 1 for a problem that the daemon was told of."""
    settings = channel.recv(MESSAGE_BYTES)
    if not settings:
        return 0
    faulthandler.enable()
    child.keep_capabilities_to_itself()
    found: Settings = pickle.loads(settings)
    log.set_up(found.level)
    with EventLoop() as loop:
        try:
            process = Process(found, channel, loop)
            gc.freeze()  # so that each collection does not scan all imported objects
            process.run()
        except NetobsError as error:
            with contextlib.suppress(OSError):
                channel.send(json.dumps({"problem": str(error)}).encode(), socket.MSG_DONTWAIT)
            return 1
        except Exception:
            logger.exception("packet capture: an unexpected error")
            return os.EX_SOFTWARE
    return 0
