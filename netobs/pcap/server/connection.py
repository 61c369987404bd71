"""One connection, from its beginning to its end: TLS, the line of the request, sending, a clean end.

What is said on it, its conversation, is a generator. It yields what it waits for, and goes on when that has come.
"""

from __future__ import annotations

import enum
import errno
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from netobs.base import tls
from netobs.base.clock import NS_PER_S
from netobs.base.keepalive import notice_dead_peer
from netobs.base.loop import POLL_NS, EventLoop, Timer
from netobs.base.tls_server import tls_reason
from netobs.base.vectors import write
from netobs.pcap.formats.stream import Records
from netobs.pcap.server.outbox import Outbox
from netobs.pcap.server.peer import Peer, is_there
from netobs.pcap.server.request import MAX_LINE_BYTES, Refusal

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


class Wait(NamedTuple):
    """What a conversation waits for: that the socket can be read or written, a time (CLOCK_MONOTONIC), or ``wake``. It
    goes on with the first of them, and finds out itself which it was."""

    until_ns: int
    reads: bool = True
    writes: bool = False


Conversation = Generator[Wait, None, None]


class Gone(Exception):
    """The connection is over at once; why, for people."""


class Stage(enum.Enum):
    """How far a conversation is, for those who count places."""

    UNDECIDED = enum.auto()  # it is not known yet what the client gets
    PLACED = enum.auto()  # it has a stream, or one is being prepared
    LEAVING = enum.auto()  # it has none any more, or never will


