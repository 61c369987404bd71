"""Serves requests from the event loop: a bounded number of connections, each with one request at a time.

A round of the loop answers one request, and the next one has to wait as long as that took: clients get half of the
loop's time at most, however many they are. A connection whose answer is not out yet is not read. Nothing blocks.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Timer
from netobs.base.throttle import LogThrottle

log = logging.getLogger("netobs")

ACCEPTS = 16
"""The most connections that one round accepts."""
SWEEP_NS = NS_PER_S
"""How often silent connections are looked for, how long one is safe before it may have to give way, and how long nobody
is let in when the system has no descriptor for one more."""
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Limits(NamedTuple):
    """What clients may take: ``connections`` at a time, ``request_bytes`` for a request, ``answer_bytes`` for an answer
    that waits until its client takes it. A connection that is silent for ``idle_ns`` is closed."""

    connections: int = 16
    request_bytes: int = 4096
    answer_bytes: int = 16 << 20
    idle_ns: int = 10 * NS_PER_S


class Service(NamedTuple):
    """What is served. ``name``: for the log.

    ``cut``: the length of the first whole request in the bytes that have arrived, 0 if it is not whole yet.
    ``answer(connection, request, now_ns)``: answers it, now or later, by ``connection.answer`` or
    ``connection.hand_over``. ``busy``, ``too_long``: the answers to a client for which there is no place, and to a
    request that is too long; such connections are closed.
    """

    name: str
    cut: Callable[[bytes], int]
    answer: Callable[[Connection, bytes, int], None]
    busy: bytes = b""
    too_long: bytes = b""


class Connection:
    """One client. Its ``server`` calls everything here but ``answer`` and ``hand_over``."""

    def __init__(self, sock: socket.socket, server: Server, now_ns: int) -> None:
        self.socket = sock
        self.asked = False
        """Whether a request waits for its answer."""
        self.moved_ns = now_ns
        """When something was received or sent."""
        self._server = server
        self._received = bytearray()
        self._unsent = memoryview(b"")
        self._ends = False  # the client sends nothing more
        self._closes = False  # after the answer
        sock.setblocking(False)
        server.loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def is_open(self) -> bool:
        """Whether the server still has it."""
        return self in self._server.connections

    def answer(self, data: bytes, now_ns: int, close: bool = False) -> None:
        """Sends the answer to the request that ``Service.answer`` got. ``close``: nothing follows. A client that has
        gone meanwhile is no error.

        :raises ValueError: ``data`` is longer than ``Limits.answer_bytes``.
        """
        if len(data) > self._server.limits.answer_bytes:
            raise ValueError(f"an answer of {len(data)} bytes")
        if self.is_open:
            self._unsent, self._closes = memoryview(data), close
            self._flush(now_ns)

    def hand_over(self) -> tuple[socket.socket, bytes]:
        """Gives the connection to somebody else, instead of an answer: its socket, and what was received behind the
        request."""
        self._server.forget(self)
        return self.socket, bytes(self._received)

    def take_request(self) -> bytes:
        """The request that waits."""
        length = self._server.service.cut(bytes(self._received))
        request = bytes(self._received[:length])
        del self._received[:length]
        return request

    def _on_readable(self, now_ns: int) -> None:
        try:
            data = self.socket.recv(self._server.limits.request_bytes)
        except BlockingIOError:
            return
        except OSError:
            self._server.close_connection(self)
            return
        self._ends = not data
        self._received += data
        self.moved_ns = now_ns
        self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        """Puts a whole request into the queue, and reads nothing more until it is answered."""
        server = self._server
        length, most = server.service.cut(bytes(self._received)), server.limits.request_bytes
        if length > most or (not length and len(self._received) >= most):
            server.complain("a request is longer than", f"{most} bytes", now_ns)
            self._received.clear()
            self._pause()
            self.answer(server.service.too_long, now_ns, close=True)
        elif length:
            self._pause()
            server.enqueue(self, now_ns)
        elif self._ends:
            server.close_connection(self)

    def _pause(self) -> None:
        self.asked = True
        self._server.loop.remove(self.socket.fileno())

    def _flush(self, now_ns: int) -> None:
        """Sends what the socket takes. After the end of the answer, the next request may follow."""
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._server.close_connection(self)
            return
        if sent:
            self.moved_ns, self._unsent = now_ns, self._unsent[sent:]
        if self._unsent:
            self.asked = False  # from now on it is the client that is waited for
            self._server.loop.add_writer(self.socket.fileno(), self._flush)
        elif self._closes:
            self._server.close_connection(self)
        else:
            self.asked = False
            self._server.loop.remove(self.socket.fileno())
            self._server.loop.add_reader(self.socket.fileno(), self._on_readable)
            self._look(now_ns)


class Acceptor:
    """Accepts at the listening ``sockets``, which it owns, until ``close``.

    ``accepted(sock, address, now_ns)`` gets each connection. ``no_room(reason, now_ns)`` is told of each pause.
    """

    def __init__(
        self,
        loop: EventLoop,
        sockets: Sequence[socket.socket],
        accepted: Callable[[socket.socket, Any, int], None],
        no_room: Callable[[str, int], None],
    ) -> None:
        self.sockets = sockets
        self._loop = loop
        self._accepted = accepted
        self._no_room = no_room
        self._resuming: Timer | None = None
        self._listen(0)

    def _listen(self, _now_ns: int) -> None:
        self._resuming = None
        for sock in self.sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock.fileno(), functools.partial(self._on_client, sock))

    def _on_client(self, listening: socket.socket, now_ns: int) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NO_ROOM:
                    self._pause(str(error.strerror), now_ns)
                    return
                continue  # accept(2): a network error of the connection is to be treated as none being there
            self._accepted(sock, address, now_ns)

    def _pause(self, reason: str, now_ns: int) -> None:
        """The connection that waits would make the socket readable without end."""
        self._no_room(reason, now_ns)
        for sock in self.sockets:
            self._loop.remove(sock.fileno())
        if self._resuming is None:
            self._resuming = self._loop.call_at(now_ns + SWEEP_NS, self._listen)

    def close(self) -> None:
        """Closes the listening sockets."""
        if self._resuming is not None:
            self._resuming.cancel()
        for sock in self.sockets:
            self._loop.remove(sock.fileno())
            sock.close()


class Server:
    """Serves ``service`` at the listening ``sockets``, which it owns, until ``close``. No timer runs, and nothing is
    polled, while there is no client."""

    def __init__(self, loop: EventLoop, sockets: Sequence[socket.socket], service: Service, limits: Limits) -> None:
        self.loop, self.service, self.limits = loop, service, limits
        self.connections: dict[Connection, None] = {}
        """Ordered by their age."""
        self._queue: deque[Connection] = deque()
        self._next: Timer | None = None  # for the queue
        self._rested_ns = 0
        self._sweeping: Timer | None = None
        self._throttle = LogThrottle()
        self._refused = 0
        self._acceptor = Acceptor(loop, sockets, self._on_client, self._on_no_room)

    def complain(self, what: str, detail: str, now_ns: int) -> None:
        """Logs what a client did, ``what`` at most once a minute."""
        if self._throttle.may_say(what, now_ns):
            log.warning("%s: %s %s", self.service.name, what, detail)

    def _on_client(self, sock: socket.socket, _address: Any, now_ns: int) -> None:
        if len(self.connections) >= self.limits.connections and not self._make_room(now_ns):
            self._refuse(sock, now_ns)
            return
        self.connections[Connection(sock, self, now_ns)] = None
        if self._sweeping is None:
            self._sweeping = self.loop.call_at(now_ns + SWEEP_NS, self._sweep)

    def _on_no_room(self, reason: str, now_ns: int) -> None:
        self.complain("no connection can be accepted:", f"{reason}; clients have to wait", now_ns)

    def _make_room(self, now_ns: int) -> bool:
        """Closes the connection that has been silent for the longest time, if that is long enough."""
        silent = [each for each in self.connections if not each.asked and each.moved_ns <= now_ns - SWEEP_NS]
        if silent:
            self.close_connection(min(silent, key=lambda each: each.moved_ns))
        return bool(silent)

    def _refuse(self, sock: socket.socket, now_ns: int) -> None:
        self._refused += 1
        with sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            sock.send(self.service.busy)
        places = f"{self.limits.connections} places are taken; {self._refused} refused so far"
        self.complain("a client is refused:", places, now_ns)

    def enqueue(self, connection: Connection, now_ns: int) -> None:
        """``connection`` has a request."""
        self._queue.append(connection)
        if self._next is None:
            self._next = self.loop.call_at(max(now_ns, self._rested_ns), self._answer_next)

    def _answer_next(self, now_ns: int) -> None:
        self._next = None
        if now_ns < self._rested_ns:
            self._next = self.loop.call_at(self._rested_ns, self._answer_next)
            return
        while self._queue and not self._queue[0].is_open:
            self._queue.popleft()
        if not self._queue:
            return
        began_ns, connection = self.loop.read_clock(), self._queue.popleft()
        self.service.answer(connection, connection.take_request(), now_ns)
        ended_ns = self.loop.read_clock()
        self._rested_ns = ended_ns + ended_ns - began_ns
        if self._queue and self._next is None:
            self._next = self.loop.call_at(self._rested_ns, self._answer_next)

    def _sweep(self, now_ns: int) -> None:
        """Closes connections that have been silent for too long. A request that waits for its answer is not."""
        for each in list(self.connections):
            if not each.asked and now_ns - each.moved_ns >= self.limits.idle_ns:
                self.close_connection(each)
        self._sweeping = self.loop.call_at(now_ns + SWEEP_NS, self._sweep) if self.connections else None

    def forget(self, connection: Connection) -> None:
        """``connection`` belongs to somebody else now."""
        self.loop.remove(connection.socket.fileno())
        self.connections.pop(connection, None)

    def close_connection(self, connection: Connection) -> None:
        """Closes it at once, whatever waits."""
        if connection.is_open:
            self.forget(connection)
            connection.socket.close()

    def close(self) -> None:
        """Closes all connections and the listening sockets."""
        for timer in (self._next, self._sweeping):
            if timer is not None:
                timer.cancel()
        for connection in list(self.connections):
            self.close_connection(connection)
        self._acceptor.close()
