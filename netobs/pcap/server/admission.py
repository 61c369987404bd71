"""Who comes in: connections from their accept to a request, and from the end of their stream to the end of the socket.

Bounded in number, in all and for each user: of those that have not said yet what they want, and of those that are
leaving, the oldest go first. Streams have their places (``check_place``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Any, Callable, Union

from netobs.base.errors import NetobsError
from netobs.base.log import printable
from netobs.base.loop import EventLoop
from netobs.base.serving import Acceptor
from netobs.base.throttle import LogThrottle
from netobs.base.tls_server import ServerFiles, ServerTls
from netobs.config.addresses import Endpoint
from netobs.config.schema import PacketCaptureConfig
from netobs.kernel.listening import GROUP, listening_sockets
from netobs.pcap.server.connection import Connection, Conversation, Gone, Stage
from netobs.pcap.server.peer import ROOT, Peer, address_of, is_allowed, is_local, may_connect, peer_of
from netobs.pcap.server.request import Refusal
from netobs.pcap.tap.tap import Tap

log = logging.getLogger("netobs.pcap")

MAX_OF_ONE, MAX_OF_ALL = 32, 64
"""Connections without a stream, of one user or address and of all: those that are to have one, and those that leave."""
LISTEN = "packet_capture.listen"
UNDECIDED, LEAVING = "too many connections without a request", "too many connections are leaving"
ROOTS_PLACES = 1
"""So many streams root may have beyond max_clients."""

Serve = Callable[[Connection, Union[Refusal, None]], Conversation]
"""Makes the conversation of a connection, or of one that is to be refused."""


def server_files(config: PacketCaptureConfig) -> ServerFiles:
    """The certificates of [packet_capture]."""
    return ServerFiles("packet_capture", config.cert, config.key, config.client_ca)


def _report(problem: NetobsError) -> None:
    log.error("%s; the certificate from before stays in use", problem)


class Admission:
    """Listens (``open`` before use, ``close`` at the end), and lets connections in."""

    def __init__(
        self, config: PacketCaptureConfig, tap: Tap, loop: EventLoop, serve: Serve, group: str = GROUP
    ) -> None:
        """Raises NetobsError if a certificate cannot be used."""
        self.connections_ever = 0
        self.refused: dict[str, int] = {}
        """Connections that got no stream, by reason."""
        self.connections: dict[Connection, None] = {}
        """All that have a socket, in the order in which they came; those that leave, in the order of that."""
        self._config = config
        self._tap = tap
        self._loop = loop
        self._serve = serve
        self._group = group
        self._tls = ServerTls(server_files(config)) if config.cert and not config.listen.is_path else None
        self._acceptor: Acceptor | None = None
        self._throttle = LogThrottle()

    def open(self) -> None:
        """Raises NetobsError. A host name is resolved here, once; that may take a while."""
        sockets = listening_sockets(LISTEN, self._config.listen)
        self._acceptor = Acceptor(self._loop, sockets, self._accept, self._on_no_room)

    @property
    def addresses(self) -> list[Endpoint]:
        """Where it listens."""
        listen = self._config.listen
        sockets = self._acceptor.sockets if self._acceptor is not None else ()
        return [listen if listen.is_path else Endpoint(*sock.getsockname()[:2]) for sock in sockets]

    def close(self) -> None:
        """Listen no more."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
            if self._config.listen.is_path:
                with contextlib.suppress(OSError):
                    os.unlink(self._config.listen.host)

    def check_place(self, peer: Peer) -> None:
        """Whether ``peer`` may have a stream beside those that there are. Raises Refusal."""
        present = [each.peer for each in self.connections if each.stage is Stage.PLACED]
        places, mine = self._config.max_clients, sum(each.key == peer.key for each in present)
        if len(present) >= places + (ROOTS_PLACES if peer.uid == ROOT else 0):
            problem = f"{places} clients are connected already, as many as packet_capture.max_clients allows"
            raise Refusal(problem, reason="max_clients")
        if peer.uid not in (None, ROOT) and mine >= max(1, places - 1):
            problem = f"uid {peer.uid} has {mine} clients already, and one place is kept for others"
            raise Refusal(problem, "raise packet_capture.max_clients", "max_clients")

    def leave(self, connection: Connection, reason: str) -> None:
        """``connection`` has no stream any more, or will have none; ``reason`` if it broke."""
        if reason and connection.stage is Stage.UNDECIDED:
            if connection.shook_hands:
                log.debug("packet client %s: %s before it said what it wants", connection.peer, reason)
            else:
                self.count_refusal(connection.peer, "tls", f"TLS handshake: {reason}", connection.now_ns)
        connection.stage = Stage.LEAVING
        if not connection.is_closed:
            self._make_place(connection, LEAVING)

    def forget(self, connection: Connection) -> None:
        """Its conversation is over."""
        del self.connections[connection]
        if connection.peer.endpoint is not None:
            self._tap.forget_stream(*connection.peer.endpoint)

    def count_refusal(self, peer: Peer, reason: str, message: str, now_ns: int) -> None:
        """Once in a minute for a user or an address it is said; it is always counted."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        if self._throttle.may_say(peer.key, now_ns):
            log.warning("packet client %s: refused: %s", peer, printable(message))

    def _on_no_room(self, reason: str, now_ns: int) -> None:
        if self._throttle.may_say("descriptors", now_ns):
            hint = "raise LimitNOFILE in the unit, or the limit for open files of the system"
            log.warning("packet capture: no client can connect for now: %s; %s", reason, hint)

    def _accept(self, sock: socket.socket, sockaddr: Any, now_ns: int) -> None:
        self.connections_ever += 1
        try:
            peer = peer_of(sock, sockaddr)
            refusal = self._stranger(sock, peer)  # before TLS takes the socket over
            context = self._tls.context(_report) if self._tls is not None else None
            connection = Connection(sock, peer, self._loop, self._config.queue_max_bytes, context)
        except OSError as error:
            log.debug("packet client %s: gone at once: %s", sockaddr, error.strerror)
            sock.close()
            return
        try:
            if peer.endpoint is not None:
                self._tap.own_stream(*peer.endpoint)
        except NetobsError as error:  # over a captured interface, each of its packets would make another
            self.count_refusal(peer, "tap", str(error), now_ns)
            connection.close()
            return
        self.connections[connection] = None
        connection.begin(self._serve(connection, refusal), now_ns)
        self._make_place(connection, UNDECIDED)

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

    def _make_place(self, newest: Connection, reason: str) -> None:
        """End the oldest one of the kind of ``newest``, if there are too many of all, or of its user."""
        self.connections[newest] = self.connections.pop(newest)
        alike = [each for each in self.connections if each.stage is newest.stage]
        mine = [each for each in alike if each.peer.key == newest.peer.key]
        oldest = mine[0] if len(mine) > MAX_OF_ONE else alike[0] if len(alike) > MAX_OF_ALL else None
        if oldest is not None:
            if oldest.stage is Stage.UNDECIDED:
                oldest.stage = Stage.LEAVING
                self.count_refusal(oldest.peer, "undecided", reason, newest.now_ns)
            oldest.fail(Gone(reason), newest.now_ns)
