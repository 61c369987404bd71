"""The listening sockets of the packet capture agent."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
from typing import Any, Callable

from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.config.addresses import Endpoint

log = logging.getLogger("netobs.pcap")

PAUSE_NS = NS_PER_S
"""How long nobody is let in when the process has no descriptor for one more."""

_BACKLOG = 128
_ACCEPTS = 16  # in a round
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

Accepted = Callable[[socket.socket, "tuple[Any, ...]", int], None]
"""Gets a connection, who is at its other end, and ``now_ns``."""


class Listener:
    """Listens on all addresses of ``endpoint``. ``open`` before use, ``close`` at the end."""

    def __init__(self, endpoint: Endpoint, loop: EventLoop, accepted: Accepted) -> None:
        self._endpoint = endpoint
        self._loop = loop
        self._accepted = accepted
        self._sockets: list[socket.socket] = []
        self._warned = False

    def open(self) -> None:
        """Raises NetobsError. A host name is resolved here, once; that may take a while."""
        self._sockets = listening_sockets(self._endpoint)
        self._watch(0)

    @property
    def addresses(self) -> list[Endpoint]:
        """Where it listens."""
        return [Endpoint(*sock.getsockname()[:2]) for sock in self._sockets]

    def close(self) -> None:
        """Listen no more."""
        for sock in self._sockets:
            self._loop.remove(sock.fileno())
            sock.close()
        self._sockets = []

    def _watch(self, _now_ns: int) -> None:
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), functools.partial(self._accept, sock))

    def _accept(self, sock: socket.socket, now_ns: int) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection, peer = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error, now_ns)
                    return
                continue  # accept(2): a network error of the connection that is to be treated as none being there
            self._accepted(connection, peer, now_ns)

    def _pause(self, error: OSError, now_ns: int) -> None:
        """The connection that waits would make the socket readable without end."""
        if not self._warned:
            self._warned = True
            hint = "raise LimitNOFILE in the unit, or the limit for open files of the system"
            log.warning("packet capture: no client can connect for now: %s; %s", error.strerror, hint)
        for sock in self._sockets:
            self._loop.remove(sock.fileno())
        self._loop.call_at(now_ns + PAUSE_NS, self._watch)


def listening_sockets(endpoint: Endpoint) -> list[socket.socket]:
    """A socket for each address of ``endpoint``. Resolves a name.

    :raises NetobsError: none can be had, or one of them not; its cause is the OSError.
    """
    try:
        found = socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid name"
        raise _unusable(endpoint, f"the name has no address: {reason}", "set an address", True) from error
    sockets: list[socket.socket] = []
    problems: list[OSError] = []
    for family, _, _, _, sockaddr in dict.fromkeys(found):
        made = _listening_socket(family, sockaddr, alone=len(found) == 1)
        if isinstance(made, OSError):
            problems.append(made)
        else:
            sockets.append(made)
    # A name may have addresses that are not of this host now, as ::1 where IPv6 is switched off: one is enough.
    serious = [each for each in problems if each.errno not in _NO_SUCH_ADDRESS or not sockets]
    if serious:
        for sock in sockets:
            sock.close()
        raise _problem(endpoint, serious[0]) from serious[0]
    return sockets


def _listening_socket(family: int, sockaddr: tuple[Any, ...], alone: bool) -> socket.socket | OSError:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:  # no IPv6 in this kernel
        return error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # "::" alone is for IPv4 too, whatever net.ipv6.bindv6only says
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if alone else 1)
        sock.bind(sockaddr)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        return error
    return sock


def _problem(endpoint: Endpoint, error: OSError) -> NetobsError:
    if error.errno == errno.EADDRINUSE:
        return _unusable(endpoint, "another program listens there", "end it, or set another port", True)
    if error.errno in _NO_SUCH_ADDRESS:
        return _unusable(endpoint, "not an address of this host", "set one of this host, or 0.0.0.0 or [::]", True)
    if error.errno == errno.EACCES:
        return _unusable(endpoint, "ports below 1024 need CAP_NET_BIND_SERVICE", "set a port from 1024 on", False)
    return _unusable(endpoint, error.strerror or os.strerror(error.errno or 0), "set another address", False)


def _unusable(endpoint: Endpoint, reason: str, hint: str, may_pass: bool) -> NetobsError:
    return NetobsError(f'packet_capture.listen "{endpoint}": {reason}', hint, may_pass)
