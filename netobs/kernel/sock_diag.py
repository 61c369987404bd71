"""Who holds a TCP socket of this host, by sock_diag(7)."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from netobs.kernel.netlink import HEADER, NLM_F_REQUEST

SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG, _NO_COOKIE, _ALL_STATES, _TCP_LISTEN = 4, 0xFFFFFFFF, 0xFFFFFFFF, 10
_ANSWER_BYTES = 8192  # of one socket
_REQUEST = struct.Struct("=BBBBI4s16s16sIII")  # struct inet_diag_req_v2, its sockid with both ports in one piece
_STATE_AT, _OWNER_AT = HEADER.size + 1, HEADER.size + 4 + 48 + 12  # in struct inet_diag_msg: idiag_uid, idiag_inode


class Owner(NamedTuple):
    """A socket that nobody holds any more has inode 0, and says nothing of its owner: no uid may be believed."""

    uid: int
    inode: int


def peer_owner(sock: socket.socket) -> Owner | None:
    """Whose the socket at the other end of the TCP connection ``sock`` is; None if it is not on this host, or not in
    this network namespace.

    :raises OSError: the connection is gone.
    """
    here, there = sock.getsockname(), sock.getpeername()
    family, scope = sock.family, there[3] if len(there) > 3 else 0
    ends = [address.partition("%")[0] for address in (there[0], here[0])]
    if all(end.startswith("::ffff:") for end in ends):
        family, ends = socket.AF_INET, [end[len("::ffff:") :] for end in ends]
    packed = [socket.inet_pton(family, end).ljust(16, b"\0") for end in ends]
    ports = struct.pack(">HH", there[1], here[1])
    request = _REQUEST.pack(
        family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES, ports, *packed, scope, _NO_COOKIE, _NO_COOKIE
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as diag:
        header = HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
        diag.sendto(header + request, (0, 0))
        answer = diag.recv(_ANSWER_BYTES)
    if HEADER.unpack_from(answer)[1] != SOCK_DIAG_BY_FAMILY or answer[_STATE_AT] == _TCP_LISTEN:
        return None
    return Owner(*struct.unpack_from("=II", answer, _OWNER_AT))
