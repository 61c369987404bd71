"""Who is at the other end of a connection: which user of this host, or which address of another one."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import select
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple

from netobs.config.addresses import Endpoint, IPAddress, IPNetwork
from netobs.kernel.listening import GROUP
from netobs.kernel.sock_diag import peer_owner

ROOT = 0

_CREDENTIALS = struct.Struct("=iII")  # struct ucred


class Peer(NamedTuple):
    """``name`` is for people. ``uid`` is None for somebody on another host, whose address ``endpoint`` tells."""

    name: str
    uid: int | None
    endpoint: Endpoint | None = None

    @property
    def key(self) -> object:
        """The same for all connections of one user, or of one address."""
        return self.uid if self.uid is not None or self.endpoint is None else self.endpoint.host

    def __str__(self) -> str:
        return self.name


def peer_of(sock: socket.socket, sockaddr: Any) -> Peer:
    """Who has connected by ``sock``, which was just accepted. Raises OSError if it is gone already."""
    if sock.family == socket.AF_UNIX:
        pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return Peer(f"of uid {uid}, pid {pid}", uid)
    endpoint = endpoint_of(sockaddr)
    owner = peer_owner(sock)
    return Peer(str(endpoint), owner.uid if owner else None, endpoint)


def address_of(host: str) -> IPAddress:
    """The address of a peer. What a dual-stack socket calls ::ffff:192.0.2.1 is an IPv4 address."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def endpoint_of(sockaddr: tuple[Any, ...]) -> Endpoint:
    """Who is at the other end, for people."""
    return Endpoint(str(address_of(sockaddr[0])), sockaddr[1])


def is_allowed(address: IPAddress, allow: Sequence[IPNetwork]) -> bool:
    """Whether ``address`` may connect. No prefix at all: everybody may."""
    return not allow or any(address in network for network in allow)


def is_local(sock: socket.socket, peer: Peer) -> bool:
    """Whether the connection comes from this host: its other end is here, or was, as its address is ours."""
    return peer.uid is not None or sock.family == socket.AF_UNIX or sock.getsockname()[0] == sock.getpeername()[0]


def may_connect(uid: int | None, group: str = GROUP) -> bool:
    """Whether a user of this host may have packets by TCP: root, the service's own user, a member of ``group``."""
    if uid in (ROOT, os.geteuid()):
        return True
    try:
        members, user = grp.getgrnam(group), pwd.getpwuid(uid if uid is not None else -1)
    except (KeyError, OverflowError):
        return False
    return user.pw_gid == members.gr_gid or user.pw_name in members.gr_mem


def is_there(sock: socket.socket, peer: Peer) -> bool | None:
    """Whether the other end, which has said that it sends no more, can still receive. None: nobody can know."""
    poll = select.poll()
    poll.register(sock, 0)
    if poll.poll(0):  # POLLHUP: of a Unix socket both directions are closed; POLLERR: a reset
        return False
    if sock.family == socket.AF_UNIX:
        return True
    with contextlib.suppress(OSError):
        owner = peer_owner(sock)
        if owner is not None or is_local(sock, peer):
            return owner is not None and owner.inode != 0
        return None
    return False
