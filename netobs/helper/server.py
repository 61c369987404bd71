"""Serves the verbs: to few connections, of few users, and not faster than they are of use."""

from __future__ import annotations

import errno
import logging
import socket
import struct
from typing import NamedTuple

from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Timer
from netobs.base.throttle import LogThrottle
from netobs.helper.verbs import Refused, Verbs
from netobs.kernel.helper_protocol import MAX_REQUEST_BYTES, Message, error_of, receive, send

log = logging.getLogger("netobs.helper")

MAX_CONNECTIONS = 4
BURST, PER_SECOND = 500, 100
"""Requests: a link takes the kernel 15 ms, so that nobody gets more done. Those beyond wait in the socket."""
IDLE_NS = 60 * NS_PER_S
"""So long after the last connection the helper ends; the next connection starts it again."""
_PEER = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_SHOWN = ("verb", "namespace", "ifindex", "direction", "method")


class _Allowance:
    """``BURST`` requests, and ``PER_SECOND`` more each second."""

    def __init__(self, now_ns: int) -> None:
        self._left, self._since_ns = float(BURST), now_ns

    def take_one(self, now_ns: int) -> int:
        """Takes a request out, and returns for how many ns there is none left: 0 = there is."""
        self._left = min(BURST, self._left + (now_ns - self._since_ns) * PER_SECOND / NS_PER_S) - 1
        self._since_ns = now_ns
        return 0 if self._left >= 1 else NS_PER_S // PER_SECOND


class _Connection(NamedTuple):
    sock: socket.socket
    who: str
    allowance: _Allowance


class Server:
    """Accepts at ``listening``, serves, and stops ``loop`` when nobody needs it any more."""

    def __init__(
        self, loop: EventLoop, listening: socket.socket, uids: frozenset[int], verbs: Verbs, ends: bool
    ) -> None:
        """``uids``: who is served. ``ends``: whether somebody starts it again for the next connection."""
        self._loop, self._listening, self._uids, self._verbs, self._ends = loop, listening, uids, verbs, ends
        self._connections: dict[int, _Connection] = {}
        self._idle: Timer | None = None
        self._throttle = LogThrottle()
        listening.setblocking(False)

    def start(self, now_ns: int) -> None:
        """Begins to accept."""
        self._loop.add_reader(self._listening.fileno(), self._accept)
        self._await_end(now_ns)

    def close(self) -> None:
        """Ends all connections."""
        for connection in list(self._connections.values()):
            connection.sock.close()
        self._connections.clear()
        self._listening.close()

    def _accept(self, now_ns: int) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError as error:  # it went away, or there is no descriptor left
            log.debug("no connection: %s", error.strerror)
            return
        sock.setblocking(False)
        pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        refusal = ""
        if uid not in self._uids:
            refusal = f"uid {uid} is not served"
        elif len(self._connections) >= MAX_CONNECTIONS:
            refusal = f"there are {MAX_CONNECTIONS} connections already"
        if refusal:
            if self._throttle.may_say((uid, refusal), now_ns):
                log.warning("uid %d, process %d: refused: %s", uid, pid, refusal)
            self._tell(sock, Message({"error": refusal, "errno": errno.EACCES}))
            sock.close()
            return
        connection = _Connection(sock, f"uid {uid}, process {pid}", _Allowance(now_ns))
        self._connections[sock.fileno()] = connection
        self._watch(connection)
        if self._idle is not None:
            self._idle.cancel()

    def _watch(self, connection: _Connection) -> None:
        self._loop.add_reader(connection.sock.fileno(), lambda now_ns: self._serve(connection, now_ns))

    def _serve(self, connection: _Connection, now_ns: int) -> None:
        """One request."""
        try:
            request = receive(connection.sock, MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            log.warning("%s: connection ended: %s", connection.who, error)
            self._tell(connection.sock, Message({"error": f"not a request: {error}", "errno": errno.EINVAL}))
            request = None
        if request is None:
            self._end(connection, now_ns)
            return
        answer = self._answer(connection, request)
        if not self._tell(connection.sock, answer):
            log.warning("%s: connection ended: it does not read its answers", connection.who)
            self._end(connection, now_ns)
            return
        pause_ns = connection.allowance.take_one(now_ns)
        if pause_ns:
            self._loop.remove(connection.sock.fileno())
            self._loop.call_at(now_ns + pause_ns, lambda _now_ns: self._go_on(connection))

    def _go_on(self, connection: _Connection) -> None:
        if self._connections.get(connection.sock.fileno()) is connection:
            self._watch(connection)

    def _answer(self, connection: _Connection, request: Message) -> Message:
        what = " ".join(str(request.values[key])[:64] for key in _SHOWN if key in request.values)
        try:
            answer = self._verbs.answer(request)
        except Refused as error:
            log.warning("%s: %s: refused: %s", connection.who, what, error)
            return Message({"error": str(error), "errno": errno.EINVAL})
        except OSError as error:
            log.warning("%s: %s: %s", connection.who, what, error.strerror)
            return Message(error_of(error))
        finally:
            request.close()
        log.info("%s: %s: done", connection.who, what)
        return answer

    def _tell(self, sock: socket.socket, answer: Message) -> bool:
        """Whether the other side has room for ``answer``, whose descriptors are closed."""
        try:
            send(sock, answer.values, answer.fds)
        except OSError:
            return False
        finally:
            answer.close()
        return True

    def _end(self, connection: _Connection, now_ns: int) -> None:
        self._loop.remove(connection.sock.fileno())
        del self._connections[connection.sock.fileno()]
        connection.sock.close()
        self._await_end(now_ns)

    def _await_end(self, now_ns: int) -> None:
        if self._ends and not self._connections:
            self._idle = self._loop.call_at(now_ns + IDLE_NS, lambda _now_ns: self._loop.stop())
