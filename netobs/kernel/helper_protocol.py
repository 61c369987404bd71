"""What the daemon and the root helper say to each other: a datagram each way over a Unix socket (SOCK_SEQPACKET), which
is a JSON object, and descriptors beside it (SCM_RIGHTS).

A request has a ``verb``:

``list``
    The answer has ``names``: [name, inode] of each network namespace that the helper may open.
``open``, with ``namespace``
    A netlink socket (NETLINK_ROUTE, not bound) that was made in the namespace, whose ``inode`` the answer has.
``link``, with ``namespace``, ``ifindex``, ``direction``, ``method``, ``last``, and the descriptor of a program
    Attaches the program. ``tcx``: the link. ``tc``: ``priority`` and ``program`` of the filter, and ``made_qdisc``. A
    filter of netobs that is there is replaced, the one at ``priority`` if that is given; not so with ``beside``.
``unlink``, with ``namespace``, ``ifindex``, ``direction``, ``priority``, ``program``, ``made_qdisc``
    Removes that filter; with ``program`` 0, whatever program of a former process it runs.
``events``
    An inotify descriptor that says when a namespace gets a name or loses it.

The answer to what is refused or fails has ``error``, a sentence, and ``errno``.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

SOCKET = "/run/netobs/helper.sock"
MAX_REQUEST_BYTES, MAX_ANSWER_BYTES = 1024, 65_536
MAX_DESCRIPTORS = 1
MAX_NAMES = 511  # netobs has so many numbers for namespaces


class Message(NamedTuple):
    """A request or an answer. Whoever received it owns the descriptors."""

    values: Mapping[str, Any]
    fds: Sequence[int] = ()

    def close(self) -> None:
        """Closes the descriptors."""
        for fd in self.fds:
            os.close(fd)


def send(sock: socket.socket, values: Mapping[str, Any], fds: Iterable[int] = ()) -> None:
    """Sends a message.

    :raises OSError: the other side does not read, or is gone.
    """
    rights = array.array("i", fds).tobytes()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    sock.sendmsg([json.dumps(values).encode()], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, most_bytes: int) -> Message | None:
    """A message of at most ``most_bytes``; None at the end.

    :raises OSError: the socket failed.
    :raises ValueError: it is no JSON object, or too long, or has more than ``MAX_DESCRIPTORS``; none is left open.
    """
    data, ancillary, flags, _ = sock.recvmsg(
        most_bytes, socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    try:
        if not data and not fds:
            return None
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > MAX_DESCRIPTORS:
            raise ValueError("too long, or too many descriptors")
        return Message(_parsed(data), fds)
    except BaseException:
        Message({}, fds).close()
        raise


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    return values


def error_of(error: OSError) -> dict[str, Any]:
    """The answer to what failed with ``error``."""
    return {"error": error.strerror or str(error), "errno": error.errno or errno.EIO}
