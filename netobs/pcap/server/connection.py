"""One connection, from its beginning to its end: TLS, the line of the request, sending, a clean end."""

from __future__ import annotations

import enum
import errno
import socket
from typing import TYPE_CHECKING, Any, Protocol

from netobs.base import tls
from netobs.base.clock import NS_PER_S
from netobs.base.keepalive import notice_dead_peer
from netobs.base.loop import Callback, EventLoop, Timer
from netobs.base.vectors import Numbers, Vectors, write
from netobs.pcap.formats.stream import REFUSAL
from netobs.pcap.server.access import tls_reason
from netobs.pcap.server.outbox import Outbox
from netobs.pcap.server.peer import Peer, is_there
from netobs.pcap.server.request import END_LINE, MAX_LINE_BYTES, Refusal

if TYPE_CHECKING:
    import ssl

DEAD_PEER_MS = 120_000
"""How long a client may take nothing at all, or not answer: one that is stopped for longer loses its connection."""
HANDSHAKE_NS = 5 * NS_PER_S
REQUEST_NS = NS_PER_S // 4
"""When the whole line of the request must be there; without a byte until then there is none."""
LINGER_NS = 2 * NS_PER_S
"""How long the client may take to close its side after we have closed ours."""
STALL_NS = 10 * NS_PER_S
"""How long a client may take nothing of what waits for it at the end of its stream."""
MAX_TALK_BYTES = 1 << 16
"""What a client may send behind its request: it is read and thrown away."""

WENT_AWAY, STALLED = "the client went away", "the client did not take what waited for it"

_READ_BYTES = 4096
_READS = 16  # in a round: a peer that talks without end must not hold the loop


class Phase(enum.Enum):
    """What a connection is doing."""

    HANDSHAKE = enum.auto()
    REQUEST = enum.auto()
    OPEN = enum.auto()  # the request is known: the stream is on, or is being prepared
    ENDING = enum.auto()  # what waits is sent, and nothing is added
    LINGERING = enum.auto()  # our side is closed, the client's not yet
    CLOSED = enum.auto()


class Owner(Protocol):
    """What a connection tells the server."""

    def on_request(self, connection: Connection, line: bytes, now_ns: int) -> None:
        """That is all that it says, nothing if ``line`` is empty: it waits for a stream or a refusal."""

    def refuse(self, connection: Connection, refusal: Refusal, now_ns: int) -> None:
        """What it says cannot be a request."""

    def on_end_line(self, connection: Connection, now_ns: int) -> None:
        """The client wants its stream to end."""

    def on_drained(self, connection: Connection, now_ns: int) -> None:
        """Nothing waits any more, and the stream goes on. Comes after something waited, or was waited for."""

    def on_ended(self, connection: Connection, reason: str, now_ns: int) -> None:
        """Nothing is sent any more: all was (``reason`` is empty then), or the connection broke. Comes once."""

    def on_closed(self, connection: Connection, now_ns: int) -> None:
        """The socket is gone. Comes once, after ``on_ended``."""


