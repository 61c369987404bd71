"""Who comes in: connections from their accept to a request, and from the end of their stream to the end of the socket.

Bounded in number, in all and for each user: of those that have not said yet what they want, and of those that are
leaving, the oldest go first. Streams have their places (``check_place``).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from typing import Any

from netobs.base.errors import NetobsError
from netobs.base.log import printable
from netobs.base.loop import EventLoop
from netobs.base.throttle import LogThrottle
from netobs.config.addresses import Endpoint
from netobs.config.schema import PacketCaptureConfig
from netobs.pcap.server.access import ServerTls, address_of, is_allowed
from netobs.pcap.server.connection import Connection, Owner
from netobs.pcap.server.listener import Listener
from netobs.pcap.server.peer import GROUP, ROOT, Peer, is_local, may_connect, peer_of
from netobs.pcap.server.request import Refusal
from netobs.pcap.server.transport import TlsTransport, Transport
from netobs.pcap.source import PacketSource

log = logging.getLogger("netobs.pcap")

MAX_OF_ONE, MAX_OF_ALL = 32, 64
"""Connections without a stream, of one user or address and of all: those that are to have one, and those that leave."""
ROOTS_PLACES = 1
"""So many streams root may have beyond max_clients."""


class Admission:
    """Makes connections, which then belong to ``owner``; it tells what becomes of them."""

    def __init__(
        self, config: PacketCaptureConfig, source: PacketSource, loop: EventLoop, owner: Owner, group: str = GROUP
    ) -> None:
        """Raises NetobsError if a certificate cannot be used."""
        self.connections_ever = 0
        self.refused: dict[str, int] = {}
        """Connections that got no stream, by reason."""
        self._config = config
        self._source = source
        self._loop = loop
        self._owner = owner
        self._group = group
        self._tls = ServerTls(config) if config.cert and not config.listen.is_path else None
        self._listener = Listener(config.listen, loop, self._on_accept)
        self._connections: dict[Connection, None] = {}
        self._undecided: dict[Connection, None] = {}  # in order
        self._leaving: dict[Connection, None] = {}
        self._throttle = LogThrottle()

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

    def check_place(self, peer: Peer, present: Iterable[Peer]) -> None:
        """Whether ``peer`` may have a stream beside those of ``present``. Raises Refusal."""
        present, places = list(present), self._config.max_clients
        mine = sum(each.key == peer.key for each in present)
        if len(present) >= places + (ROOTS_PLACES if peer.uid == ROOT else 0):
            problem = f"{places} clients are connected already, as many as packet_capture.max_clients allows"
            raise Refusal(problem, reason="max_clients")
        if peer.uid not in (None, ROOT) and mine >= max(1, places - 1):
            problem = f"uid {peer.uid} has {mine} clients already, and one place is kept for others"
            raise Refusal(problem, "raise packet_capture.max_clients", "max_clients")

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
        if oldest := _one_too_many(self._leaving, connection):
            oldest.abort("too many connections are leaving", now_ns)

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
        if connection.peer.endpoint is not None:
            self._source.forget_stream(*connection.peer.endpoint)

    def refuse(self, connection: Connection, refusal: Refusal, now_ns: int) -> None:
        """Say why to the log and to the client; then close."""
        self.count_refusal(connection.peer, refusal.reason, str(refusal), now_ns)
        self.leaves(connection, now_ns)
        connection.refuse(printable(str(refusal)), now_ns)

    def count_refusal(self, peer: Peer, reason: str, message: str, now_ns: int) -> None:
        """Once in a minute for a user or an address it is said; it is always counted."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        if self._throttle.may_say(peer.key, now_ns):
            log.warning("packet client %s: refused: %s", peer, printable(message))

    def _on_accept(self, sock: socket.socket, sockaddr: Any, now_ns: int) -> None:
        self.connections_ever += 1
        try:
            peer = peer_of(sock, sockaddr)
            transport = self._transport(sock, peer)
        except OSError as error:
            log.debug("packet client %s: gone at once: %s", sockaddr, error.strerror)
            sock.close()
            return
        connection = Connection(transport, peer, self._loop, self._owner, self._config.queue_max_bytes)
        try:
            if peer.endpoint is not None:
                self._source.own_stream(*peer.endpoint)
        except NetobsError as error:  # over a captured interface, each of its packets would make another
            self.count_refusal(peer, "tap", str(error), now_ns)
            transport.close()
            return
        self._connections[connection] = None
        if refusal := self._stranger(sock, peer):
            self.refuse(connection, refusal, now_ns)
            return
        self._undecided[connection] = None
        if oldest := _one_too_many(self._undecided, connection):
            self.count_refusal(oldest.peer, "undecided", "too many connections without a request", now_ns)
            self.decided(oldest)
            oldest.abort("too many connections without a request", now_ns)
        connection.start(now_ns)

    def _stranger(self, sock: socket.socket, peer: Peer) -> Refusal | None:
        """Why ``peer`` gets nothing, whatever it asks for. Who may open a Unix socket the file system has decided."""
        if peer.endpoint is None:
            return None
        address = address_of(peer.endpoint.host)
        if not is_allowed(address, self._config.allow):
            return Refusal(f"{address} is not in packet_capture.allow", reason="address")
        if self._config.client_ca or not is_local(sock, peer) or may_connect(peer.uid, self._group):
            return None
        if peer.uid is None:
            return Refusal("its user is not known", "is the kernel's module tcp_diag there?", "user")
        return Refusal(f"uid {peer.uid} is not in the group {self._group}", "add the user to it", "user")

    def _transport(self, sock: socket.socket, peer: Peer) -> Transport:
        if self._tls is None:
            return Transport(sock, peer)
        try:
            self._tls.refresh()
        except NetobsError as error:
            log.error("%s; the certificate from before stays in use", error)
        return TlsTransport(sock, peer, self._tls.context)


def _one_too_many(connections: Iterable[Connection], newest: Connection) -> Connection | None:
    """The oldest one, if there are too many of all, or of the user of ``newest``."""
    of_all = list(connections)
    of_one = [each for each in of_all if each.peer.key == newest.peer.key]
    return of_one[0] if len(of_one) > MAX_OF_ONE else of_all[0] if len(of_all) > MAX_OF_ALL else None
