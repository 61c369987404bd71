"""Packet capture as a process of its own: the agent on its own event loop, and the channel to the daemon.

The daemon starts it (netobs.daemon.packet_capture) with one end of a pair of sockets (SOCK_SEQPACKET). It receives the
settings, pickled, then commands as JSON. It sends JSON: {"listening": true} and {"left": true} once each, {"problem":
text} instead, {"account": [line, ...], "level": n}. When the channel ends, the daemon is gone: the process then ends
its streams in an orderly way, and itself.
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

from netobs.base import child, clock, log
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.config.packet_capture import Settings
from netobs.pcap.agent import PacketCaptureAgent, kernel_problem, problems

MESSAGE_BYTES = 1 << 20
END_S = 10
"""How long the end may take in every case."""
POLL_NS = clock.NS_PER_S // 50
_OOM_ADJUSTMENT = "500"  # when memory runs out, the kernel ends this process, not the daemon (oom_score_adj, proc(5))


class Process:
    """Runs an agent until the daemon says "stop", or is gone."""

    def __init__(self, settings: Settings, channel: socket.socket, loop: EventLoop) -> None:
        self._settings = settings
        self._channel = channel
        self._loop = loop
        self._stopping = False
        self._agent = PacketCaptureAgent(settings.config, settings.attach, loop)

    def run(self) -> None:
        """Raises NetobsError if it cannot begin."""
        try:
            self._agent.start(clock.monotonic_ns())
            child.end_with_parent(0)  # from here on, the end has to close streams and detach programs
            self._loop.add_reader(self._channel.fileno(), self._on_message)
            self.tell(listening=True)
            self._loop.run()
        finally:
            self._agent.close(clock.monotonic_ns())

    def tell(self, **message: object) -> None:
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
        if command["do"] == "stop":
            self._stop(now_ns)
        elif command["do"] == "log":
            log.set_up(command["level"])
        else:
            self._account(command["level"], now_ns)

    def _account(self, level: int, now_ns: int) -> None:
        self.tell(account=list(self._agent.lines(now_ns)), level=level)

    def _stop(self, now_ns: int) -> None:
        if not self._stopping:
            self._stopping = True
            signal.alarm(END_S)
            self._agent.stop(now_ns)
            self.tell(left=True)
            self._when_closed(now_ns)

    def _when_closed(self, now_ns: int) -> None:
        if self._agent.closed:
            self._account(logging.INFO, now_ns)
            self._loop.stop()
        else:
            self._loop.call_at(now_ns + POLL_NS, self._when_closed)


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
    child.keep_capabilities_to_itself()
    found = [*problems(settings.config)]
    if kernel and (reason := kernel_problem(settings.config, settings.attach)):
        found.append(NetobsError(reason))
    for problem in found:
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
            logging.getLogger("netobs.pcap").exception("packet capture: an unexpected error")
            return os.EX_SOFTWARE
    return 0