class Connection:
    """A client's connection, from ``begin`` to the end of its conversation. Nothing here blocks."""

    def __init__(
        self, sock: socket.socket, peer: Peer, loop: EventLoop, queue_max_bytes: int, context: ssl.SSLContext | None
    ) -> None:
        """``sock`` was accepted, by TCP or at a Unix socket; with ``context``, TLS comes first.

        :raises OSError: the peer is gone already.
        """
        self.peer = peer
        self.outbox = Outbox(queue_max_bytes)
        self.stage = Stage.UNDECIDED
        self.now_ns = 0
        """When the conversation went on."""
        self.shook_hands = context is None
        """Whether something can be said."""
        self.is_closed = False
        self.broken: Exception | None = None
        """Why nothing more can be sent: the conversation will hear of it soon."""
        self._sock: Any = sock  # or an SSLSocket
        self._encrypted = context is not None
        self._not_now: tuple[type[OSError], ...] = (BlockingIOError,)
        """What the socket raises that takes or has nothing at the moment."""
        self._loop = loop
        self._conversation: Conversation
        self._timer: Timer | None = None
        self._watched = False, False  # for reading and for writing
        self._talk_bytes = 0
        self._half_closed = False  # the client says nothing more; it may still read
        self._may_close_until_ns = 0
        """Until when a client on another host may close its side and still read: with its request, or right after."""
        self._next_look_ns = 0
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            notice_dead_peer(sock, DEAD_PEER_MS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent is a batch already
        if context is not None:
            import ssl

            self._sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._not_now += (ssl.SSLWantReadError, ssl.SSLWantWriteError)

    # The conversation's progress.

    def begin(self, conversation: Conversation, now_ns: int) -> None:
        """``conversation`` has the connection from now on, which is closed when it ends."""
        self._conversation = conversation
        self.wake(now_ns)

    def wake(self, now_ns: int) -> None:
        """Let the conversation go on, with what broke the connection, if anything did."""
        self.now_ns = now_ns
        self._cancel_timer()
        error, self.broken = self.broken, None
        try:
            wait = next(self._conversation) if error is None else self._conversation.throw(error)
        except StopIteration:
            self.close()
            return
        self._watch(wait.reads and not self._half_closed, wait.writes)
        if self._timer is None:  # of a half-closed client no event tells that it is gone
            until_ns = min(wait.until_ns, now_ns + POLL_NS) if self._half_closed else wait.until_ns
            self._timer = self._loop.call_at(until_ns, self.wake)

    def wake_soon(self, now_ns: int) -> None:
        """The same in a moment, for those who may be called by the conversation itself."""
        self._cancel_timer()
        if not self.is_closed:
            self._timer = self._loop.call_at(now_ns, self.wake)

    def fail(self, error: Exception, now_ns: int) -> None:
        """Raise ``error`` in the conversation, which must not be at work."""
        if not self.is_closed:
            self.broken = error
            self.wake(now_ns)

    def fail_soon(self, error: Exception, now_ns: int) -> None:
        """Raise ``error`` in the conversation, in a moment."""
        self.broken = error
        self.wake_soon(now_ns)

    def close(self) -> None:
        """Close at once, whatever waits."""
        if not self.is_closed:
            self.is_closed = True
            self._cancel_timer()
            self._loop.remove(self._sock.fileno())
            self._sock.close()
            self.outbox.clear()

    def reason_of(self, error: Exception) -> str:
        """Why the connection is over, as ``error`` has it."""
        if not isinstance(error, OSError):
            return str(error)
        gone = error.errno in (errno.EPIPE, errno.ECONNRESET)
        said = tls_reason(error) if self._encrypted else ""
        return said or (WENT_AWAY if gone else error.strerror or str(error))

    # Parts of a conversation. They raise Gone and OSError.

    def shake_hands(self) -> Conversation:
        """TLS, if there is to be any."""
        until_ns = self.now_ns + HANDSHAKE_NS
        while not self.shook_hands:
            try:
                self._sock.do_handshake()
                self.shook_hands = True
            except self._not_now as wait:  # noqa: PERF203 - a few times
                writes = type(wait) is self._not_now[-1]
                yield from self._wait(until_ns, "no answer in the TLS handshake", not writes, writes)

    def request(self) -> Generator[Wait, None, bytes]:
        """The line of the request, empty if the client says nothing. Raises Refusal, too."""
        until_ns = self.now_ns + REQUEST_NS
        line = self.read()
        while not self._half_closed and b"\n" not in line and len(line) < MAX_LINE_BYTES and self.now_ns < until_ns:
            yield Wait(until_ns)
            line += self.read()
        self._may_close_until_ns = self.now_ns + REQUEST_NS
        line, newline, rest = line.partition(b"\n")
        if line and not newline and not self._half_closed and len(line) < MAX_LINE_BYTES:
            wanted = f"the request did not end within {REQUEST_NS // 1_000_000} ms"
            raise Refusal(f"{wanted}; it is one line, ended by a newline")
        self._talk_bytes = len(rest)
        return line

    def drain(self) -> Conversation:
        """Send what waits, then close our side."""
        until_ns = self.now_ns + STALL_NS
        while self.outbox:
            if self.flush(self.now_ns):
                until_ns = self.now_ns + STALL_NS
            if self.outbox:
                yield from self._wait(until_ns, STALLED, writes=True)
                self.read()
        if self._encrypted:
            tls.close_notify(self._sock)
        self._sock.shutdown(socket.SHUT_WR)

    def linger(self) -> Conversation:
        """Read the client's side to its end: unread bytes would make a reset of the close, and what is on its way to
        the client would be lost."""
        until_ns, self._talk_bytes = self.now_ns + LINGER_NS, 0
        while not self._half_closed and self.now_ns < until_ns:
            yield Wait(until_ns)
            self.read()

    def _wait(self, until_ns: int, reason: str, reads: bool = True, writes: bool = False) -> Conversation:
        yield Wait(until_ns, reads, writes)
        if self.now_ns >= until_ns:
            raise Gone(reason)

    def read(self) -> bytes:
        """What the client has said since. Notices that it is gone."""
        said, was_closed = b"", self._half_closed
        for _ in range(0 if was_closed else _READS):
            try:
                data = self._sock.recv(_READ_BYTES)
            except self._not_now:
                break
            if not data:
                self._half_closed = True
                break
            said += data
            if self.stage is Stage.UNDECIDED:
                self._may_close_until_ns = self.now_ns + REQUEST_NS
        if self._half_closed and self.now_ns >= self._next_look_ns:
            self._next_look_ns = self.now_ns + POLL_NS
            there = is_there(self._sock, self.peer)
            is_late = not was_closed and self.now_ns > self._may_close_until_ns
            if there is False or (there is None and is_late):  # None: of a client on another host nobody can know it
                raise Gone(WENT_AWAY)
        self._talk_bytes += len(said)
        if self._talk_bytes > MAX_TALK_BYTES:
            raise Gone("the client sends more than a request")
        return said

    # Sending, at any time.

    def flush(self, now_ns: int) -> int:
        """Send what the socket takes now; how many bytes."""
        if self.broken is not None or self.is_closed:
            return 0
        sent = 0
        try:
            sent = self.outbox.send(self._send)
        except OSError as error:
            self.fail_soon(error, now_ns)
        if self.outbox and not self._watched[1]:
            self.wake_soon(now_ns)
        return sent

    def send_at_once(self, records: Records, wanted: int, now_ns: int) -> int:
        """Send what the socket takes now of the first ``wanted`` records past the queue, if nothing waits there, and
        nothing is encrypted; how many bytes. Nothing is copied but by the kernel."""
        if not wanted or self.outbox or self._encrypted or self.broken is not None:
            return 0
        sent = 0
        try:
            sent = write(self._sock.fileno(), records.gather(wanted))
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail_soon(error, now_ns)
        self.outbox.counts.bytes += sent
        self.outbox.counts.sent += int(records.ends[:wanted].searchsorted(sent, side="right"))
        return sent

    def _send(self, data: memoryview) -> int:
        """Hand over a beginning of ``data``; its length, 0 if the socket takes nothing now. Raises OSError."""
        try:  # of TLS a record at most: what OpenSSL could not write it wants to have again, the same and as long
            return int(self._sock.send(data[: tls.RECORD_BYTES] if self._encrypted else data))
        except self._not_now:
            return 0

    def _watch(self, reads: bool, writes: bool) -> None:
        if (reads, writes) != self._watched:
            self._watched = reads, writes
            fd = self._sock.fileno()
            self._loop.remove(fd)
            if reads:
                self._loop.add_reader(fd, self.wake)
            if writes:
                self._loop.add_writer(fd, self.wake)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
