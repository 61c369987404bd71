"""One client of the live table: what it wants to see, and lines of JSON to it, one a second as a rule.

A client that does not read misses frames: no more than one waits for it.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any, Callable

from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop, Timer
from netobs.live.flows import Mark
from netobs.live.query import Query, parse

VERSION = 1
REQUEST_BYTES = 4096
ANSWER_EVERY_NS = NS_PER_S // 20
"""A client that asks for something else has its frame this long after the last one, at the earliest."""


def encoded(**fields: object) -> bytes:
    """A line as it is sent."""
    return json.dumps({"netobs": VERSION, **fields}, separators=(",", ":")).encode() + b"\n"


class Client:
    """``mark`` is set at its first look, which is due at once."""

    def __init__(
        self,
        sock: socket.socket,
        loop: EventLoop,
        on_query: Callable[[Client, int], None],
        on_end: Callable[[Client], None],
        now_ns: int,
    ) -> None:
        """``on_query`` is called when it wants to see something else, ``on_end`` when it has gone."""
        self._socket, self._loop = sock, loop
        self._on_query, self._on_end = on_query, on_end
        self.query = Query()
        self.mark: Mark | None = None
        self.due_ns = now_ns
        self._answer: Timer | None = None
        self._answered_ns = now_ns - ANSWER_EVERY_NS
        self._received = b""
        self._unsent = memoryview(b"")
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._on_readable)

    def wait(self, now_ns: int) -> None:
        """It has got a frame: the next one is due in its rhythm, but not in the past."""
        interval_ns = self.query.interval * NS_PER_S
        self.due_ns = max(self.due_ns + interval_ns, now_ns + interval_ns // 2)

    def ask(self, given: dict[str, Any], now_ns: int) -> bool:
        """It wants to see what ``given`` says (``query.parse``). A mistake is answered, and all stays as it was."""
        try:
            before, self.query = self.query, parse(given, self.query)
        except NetobsError as error:
            self.send(encoded(ok=False, error=str(error)))
            return False
        if self.query.interval < before.interval:
            self.due_ns = min(self.due_ns, now_ns + self.query.interval * NS_PER_S)
        return True

    def send(self, line: bytes) -> None:
        """Sends ``line``, unless an earlier one is not out yet."""
        if not self._unsent:
            self._unsent = memoryview(line)
            self._flush(0)

    def _flush(self, _now_ns: int) -> None:
        try:
            sent = self._socket.send(self._unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _on_readable(self, now_ns: int) -> None:
        try:
            data = self._socket.recv(REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        if not data or len(self._received) > REQUEST_BYTES:
            self.close()
            return
        changed = False
        for line in lines:
            given: Any = None
            with contextlib.suppress(ValueError, RecursionError):
                given = json.loads(line)
            if not isinstance(given, dict):
                self.send(encoded(ok=False, error='expected an object like {"by": ["src"], "sort": "bits"}'))
                continue
            changed |= self.ask(given, now_ns)
        if changed and self.mark is not None and self._answer is None:  # however fast somebody types
            self._answer = self._loop.call_at(max(now_ns, self._answered_ns + ANSWER_EVERY_NS), self._show)

    def _show(self, now_ns: int) -> None:
        self._answer, self._answered_ns = None, now_ns
        self._on_query(self, now_ns)

    def close(self) -> None:
        """Ends the connection."""
        if self._answer is not None:
            self._answer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
            self._on_end(self)
