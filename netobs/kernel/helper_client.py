"""The daemon's side of the root helper (``netobs-helper``). All calls wait for its answer."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any

from netobs.kernel import libbpf
from netobs.kernel.attach import PlacedFilter
from netobs.kernel.helper_protocol import MAX_ANSWER_BYTES, SOCKET, Message, receive, send

HELPER_SOCKET = "NETOBS_HELPER"
"""The environment variable that names another socket than the usual one."""

PATIENCE_S = 5.0
"""A helper that takes longer for one request is given up. An answer takes 20 ms, after a start by systemd at first."""


class Helper:
    """Connects when it is first asked for something, and again after a failure."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    @property
    def is_there(self) -> bool:
        """Whether it can be connected to.

        A refusal of the user is noticed with the first request only.
        """
        try:
            self._connected()
        except OSError:
            return False
        return True

    def list(self) -> dict[str, int]:
        """Inodes of the namespaces that it may open, by name.

        :raises OSError: as in ``ask``.
        """
        return {str(name): int(inode) for name, inode in self.ask("list").values["names"]}

    def open(self, namespace: str) -> tuple[socket.socket, int]:
        """A netlink socket that was made in the namespace, not bound, and the inode of the namespace.

        :raises OSError: as in ``ask``; EAGAIN: it is not a namespace yet; ENOENT: it has gone.
        """
        answer = self.ask("open", namespace=namespace)
        return socket.socket(fileno=answer.fds[0]), int(answer.values["inode"])

    def events(self) -> int:
        """A descriptor for ``inotify.read_events``.

        :raises OSError: as in ``ask``; ENOENT: there has been no namespace with a name yet.
        """
        return self.ask("events").fds[0]

    def open_two(self, namespace: str) -> tuple[tuple[socket.socket, socket.socket], int]:
        """Two sockets as of ``open``, and the inode of the namespace.

        :raises OSError: as in ``open``; EAGAIN also if another namespace got the name meanwhile.
        """
        first, inode = self.open(namespace)
        try:
            second, other = self.open(namespace)
        except BaseException:
            first.close()
            raise
        if inode != other:
            first.close()
            second.close()
            raise BlockingIOError(errno.EAGAIN, "another namespace has the name now")
        return (first, second), inode

    def events_and_list(self) -> tuple[int, dict[str, int]]:
        """First ``events``, then ``list``: no name is missed in between.

        :raises OSError: as in each.
        """
        events = self.events()
        try:
            return events, self.list()
        except BaseException:
            os.close(events)
            raise

    def make_link(self, namespace: str, ifindex: int, direction: str, program_fd: int, last: bool) -> int:
        """As ``netobs.kernel.attach.make_link``, in another namespace.

        :raises OSError: as in ``ask``, or as the kernel refused.
        """
        where = {"namespace": namespace, "ifindex": ifindex, "direction": direction}
        return self.ask("link", program_fd, method="tcx", last=last, **where).fds[0]

    def place_filter(
        self, namespace: str, ifindex: int, direction: str, program_fd: int, last: bool, **values: int | bool
    ) -> PlacedFilter:
        """As ``netobs.kernel.attach.place_filter``, in another namespace, with the handle of filters for flows.
        ``values``: ``beside`` and ``priority``, as in the request.

        :raises OSError: as in ``make_link``.
        """
        where = {"namespace": namespace, "ifindex": ifindex, "direction": direction}
        return PlacedFilter(**self.ask("link", program_fd, method="tc", last=last, **where, **values).values)

    def unlink(self, namespace: str, ifindex: int, direction: str, placed: PlacedFilter) -> None:
        """As ``netobs.kernel.attach.remove_filter``, in another namespace.

        :raises OSError: as in ``ask``.
        """
        self.ask("unlink", namespace=namespace, ifindex=ifindex, direction=direction, **placed._asdict())

    def ask(self, verb: str, *fds: int, **values: Any) -> Message:
        """The answer to a request.

        :raises OSError: it cannot be reached, or does not answer, or refused it: the text says why.
        """
        is_new = self._socket is None
        sock = self._connected()
        try:
            with contextlib.suppress(BrokenPipeError):  # a refusal may be there to read
                send(sock, {"verb": verb, **values}, fds)
            try:
                answer = receive(sock, MAX_ANSWER_BYTES)
            except ConnectionResetError:  # it has not read the request; the next call gets the refusal
                answer = receive(sock, MAX_ANSWER_BYTES)
        except (OSError, ValueError) as error:
            self.close()
            reason = "it does not answer" if isinstance(error, socket.timeout) else str(error)
            raise OSError(errno.EPIPE, f"the root helper: {reason}") from error
        if answer is None:
            self.close()
            if not is_new:  # it was stopped since the last request, and a new connection starts it
                return self.ask(verb, *fds, **values)
            raise OSError(errno.EPIPE, "the root helper has ended")
        if "error" in answer.values:
            answer.close()
            raise OSError(answer.values.get("errno", errno.EIO), str(answer.values["error"]))
        return answer

    def _connected(self) -> socket.socket:
        if self._socket is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.settimeout(PATIENCE_S)
            try:
                sock.connect(self._path)
            except OSError as error:
                sock.close()
                text = f"{self._path}: {libbpf.error_text(error.errno or errno.EIO)}"
                raise OSError(error.errno or errno.EIO, text) from error
            self._socket = sock
        return self._socket

    def fileno(self) -> int:
        """Of the connection; -1 if there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Ends the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
