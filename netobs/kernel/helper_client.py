"""The daemon's side of the root helper (``netobs-helper``)."""

from __future__ import annotations

import contextlib
import errno
import socket

from netobs.kernel import libbpf
from netobs.kernel.attach import Attachment, FilterPlace, PlacedFilter, attachment_of_link
from netobs.kernel.helper_protocol import MAX_ANSWER_BYTES, SOCKET, Message, receive, send
from netobs.kernel.interfaces import Interface
from netobs.kernel.netlink import TC_H_CLSACT, filters

HELPER_SOCKET = "NETOBS_HELPER"
"""The environment variable that names another socket than the usual one."""

PATIENCE_S = 2.0
"""A helper that takes longer for one request is given up. An answer takes 20 ms."""


class Helper:
    """Connects when it is first asked for something, and again after a failure."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._made_qdiscs: set[tuple[str, int]] = set()

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

    def make_link(
        self, namespace: str, interface: Interface, direction: str, program_fd: int, last: bool
    ) -> int:  # fmt: skip
        """As ``netobs.kernel.attach.make_link``, in another namespace.

        :raises OSError: as in ``attach``.
        """
        where: dict[str, str | int | bool] = {
            "namespace": namespace,
            "ifindex": interface.index,
            "direction": direction,
        }
        return self.ask("link", program_fd, method="tcx", last=last, **where).fds[0]

    def attach(
        self, namespace: str, requests: socket.socket, interface: Interface, direction: str, program_fd: int,
        method: str, place: FilterPlace,
    ) -> Attachment:  # fmt: skip
        """As ``netobs.kernel.attach.attach``, in another namespace. ``requests``: a netlink socket there.

        :raises OSError: as in ``ask``, or as the kernel refused.
        """
        where: dict[str, str | int | bool] = {
            "namespace": namespace,
            "ifindex": interface.index,
            "direction": direction,
        }
        answer = self.ask("link", program_fd, method=method, last=place.last, beside=place.beside, **where)
        if method == "tcx":
            return attachment_of_link(interface, direction, answer.fds[0], place.last)
        placed, qdisc = PlacedFilter(**answer.values), (namespace, interface.index)
        if placed.made_qdisc:
            self._made_qdiscs.add(qdisc)

        def swap(other_fd: int) -> None:
            nonlocal placed
            again = self.ask("link", other_fd, method=method, last=place.last, priority=placed.priority, **where)
            placed = PlacedFilter(**again.values)

        def is_there() -> bool:
            present = filters(interface.index, TC_H_CLSACT[direction], requests)
            return (place.handle, placed.priority) in present

        def detach() -> None:
            made_qdisc = qdisc in self._made_qdiscs  # for the other direction, perhaps
            self.ask("unlink", **where, **placed._replace(made_qdisc=made_qdisc)._asdict())

        def forget() -> None:
            self._made_qdiscs.discard(qdisc)

        return Attachment(interface, direction, "tc", detach, is_there, forget, swap, place.last)

    def ask(self, verb: str, *fds: int, **values: str | int | bool) -> Message:
        """The answer to a request.

        :raises OSError: it cannot be reached, or does not answer, or refused it: the text says why.
        """
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
