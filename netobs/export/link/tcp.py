"""IPFIX over TCP (RFC 7011, section 10.4)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING

from netobs.base.clock import NS_PER_S
from netobs.base.keepalive import notice_dead_peer
from netobs.base.loop import EventLoop, Timer
from netobs.export.link.address import Address
from netobs.export.link.link import Link, Owner, Progress, State, log
from netobs.export.sink import Event
from netobs.export.stats import ExportStats
from netobs.flow.records import MessageBlock

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

MESSAGE_BYTES = 16_384
"""Length of a Message. TCP has no path MTU to fit, but collectors read whole Messages, and need a buffer for each."""
CONNECT_TIMEOUT_NS = 10 * NS_PER_S
STABLE_NS = 10 * NS_PER_S
"""A connection of this duration resets the back-off; one that is accepted and dropped at once does not."""

_BYTES_ACKED = struct.Struct("=120xQ")
_ABORT = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
_DEAD_PEER_MS = 30_000
_NOT_SENT_LOW_WATER = 131_072  # less unsent data in the kernel leaves less uncertainty when the connection breaks


class TcpLink(Link):
    """A TCP connection that reconnects. Every connection is a Transport Session of its own."""

    _reads = 16
    """What is read in a round, in pieces: a collector that talks without end must not hold the loop."""

    def __init__(self, config: CollectorConfig, loop: EventLoop, owner: Owner, stats: ExportStats) -> None:
        super().__init__(config, loop, owner, stats)
        self._candidates: deque[Address] = deque()
        self._connect_timer: Timer | None = None
        self._connected_ns = 0
        self._ever_connected = False
        self._last_error = ""
        self._offset = 0  # bytes of the present block that the kernel has accepted
        self._ends: deque[int] = deque()  # ends of the unacknowledged Messages in the stream
        self._acknowledged = 0

    @property
    def reliable(self) -> bool:
        return True

    def message_size(self) -> int:
        return MESSAGE_BYTES

    def push(self, block: MessageBlock, index: int, waiting_bytes: int, now_ns: int) -> Progress:
        if self._sock is None:
            return Progress(index, State.BROKEN, reason="not connected")
        if index == 0 and self._offset == 0:
            # The peer has already closed: data sent after this would be lost.
            reason = self._read_all()
            if reason:
                return Progress(0, State.BROKEN, reason=reason)
        total = len(block.buffer)
        try:
            while self._offset < total:
                start = self._offset
                self._offset += self._write(block.buffer[start : self._stop(block)])
                self._note_ends(self._sock, block, start)
        except BlockingIOError:
            return Progress(self._complete(block), State.BLOCKED)
        except OSError as error:
            return Progress(self._complete(block), State.BROKEN, reason=self._reason(error))
        self._offset = 0
        return Progress(len(block), State.DONE)

    def _complete(self, block: MessageBlock) -> int:
        """Number of Messages of ``block`` that the kernel has accepted completely."""
        return int(block.ends.searchsorted(self._offset, side="right"))

    def acknowledged(self) -> int:
        if self._sock is not None and self._ends:
            arrived = _acknowledged_bytes(self._sock)
            while self._ends and self._ends[0] <= arrived:
                self._ends.popleft()
                self._acknowledged += 1
        return self._acknowledged

    def _note_ends(self, sock: socket.socket, block: MessageBlock, start: int) -> None:
        """Remember the ends in the stream of the Messages from ``start`` on that were just written completely."""
        first, last = block.ends.searchsorted((start, self._offset), side="right")
        if first < last:
            position = _written_bytes(sock)
            self._ends.extend(position - self._offset + int(end) for end in block.ends[first:last])

    def disconnect(self, reason: str, now_ns: int) -> None:
        if self._sock is None or not self.reach.is_open:
            return
        self.acknowledged()  # the final number of this connection
        uncertain = _unacknowledged_bytes(self._sock)
        self.stats.uncertain_bytes += uncertain
        log.warning(
            "%s: connection lost: %s; %d bytes were not acknowledged; flows wait in %s",
            self,
            reason,
            uncertain,
            self.waiting_room,
        )
        if now_ns - self._connected_ns >= STABLE_NS:
            self._attempts = 0
        # With a reset: otherwise the kernel would go on sending data that goes into the next connection.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._drop_socket()
        self._owner.on_down(now_ns)
        self._said_ns = now_ns
        self._unreachable(reason, now_ns)

    def close(self) -> None:
        if self._sock is not None and self.reach.is_open:
            with contextlib.suppress(OSError):
                self._end_stream()
            self._read_all()  # unread bytes would turn the close into a reset, and what is on its way would be lost
        super().close()

    def _drop_socket(self) -> None:
        super()._drop_socket()
        self._offset = 0
        if self._connect_timer is not None:
            self._connect_timer.cancel()
            self._connect_timer = None

    def _use(self, addresses: list[Address], now_ns: int) -> None:
        self._candidates = deque(addresses)
        self._try_next(now_ns)

    def _try_next(self, now_ns: int) -> None:
        self._drop_socket()
        while self._candidates:
            self._address = self._candidates.popleft()
            try:
                self._sock = self._start(self._address)
            except OSError as error:
                self._note_failure(error.strerror or str(error))
                continue
            self._loop.add_writer(self._sock.fileno(), self._on_connect)
            self._connect_timer = self._loop.call_at(now_ns + CONNECT_TIMEOUT_NS, self._on_connect_timeout)
            return
        self._unreachable(self._last_error, now_ns)

    def _start(self, address: Address) -> socket.socket:
        sock = self._new_socket(address, socket.SOCK_STREAM)
        try:
            notice_dead_peer(sock, _DEAD_PEER_MS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT_LOW_WATER)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address.sockaddr)
        except OSError:
            sock.close()
            raise
        return sock

    def _on_connect(self, now_ns: int) -> None:
        if self._sock is None:
            return
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(os.strerror(code), now_ns)
            return
        self._loop.remove_writer(self._sock.fileno())
        self._on_connected(now_ns)

    def _on_connected(self, now_ns: int) -> None:
        """The stream is connected. It accepts Messages at once, unless a subclass has to do something first."""
        self._begin_session(now_ns)

    def _begin_session(self, now_ns: int) -> None:
        if self._sock is None:
            return
        if self._connect_timer is not None:
            self._connect_timer.cancel()
        self._loop.add_reader(self._sock.fileno(), self._on_readable)
        self._connected_ns = now_ns
        self._ends.clear()
        self._acknowledged = 0
        self._note(Event.OPENED)
        self.stats.reconnects += self._ever_connected
        self._ever_connected = True
        self._said_ns = None
        log.info("%s: connected", self)
        self._owner.on_up(now_ns)

    def _on_connect_timeout(self, now_ns: int) -> None:
        self._fail("no answer", now_ns)

    def _fail(self, reason: str, now_ns: int) -> None:
        """The present address does not work: try the next one."""
        self._note_failure(reason)
        self._try_next(now_ns)

    def _note_failure(self, reason: str) -> None:
        self._attempt_failed()
        self._last_error = f"{self._address}: {reason}"

    def _on_readable(self, now_ns: int) -> None:
        reason = self._read_all()
        if reason:
            self.disconnect(reason, now_ns)

    def _read_all(self) -> str:
        """Throw away what the collector says (IPFIX has no answers); return why the connection is over, if it is."""
        if self._sock is None:
            return ""
        try:
            for _ in range(self._reads):
                if not self._read():
                    return "closed by the collector"
        except BlockingIOError:
            pass
        except OSError as error:
            return self._reason(error)
        return ""

    # Methods that differ if the stream is encrypted.

    def _stop(self, block: MessageBlock) -> int:
        """The end of the next write in ``block``."""
        return len(block.buffer)

    def _write(self, data: memoryview) -> int:
        """Write the start of ``data``; returns its length. Raises BlockingIOError, or OSError if it is lost."""
        assert self._sock is not None
        return self._sock.send(data)

    def _read(self) -> bytes:
        """Read data; empty at the end of the stream. Raises like ``_write``."""
        assert self._sock is not None
        return self._sock.recv(65_536)

    def _end_stream(self) -> None:
        """Tell the collector that no more data follow. Raises OSError."""
        assert self._sock is not None
        self._sock.shutdown(socket.SHUT_WR)

    def _reason(self, error: OSError) -> str:
        """The reason in words, for the log."""
        return error.strerror or str(error)


def _acknowledged_bytes(sock: socket.socket) -> int:
    """Bytes of the stream on the wire that the peer's host has acknowledged; also after a reset (tcp(7)).

    uapi linux/tcp.h: tcpi_bytes_acked, since Linux 4.1. The SYN counts as one, so compare only with ``_written_bytes``.
    """
    return int(_BYTES_ACKED.unpack_from(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))[0])


def _written_bytes(sock: socket.socket) -> int:
    """Bytes of the stream that the kernel has accepted, counted like ``_acknowledged_bytes``."""
    before = _acknowledged_bytes(sock)
    while True:  # an acknowledgement may come in between
        written = before + _unacknowledged_bytes(sock)
        after = _acknowledged_bytes(sock)
        if after == before:
            return written
        before = after


def _unacknowledged_bytes(sock: socket.socket) -> int:
    """Bytes that the kernel has accepted and the peer's host has not acknowledged (SIOCOUTQ, tcp(7)); 0 if unknown."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
