"""A client's connection as a pair of streams of bytes, with TLS or without. Nothing here blocks."""

from __future__ import annotations

import enum
import errno
import socket
from typing import TYPE_CHECKING

from netobs.base import tls
from netobs.base.keepalive import notice_dead_peer
from netobs.pcap.server.peer import Peer, is_there
from netobs.pcap.vectors import Vectors, write

if TYPE_CHECKING:
    import ssl

DEAD_PEER_MS = 120_000
"""How long a client may take nothing at all, or not answer: one that is stopped for longer loses its connection."""


class Need(enum.Enum):
    """What a handshake waits for."""

    NOTHING = enum.auto()
    READING = enum.auto()
    WRITING = enum.auto()


class Transport:
    """A connection that was accepted, by TCP or at a Unix socket."""

    encrypted = False

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        """Raises OSError if the peer is gone already."""
        self._sock = sock
        self._peer = peer
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            notice_dead_peer(sock, DEAD_PEER_MS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent is a batch already

    def fileno(self) -> int:
        """For the event loop."""
        return self._sock.fileno()

    def handshake(self) -> Need:
        """One step towards a connection that can be used. Raises OSError."""
        return Need.NOTHING

    def send(self, data: memoryview) -> int:
        """Hand over a beginning of ``data``; its length, 0 if the socket takes nothing now. Raises OSError."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    def send_pieces(self, pieces: Vectors) -> int:
        """The same with ``pieces``."""
        try:
            return write(self.fileno(), pieces)
        except BlockingIOError:
            return 0

    def receive(self, size: int) -> bytes | None:
        """What came; b"" at the end of the stream, None if there is nothing now. Raises OSError."""
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            return None

    def end(self) -> None:
        """Tell the client that no more will come; what was sent still arrives. Raises OSError."""
        self._sock.shutdown(socket.SHUT_WR)

    def is_there(self) -> bool | None:
        """Whether a client that has closed its side can still receive; None if nobody can know."""
        return is_there(self._sock, self._peer)

    def reason(self, error: OSError) -> str:
        """The words for the log."""
        gone = error.errno in (errno.EPIPE, errno.ECONNRESET)
        return "the client went away" if gone else error.strerror or str(error)

    def close(self) -> None:
        """Free the socket. Remove it from the loop before."""
        self._sock.close()


class TlsTransport(Transport):
    """TLS on such a connection."""

    encrypted = True

    def __init__(self, sock: socket.socket, peer: Peer, context: ssl.SSLContext) -> None:
        super().__init__(sock, peer)
        self._sock = self._tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def handshake(self) -> Need:
        import ssl

        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return Need.READING
        except ssl.SSLWantWriteError:
            return Need.WRITING
        return Need.NOTHING

    def send(self, data: memoryview) -> int:
        """A record at most: what OpenSSL could not write it wants to have again, the same and as long."""
        import ssl

        try:
            return super().send(data[: tls.RECORD_BYTES])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def receive(self, size: int) -> bytes | None:
        import ssl

        try:
            return super().receive(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def end(self) -> None:
        tls.close_notify(self._tls)
        super().end()

    def reason(self, error: OSError) -> str:
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return "the client went away"
        if not isinstance(error, ssl.SSLError):
            return super().reason(error)
        words, alert = tls.openssl_reason(error.reason or str(error))
        if words in ("wrong version number", "http request", "unknown protocol"):
            return "it does not speak TLS"
        return f"it refused (TLS alert: {alert})" if alert else f"TLS: {words}"
