"""Listening sockets: by TCP, or at a Unix socket for its owner and the group netobs."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from pathlib import Path

from netobs.base.errors import NetobsError
from netobs.config.addresses import Endpoint

GROUP = "netobs"
"""Its members may connect, beside root and the user that the service runs as."""

_BACKLOG = 128
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_DIRECTORY_MODE, _FOR_OWNER, _FOR_GROUP = 0o755, 0o600, 0o660


def listening_sockets(key: str, endpoint: Endpoint) -> list[socket.socket]:
    """A socket for each address of ``endpoint``, or the one of a path. Resolves a name. ``key``: the setting
    that has it, for errors.

    :raises NetobsError: none can be had, or one of them not; its cause is the OSError.
    """
    if endpoint.is_path:
        try:
            return [unix_socket(endpoint.host)]
        except OSError as error:
            raise _problem(key, endpoint, error) from error
    try:
        found = socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid name"
        raise _unusable(key, endpoint, f"the name has no address: {reason}", "set an address", True) from error
    sockets: list[socket.socket] = []
    problems: list[OSError] = []
    for family, _, _, _, sockaddr in dict.fromkeys(found):
        dual = family == socket.AF_INET6 and len(found) == 1  # "::" alone is for IPv4 too
        try:
            sockets.append(socket.create_server(sockaddr, family=family, backlog=_BACKLOG, dualstack_ipv6=dual))
        except OSError as error:
            problems.append(error)
        else:
            sockets[-1].setblocking(False)
    # A name may have addresses that are not of this host now, as ::1 where IPv6 is switched off: one is enough.
    serious = [each for each in problems if each.errno not in _NO_SUCH_ADDRESS or not sockets]
    if serious:
        for sock in sockets:
            sock.close()
        raise _problem(key, endpoint, serious[0]) from serious[0]
    return sockets


def unix_socket(path: str) -> socket.socket:
    """A listening socket for its owner and, where there is a group netobs and this process may give it the socket, for
    that group. Nobody can connect before it listens. Takes the place of one that nobody listens at, and makes the
    folder.

    :raises OSError: EADDRINUSE where somebody listens there.
    """
    os.makedirs(os.path.dirname(path), _DIRECTORY_MODE, exist_ok=True)
    _remove_stale(path)
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX))
        sock.bind(path)
        os.chmod(path, _FOR_OWNER)
        with contextlib.suppress(KeyError, PermissionError):
            group = grp.getgrnam(GROUP).gr_gid
            if os.lstat(path).st_gid != group:
                os.chown(path, -1, group, follow_symlinks=False)
            os.chmod(path, _FOR_GROUP)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        undo.pop_all()
    return sock


def _remove_stale(path: str) -> None:
    """What a process that was killed has left there. A socket at which somebody listens stays, and so does a file."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "a file is there that is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # it would wait where the queue of those who want to connect is full
            try:
                probe.connect(path)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                os.unlink(path)


def check(key: str, endpoint: Endpoint) -> None:
    """Whether ``endpoint`` could be listened at, but for the netobs that does so already. Leaves nothing there.

    :raises NetobsError: it could not.
    """
    if endpoint.is_path:
        directory = Path(endpoint.host).parent
        while not directory.exists():
            directory = directory.parent
        if not os.access(directory, os.W_OK | os.X_OK):
            raise _problem(key, endpoint, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        return
    try:
        for sock in listening_sockets(key, endpoint):
            sock.close()
    except NetobsError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
            raise


def _problem(key: str, endpoint: Endpoint, error: OSError) -> NetobsError:
    if error.errno == errno.EADDRINUSE:
        end = "socket" if endpoint.is_path else "port"
        return _unusable(key, endpoint, "another program listens there", f"end it, or set another {end}", True)
    if error.errno in _NO_SUCH_ADDRESS:
        return _unusable(key, endpoint, "not an address of this host", "set one of this host, or 0.0.0.0 or [::]", True)
    if error.errno == errno.EACCES and not endpoint.is_path:
        return _unusable(key, endpoint, "ports below 1024 need CAP_NET_BIND_SERVICE", "set a port from 1024 on", False)
    hint = "make its folder, writable for the user that netobs runs as" if endpoint.is_path else "set another address"
    return _unusable(key, endpoint, error.strerror or str(error), hint, False)


def _unusable(key: str, endpoint: Endpoint, reason: str, hint: str, may_pass: bool) -> NetobsError:
    return NetobsError(f'{key} "{endpoint}": {reason}', hint, may_pass)
