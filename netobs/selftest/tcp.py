"""A TCP conversation between the namespaces, whose packets and octets the kernel's own account of it tells exactly.

Without timestamps, SACK and window scaling (``site``), a TCP header has 20 octets, and 24 in a SYN, which has the MSS.
So the sender's TCP_INFO tells all: segments, those of super-packets counted one by one, and octets of payload; both
with retransmissions (net/ipv4/tcp_output.c: __tcp_transmit_skb).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from netobs.selftest.frames import ACK, FIN, PSH, SYN

OCTETS = 400_000
"""That each side sends: super-packets, and more than one window."""
FLAGS = SYN | ACK | PSH | FIN
_PIECE = 1 << 16
_TCP_HEADER_OCTETS, _MSS_OCTETS = 20, 4
_TCP_CLOSE = 7  # include/net/tcp_states.h
_TCP_CONGESTION = 13
_INFO = struct.Struct("=B99xI32xI60xQ")
"""struct tcp_info: state, total_retrans, segs_out, bytes_sent (Linux 4.19)."""


class _Info(NamedTuple):
    state: int
    retransmits: int
    segments: int
    payload_octets: int


def _info(sock: socket.socket) -> _Info:
    data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    return _Info(*_INFO.unpack(data))


class Side:
    """One of the two, once connected. It sends ``OCTETS``, then its end."""

    def __init__(self, sock: socket.socket, answers: bool) -> None:
        """``answers``: it is the server. Its SYN-ACK is of the listening socket, and not in its account."""
        sock.setblocking(False)
        self._sock = sock
        self._uncounted = 0
        self._unsent = OCTETS
        self._unread = OCTETS
        self._ended = False
        handshakes = 1 + _info(sock).retransmits  # before there are data
        self._option_octets = handshakes * _MSS_OCTETS
        if answers:
            self._uncounted = handshakes

    def send(self) -> None:
        """As much as the socket takes; the end after all of it."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent -= self._sock.send(bytes(min(self._unsent, _PIECE)))
        if not self._unsent and not self._ended:
            self._sock.shutdown(socket.SHUT_WR)
            self._ended = True

    def read(self) -> bool:
        """What has arrived; whether all has."""
        with contextlib.suppress(BlockingIOError):
            while self._unread:
                data = self._sock.recv(_PIECE)
                if not data:
                    raise OSError(errno.EPIPE, f"TCP: the connection ended {self._unread} octets early")
                self._unread -= len(data)
        return not self._unread

    @property
    def is_closed(self) -> bool:
        """Both have their end and its acknowledgement: no packet follows."""
        return _info(self._sock).state == _TCP_CLOSE

    def sent(self, ip_header_octets: int) -> tuple[int, int]:
        """Packets, and octets of IP."""
        info = _info(self._sock)
        packets = info.segments + self._uncounted
        headers = packets * (ip_header_octets + _TCP_HEADER_OCTETS) + self._option_octets
        return packets, headers + info.payload_octets


class Conversation:
    """``client`` connects to ``listener``; each side sends, the client first, and ends."""

    def __init__(self, client: socket.socket, listener: socket.socket) -> None:
        """Both sockets are bound, and nothing was sent yet."""
        for sock in (client, listener):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, b"reno")  # others may ask for ECN
        listener.listen(1)
        self._client, self._listener = client, listener
        self.sides: tuple[Side, ...] = ()
        """The client, and the server, once connected."""

    def steps(self) -> Iterator[None]:
        """Goes on as far as it can each time, without waiting, until no packet follows.

        :raises OSError: the connection failed.
        """
        server: socket.socket | None = None
        number = self._client.connect_ex(self._listener.getsockname())
        while number not in (0, errno.EISCONN) or server is None:
            if number not in (0, errno.EISCONN, errno.EINPROGRESS, errno.EALREADY):
                raise OSError(number, "TCP: the connection was refused")
            with contextlib.suppress(BlockingIOError):
                server, _ = self._listener.accept()
            yield
            number = self._client.connect_ex(self._listener.getsockname())
        client, answering = self.sides = Side(self._client, False), Side(server, True)
        while not answering.read():
            client.send()
            yield
        while not client.read():
            answering.send()
            yield
        while not (client.is_closed and answering.is_closed):
            client.send()
            answering.send()
            yield