class Connection:
    """A client's connection, from ``start`` to ``Owner.on_closed``. Nothing here blocks."""

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        loop: EventLoop,
        owner: Owner,
        queue_max_bytes: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """``sock`` was accepted, by TCP or at a Unix socket; with ``context``, TLS comes first.

        :raises OSError: the peer is gone already.
        """
        self.peer = peer
        self.outbox = Outbox(queue_max_bytes)
        self.phase = Phase.HANDSHAKE
        self.shook_hands = False
        """Whether the handshake, if there is one, has come to its end."""
        self.decided = False
        """Whether it is known what the client gets, a stream or nothing."""
        self.is_leaving = False
        """Whether it has no stream any more, or will have none."""
        self._sock: Any = sock  # or an SSLSocket
        self._encrypted = context is not None
        self._not_now: tuple[type[OSError], ...] = (BlockingIOError,)
        """What the socket raises that takes or has nothing at the moment."""
        self._loop = loop
        self._owner = owner
        self._line = b""
        """What came of the request; then the last that came."""
        self._talk_bytes = 0
        self._half_closed = False  # the client says nothing more; it may still read
        self._settled_ns = 0
        self._timer: Timer | None = None
        self._writing = False
        self._ended = False
        self._set_up(sock, context)

    def _set_up(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            notice_dead_peer(sock, DEAD_PEER_MS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent is a batch already
        if context is not None:
            import ssl

            self._sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._not_now += (ssl.SSLWantReadError, ssl.SSLWantWriteError)

    @property
    def standing(self) -> tuple[bool, bool]:
        """Equal for all that have not said yet what they want, for all that have a stream, and for all that leave."""
        return self.decided, self.is_leaving

    def discard(self) -> None:
        """Close it before ``start``, without a word to anybody."""
        self._sock.close()

    def start(self, now_ns: int) -> None:
        """Begin with the handshake, if there is one."""
        self._abort_at(now_ns + HANDSHAKE_NS, "no answer in the TLS handshake")
        self._shake_hands(now_ns)

    def flush(self, now_ns: int) -> int:
        """Send what the socket takes now; how many bytes. The connection may be closed afterwards."""
        if self.phase not in (Phase.REQUEST, Phase.OPEN, Phase.ENDING):
            return 0
        try:
            sent = self.outbox.send(self._send)
        except OSError as error:
            self._break(error, now_ns)
            return 0
        self._watch_writing(bool(self.outbox))
        if self.phase is Phase.ENDING:
            if not self.outbox:
                self._end(now_ns)
            elif sent:
                self._abort_at(now_ns + STALL_NS, STALLED)
        return sent

    def send_at_once(self, pieces: Vectors, ends: Numbers, now_ns: int) -> int:
        """Send what the socket takes now of packets that end at ``ends``, as nothing waits; how many bytes. The
        connection may be closed afterwards."""
        try:
            sent = write(self._sock.fileno(), pieces)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._break(error, now_ns)
            return 0
        self.outbox.sent_bytes += sent
        self.outbox.sent_packets += int(ends.searchsorted(sent, side="right"))
        return sent

    @property
    def sends_at_once(self) -> bool:
        """Whether ``send_at_once`` may be called: nothing waits, and nothing is encrypted."""
        return self.phase is Phase.OPEN and not self.outbox and not self._encrypted

    def wait_writable(self) -> None:
        """Let ``Owner.on_drained`` come in the next round, or as soon as the socket takes more."""
        if self.phase is Phase.OPEN:
            self._watch_writing(True)

    def finish(self, now_ns: int) -> None:
        """Send what waits, then close."""
        if self.phase in (Phase.HANDSHAKE, Phase.REQUEST, Phase.OPEN):
            self.phase = Phase.ENDING
            self._abort_at(now_ns + STALL_NS, STALLED)
            self.flush(now_ns)

    def refuse(self, message: str, now_ns: int) -> None:
        """Send a line of text instead of a stream, then close."""
        self.decided = self.is_leaving = True
        if self.phase is Phase.HANDSHAKE and self._encrypted:  # nothing can be said yet
            self.abort(message, now_ns)
        else:
            self.outbox.put(REFUSAL + f"{message}\n".encode())
            self.finish(now_ns)

    def abort(self, reason: str, now_ns: int) -> None:
        """Close at once."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self._cancel_timer()
        self._loop.remove(self._sock.fileno())
        self._sock.close()
        self.outbox.clear()
        self._tell_ended(reason, now_ns)
        self._owner.on_closed(self, now_ns)

    def _break(self, error: OSError, now_ns: int) -> None:
        reason = tls_reason(error) if self._encrypted else ""
        gone = error.errno in (errno.EPIPE, errno.ECONNRESET)
        self.abort(reason or (WENT_AWAY if gone else error.strerror or str(error)), now_ns)

    def check(self, now_ns: int) -> None:
        """Notice that a client is gone which has closed its side before, and so is not read from any more."""
        if self._half_closed and self.phase is not Phase.CLOSED and is_there(self._sock, self.peer) is False:
            self.abort(WENT_AWAY, now_ns)

    def _send(self, data: memoryview) -> int:
        """Hand over a beginning of ``data``; its length, 0 if the socket takes nothing now. Raises OSError."""
        try:  # of TLS a record at most: what OpenSSL could not write it wants to have again, the same and as long
            return int(self._sock.send(data[: tls.RECORD_BYTES] if self._encrypted else data))
        except self._not_now:
            return 0

    def _shake_hands(self, now_ns: int) -> None:
        fd = self._sock.fileno()
        self._loop.remove(fd)
        try:
            if self._encrypted:
                self._sock.do_handshake()
        except self._not_now as wait:
            writes = type(wait) is self._not_now[-1]
            (self._loop.add_writer if writes else self._loop.add_reader)(fd, self._shake_hands)
        except OSError as error:
            self._break(error, now_ns)
        else:
            self.phase = Phase.REQUEST
            self.shook_hands = True
            self._set_timer(now_ns + REQUEST_NS, self._on_request_time_over)
            self._loop.add_reader(fd, self._on_readable)
            self._on_readable(now_ns)  # TLS may have read it already

    def _on_request_time_over(self, now_ns: int) -> None:
        if self._line:
            message = f"the request did not end within {REQUEST_NS // 1_000_000} ms; it is one line, ended by a newline"
            self._owner.refuse(self, Refusal(message), now_ns)
        else:
            self._settle(b"", now_ns)

    def _settle(self, line: bytes, now_ns: int) -> None:
        self.phase = Phase.OPEN
        self.decided = True
        self._settled_ns = now_ns
        self._line = b""
        self._cancel_timer()
        self._owner.on_request(self, line, now_ns)

    def _on_readable(self, now_ns: int) -> None:
        for _ in range(_READS):
            try:
                data = self._sock.recv(_READ_BYTES)
            except self._not_now:
                return
            except OSError as error:
                self._break(error, now_ns)
                return
            if data:
                self._on_data(data, now_ns)
            else:
                self._on_end_of_stream(now_ns)
            if not data or self.phase is Phase.CLOSED:
                return

    def _on_data(self, data: bytes, now_ns: int) -> None:
        if self.phase is Phase.REQUEST:
            self._line += data
            line, newline, rest = self._line.partition(b"\n")
            if newline or len(line) >= MAX_LINE_BYTES:
                self._talk_bytes = len(rest)
                self._settle(line, now_ns)
            return
        self._talk_bytes += len(data)
        if self._talk_bytes > MAX_TALK_BYTES:
            self.abort("the client sends more than a request", now_ns)
        elif self.phase is Phase.OPEN:
            self._line = (self._line + data)[-len(END_LINE) :]
            if self._line == END_LINE:
                self._owner.on_end_line(self, now_ns)

    def _on_end_of_stream(self, now_ns: int) -> None:
        self._half_closed = True
        self._loop.remove(self._sock.fileno())  # it would be readable for ever
        if self._writing:
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
        if self.phase is Phase.LINGERING:
            self.abort("", now_ns)
            return
        there = is_there(self._sock, self.peer)
        if there is None:  # on another host: who closes its side with the request, or right after it, still reads
            there = bool(self._line) if self.phase is Phase.REQUEST else now_ns <= self._settled_ns + REQUEST_NS
        if not there:
            self.abort(WENT_AWAY, now_ns)
        elif self.phase is Phase.REQUEST:
            self._settle(self._line, now_ns)

    def _on_writable(self, now_ns: int) -> None:
        self.flush(now_ns)
        if self.phase is Phase.OPEN and not self.outbox:
            self._owner.on_drained(self, now_ns)

    def _end(self, now_ns: int) -> None:
        """Close our side. The client's is read to its end: unread bytes would make a reset of the close, and what is
        on its way to the client would be lost."""
        try:
            if self._encrypted:
                tls.close_notify(self._sock)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._break(error, now_ns)
            return
        self.phase = Phase.LINGERING
        self._tell_ended("", now_ns)
        if self._half_closed:
            self.abort("", now_ns)
        else:
            self._talk_bytes = 0
            self._abort_at(now_ns + LINGER_NS, "")
            self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def _tell_ended(self, reason: str, now_ns: int) -> None:
        if not self._ended:
            self._ended = self.is_leaving = True
            self._owner.on_ended(self, reason, now_ns)

    def _watch_writing(self, wanted: bool) -> None:
        if wanted == self._writing:
            return
        self._writing = wanted
        if wanted:
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
        else:
            self._loop.remove_writer(self._sock.fileno())

    def _set_timer(self, when_ns: int, callback: Callback) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_at(when_ns, callback)

    def _abort_at(self, when_ns: int, reason: str) -> None:
        self._set_timer(when_ns, lambda now_ns: self.abort(reason, now_ns))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
