"""Who comes in: connections from their accept to a request, and from the end of their stream to the end of the socket.

Bounded in number, in all and for each user: of those that have not said yet what they want, and of those that are
leaving, the oldest go first. Streams have their places (``check_place``).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from netobs.base.errors import NetobsError
from netobs.base.log import printable
from netobs.base.loop import EventLoop
from netobs.base.throttle import LogThrottle
from netobs.config.schema import PacketCaptureConfig
from netobs.pcap.server.access import ServerTls
from netobs.pcap.server.connection import Connection, Owner, Phase
from netobs.pcap.server.listener import Listener
from netobs.pcap.server.peer import GROUP, ROOT, Peer, address_of, is_allowed, is_local, may_connect, peer_of
from netobs.pcap.server.request import Refusal
from netobs.pcap.tap.tap import Tap

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("netobs.pcap")

MAX_OF_ONE, MAX_OF_ALL = 32, 64
"""Connections without a stream, of one user or address and of all: those that are to have one, and those that leave."""
UNDECIDED, LEAVING = "too many connections without a request", "too many connections are leaving"
ROOTS_PLACES = 1
"""So many streams root may have beyond max_clients."""


class Admission:
    """Makes connections, which then belong to ``owner``; it tells what becomes of them."""

    def __init__(
        self, config: PacketCaptureConfig, source: Tap, loop: EventLoop, owner: Owner, group: str = GROUP
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
        self.listener = Listener(config.listen, loop, self._on_accept)
        self.connections: dict[Connection, None] = {}
        """All that have a socket, in the order in which they came; those that leave, in the order of that."""
        self._throttle = LogThrottle()

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

    def ended(self, connection: Connection, reason: str, now_ns: int) -> None:
        """The stream of ``connection`` is over, or there was none; ``reason`` if it broke."""
        if reason and not connection.decided:
            if connection.shook_hands:
                log.debug("packet client %s: %s before it said what it wants", connection.peer, reason)
            else:
                self.count_refusal(connection.peer, "tls", f"TLS handshake: {reason}", now_ns)
        self._make_place(connection, LEAVING, now_ns)

    def closed(self, connection: Connection) -> None:
        """The socket is closed."""
        del self.connections[connection]
        if connection.peer.endpoint is not None:
            self._source.forget_stream(*connection.peer.endpoint)

    def refuse(self, connection: Connection, refusal: Refusal, now_ns: int) -> None:
        """Say why to the log and to the client; then close."""
        self.count_refusal(connection.peer, refusal.reason, str(refusal), now_ns)
        connection.refuse(printable(str(refusal)), now_ns)
        self._make_place(connection, LEAVING, now_ns)

    def count_refusal(self, peer: Peer, reason: str, message: str, now_ns: int) -> None:
        """Once in a minute for a user or an address it is said; it is always counted."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        if self._throttle.may_say(peer.key, now_ns):
            log.warning("packet client %s: refused: %s", peer, printable(message))

    def _on_accept(self, sock: socket.socket, sockaddr: Any, now_ns: int) -> None:
        self.connections_ever += 1
        try:
            peer = peer_of(sock, sockaddr)
            refusal = self._stranger(sock, peer)  # before TLS takes the socket over
            size, context = self._config.queue_max_bytes, self._tls_context()
            connection = Connection(sock, peer, self._loop, self._owner, size, context)
        except OSError as error:
            log.debug("packet client %s: gone at once: %s", sockaddr, error.strerror)
            sock.close()
            return
        try:
            if peer.endpoint is not None:
                self._source.own_stream(*peer.endpoint)
        except NetobsError as error:  # over a captured interface, each of its packets would make another
            self.count_refusal(peer, "tap", str(error), now_ns)
            connection.discard()
            return
        self.connections[connection] = None
        if refusal is not None:
            self.refuse(connection, refusal, now_ns)
        else:
            self._make_place(connection, UNDECIDED, now_ns)
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

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._tls is None:
            return None
        try:
            self._tls.refresh()
        except NetobsError as error:
            log.error("%s; the certificate from before stays in use", error)
        return self._tls.context

    def _make_place(self, newest: Connection, reason: str, now_ns: int) -> None:
        """Abort the oldest one of the kind of ``newest``, if there are too many of all, or of its user."""
        if newest.phase is Phase.CLOSED:
            return
        self.connections[newest] = self.connections.pop(newest)
        alike = [each for each in self.connections if each.standing == newest.standing]
        mine = [each for each in alike if each.peer.key == newest.peer.key]
        oldest = mine[0] if len(mine) > MAX_OF_ONE else alike[0] if len(alike) > MAX_OF_ALL else None
        if oldest is not None:
            if not oldest.decided:
                oldest.decided = True
                self.count_refusal(oldest.peer, "undecided", reason, now_ns)
            oldest.abort(reason, now_ns)
