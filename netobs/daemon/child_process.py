"""A part of netobs in a process of its own, as the daemon sees it: started, spoken with, ended, and reaped.

Nothing of the part is imported here. It may fail to start, hang, or die: the daemon goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from typing import Any, Callable

from netobs.base import child
from netobs.base.loop import POLL_NS, EventLoop, Timer

MESSAGE_BYTES = 1 << 20


class ChildProcess:
    """Runs from the start to ``on_end``. The two speak by a pair of sockets (SOCK_SEQPACKET) whose end in the process
    is named by its only argument: JSON objects, at most ``MESSAGE_BYTES`` long."""

    def __init__(
        self,
        module: str,
        loop: EventLoop,
        on_message: Callable[[dict[str, Any], int], None],
        on_end: Callable[[str, int], None],
    ) -> None:
        """``module``: has a ``main``. ``on_message`` may raise ValueError, TypeError, KeyError or AttributeError: the
        process is ended then. ``on_end``: gets why it ended, and ``now_ns``.

        :raises OSError: the process cannot be started.
        """
        import subprocess

        self._loop, self._on_message, self._on_end = loop, on_message, on_end
        self._misbehaved = ""
        self._killing: Timer | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                # Not NOTIFY_SOCKET: whether the service is alive is for the daemon to say.
                environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
                argv, fd = child.command(module, str(theirs.fileno())), theirs.fileno()
                self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=(fd,), env=environment)
            undo.pop_all()
        ours.setblocking(False)
        self.channel = ours
        loop.add_reader(ours.fileno(), self._on_readable)

    def tell(self, *fds: int, **command: object) -> bool:
        """Sends a command with descriptors. Whether the process has room for it: one that does not listen is not
        waited for."""
        try:
            socket.send_fds(self.channel, [json.dumps(command).encode()], fds)
        except OSError:
            return False
        return True

    def end(self, duration_ns: int, now_ns: int) -> None:
        """Sends nothing more, which has it end; after ``duration_ns`` it is ended."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        self.end_within(duration_ns, now_ns)

    def end_within(self, duration_ns: int, now_ns: int) -> None:
        """It was told to end; after so much time it is ended."""
        self._killing = self._loop.call_at(now_ns + duration_ns, lambda _now_ns: self._process.kill())

    def kill(self) -> None:
        """Ends it now. ``on_end`` is not called."""
        self._loop.remove(self.channel.fileno())
        self.channel.close()
        self._process.kill()
        self._process.wait()

    def _on_readable(self, now_ns: int) -> None:
        try:
            data = self.channel.recv(MESSAGE_BYTES)
        except (BlockingIOError, ConnectionResetError):
            return  # it ended, with commands unread: what it has said comes next, and then the end
        if not data:
            self._loop.remove(self.channel.fileno())
            self._reap(now_ns)
            return
        try:
            self._on_message(json.loads(data), now_ns)
        except (ValueError, TypeError, KeyError, AttributeError):  # it is believed as little as any other input
            self._misbehaved = "its process does not keep to what was agreed, and is ended"
            self._process.kill()

    def _reap(self, now_ns: int) -> None:
        """The channel is closed before the process has ended all: it is not waited for in one piece."""
        status = self._process.poll()
        if status is None:
            self._loop.call_at(now_ns + POLL_NS, self._reap)
            return
        self.channel.close()
        if self._killing is not None:
            self._killing.cancel()
        self._on_end(self._misbehaved or _cause(status), now_ns)


def _cause(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}; the lines above say why"
    with contextlib.suppress(ValueError):
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process was ended by signal {-status}"
