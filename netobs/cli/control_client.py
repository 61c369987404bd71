"""Asks the daemon of this host at its control socket."""

from __future__ import annotations

import errno
import json
import socket
import struct
from typing import Any

from netobs.base.errors import NetobsError

VERSION = 1
ANSWER_BYTES = 64 << 20
QUICK_S = 10.0
"""How long an answer may take that the daemon has at hand."""
_TIMEVAL = struct.Struct("@ll")  # struct timeval


class Refused(NetobsError):
    """The daemon has refused a request; the text has a line for each reason."""


def connect(path: str, within_s: float = QUICK_S) -> socket.socket:
    """A connection to the daemon whose control socket is ``path``.

    :raises NetobsError: there is none, or this user may not ask it.
    """
    sock = socket.socket(socket.AF_UNIX)
    # Not settimeout, which is for the rest: then connect would not wait where many clients want to connect.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(within_s), 0))
    try:
        sock.connect(path)
        sock.settimeout(within_s)
    except OSError as error:
        sock.close()
        raise NetobsError(*_explained(path, error)) from error
    return sock


def _explained(path: str, error: OSError) -> tuple[str, str]:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        hint = "start it (systemctl start netobs); for one with another file: netobs --conf FILE status"
        return f"no netobs daemon answers at {path}", hint
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path}: permission denied", "ask as root, or as a member of the group netobs"
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return f"the daemon at {path} accepts no connection", "it may be busy: try again, and see its log"
    return f"{path}: {error.strerror or error}", "name the control socket of a netobs daemon"


def ask(path: str, do: str, within_s: float = QUICK_S, **more: object) -> dict[str, Any]:
    """The answer of the daemon at ``path`` to the request ``do``.

    :raises NetobsError: there is none, or it is a refusal, which may have a line for each mistake.
    """
    with connect(path, within_s) as sock:
        try:
            sock.sendall(request(do, **more))
            answer = read_line(sock)
        except (TimeoutError, OSError) as error:
            why = f"within {within_s:g} s" if isinstance(error, TimeoutError) else f": {error.strerror}"
            raise NetobsError(f"the daemon at {path} gives no answer {why}", "see its log") from error
    return checked(path, answer)


def request(do: str, **more: object) -> bytes:
    """A request as it is sent."""
    return json.dumps({"netobs": VERSION, "do": do, **more}).encode() + b"\n"


def read_line(sock: socket.socket) -> bytes:
    """What comes, up to a newline or the end."""
    parts, size = [], 0
    while size < ANSWER_BYTES:
        part = sock.recv(1 << 18)
        parts.append(part)
        size += len(part)
        if not part or part.endswith(b"\n"):
            break
    return b"".join(parts)


def checked(path: str, answer: bytes) -> dict[str, Any]:
    """The fields of an answer.

    :raises NetobsError: it is a refusal, or not an answer of netobs.
    """
    try:
        fields = json.loads(answer)
        version, is_ok = fields["netobs"], fields["ok"]
    except (ValueError, TypeError, KeyError):
        what = "ended the connection" if not answer else "does not answer as netobs does"
        raise NetobsError(f"the daemon at {path} {what}", "see its log, or name another control socket") from None
    if version != VERSION:
        raise NetobsError(f"the daemon at {path} is of another version of netobs", "restart it, or use its own netobs")
    if not is_ok:
        raise Refused(str(fields.get("error")))
    assert isinstance(fields, dict)
    return fields
