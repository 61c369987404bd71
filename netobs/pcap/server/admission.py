"""Who comes in: connections from their accept to a request, and from the end of their stream to the end of the socket.

Bounded in number: of those that have not said yet what they want, and of those that are leaving, the oldest go first.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.config.addresses import Endpoint
from netobs.config.schema import PacketCaptureConfig
from netobs.config.text import printable
from netobs.pcap.server.access import Quiet, ServerTls, address_of, endpoint_of, is_allowed
from netobs.pcap.server.connection import Connection, Owner
from netobs.pcap.server.listener import Listener
from netobs.pcap.server.request import Refusal
from netobs.pcap.server.transport import TlsTransport, Transport
from netobs.pcap.source import PacketSource

log = logging.getLogger("netobs.pcap")

MAX_UNDECIDED = 64
MAX_LEAVING = 64


class Door:
    """Makes connections, which then belong to ``owner``; it tells the door of their way."""

    def __init__(self, config: PacketCaptureConfig, source: PacketSource, loop: EventLoop, owner: Owner) -> None:
        """Raises NetobsError if a certificate cannot be used."""
        self.connections_ever = 0
        self.refused: dict[str, int] = {}
        """Connections that got no stream, by reason."""
        self._config = config
        self._source = source
        self._loop = loop
        self._owner = owner
        self._tls = ServerTls(config) if config.cert else None
        self._listener = Listener(config.listen, loop, self._on_accept)
        self._connections: dict[Connection, None] = {}
        self._undecided: dict[Connection, None] = {}  # in order
        self._leaving: dict[Connection, None] = {}
        self._quiet = Quiet()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """All that have a socket."""
        return tuple(self._connections)

    @property
    def addresses(self) -> list[Endpoint]:
        """Where it listens."""
        return self._listener.addresses

    def open(self) -> None:
        """Listen. Raises NetobsError."""
        self._listener.open()

    def close(self) -> None:
        """Let nobody in any more."""
        self._listener.close()

    def decided(self, connection: Connection) -> None:
        """It is known what ``connection`` wants."""
        self._undecided.pop(connection, None)

    def is_undecided(self, connection: Connection) -> bool:
        """Whether it is not."""
        return connection in self._undecided

    def leaves(self, connection: Connection, now_ns: int) -> None:
        """``connection`` has no stream any more, or will have none."""
        self.decided(connection)
        self._leaving[connection] = None
        if len(self._leaving) > MAX_LEAVING:
            next(iter(self._leaving)).abort("too many connections are leaving", now_ns)

    def ended(self, connection: Connection, reason: str, now_ns: int) -> None:
        """The stream of ``connection`` is over, or there was none; ``reason`` if it broke."""
        if reason and connection in self._undecided:
            if connection.shook_hands:
                log.debug("packet client %s: %s before it said what it wants", connection.peer, reason)
            else:
                self.count_refusal(connection.peer, "tls", f"TLS handshake: {reason}", now_ns)
        self.leaves(connection, now_ns)

    def left(self, connection: Connection) -> None:
        """The socket is closed."""
        self.decided(connection)
        self._leaving.pop(connection, None)
        del self._connections[connection]
        self._source.forget_stream(connection.peer.host, connection.peer.port)

    def refuse(self, connection: Connection, refusal: Refusal, now_ns: int, quietly: bool = False) -> None:
        """Say why to the log and, unless ``quietly``, to the client; then close."""
        self.count_refusal(connection.peer, refusal.reason, str(refusal), now_ns)
        self.leaves(connection, now_ns)
        if quietly:
            connection.finish(now_ns)
        else:
            connection.refuse(printable(str(refusal)), now_ns)

    def count_refusal(self, peer: Endpoint, reason: str, message: str, now_ns: int) -> None:
        """Once in a minute for an address it is said; it is always counted."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        if self._quiet.may_say(peer.host, now_ns):
            log.warning("packet client %s: refused: %s", peer, printable(message))

    def _on_accept(self, sock: socket.socket, sockaddr: tuple[Any, ...], now_ns: int) -> None:
        self.connections_ever += 1
        address, peer = address_of(sockaddr[0]), endpoint_of(sockaddr)
        try:
            transport = self._transport(sock, now_ns)
        except OSError as error:
            log.debug("packet client %s: gone at once: %s", peer, error.strerror)
            return
        connection = Connection(transport, peer, self._loop, self._owner, self._config.queue_max_bytes)
        try:
            self._source.own_stream(peer.host, peer.port)
        except NetobsError as error:  # over a captured interface, each of its packets would make another
            self.count_refusal(peer, "tap", str(error), now_ns)
            transport.close()
            return
        self._connections[connection] = None
        if not is_allowed(address, self._config.allow):
            self.refuse(connection, Refusal(f"{address} is not in packet_capture.allow", reason="address"), now_ns)
            return
        self._undecided[connection] = None
        if len(self._undecided) > MAX_UNDECIDED:
            oldest = next(iter(self._undecided))
            self.count_refusal(oldest.peer, "undecided", "too many connections without a request", now_ns)
            self.decided(oldest)
            oldest.abort("too many connections without a request", now_ns)
        connection.start(now_ns)

    def _transport(self, sock: socket.socket, now_ns: int) -> Transport:
        if self._tls is None:
            return Transport(sock)
        try:
            self._tls.refresh()
        except NetobsError as error:
            log.error("%s; the certificate from before stays in use", error)
        return TlsTransport(sock, self._tls.context)
