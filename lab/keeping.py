"""What keeps descriptors between two processes in a test: a dict of the test's, or a socket that plays systemd.

``python -m lab.keeping NUMBERS NAMES PROGRAM ...`` runs a program as systemd would: with the open descriptors NUMBERS
from 3 on, under NAMES, both with commas in between.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SPARE = 500
"""Descriptors from here on are in nobody's way while the others are put in order."""


class DictKeeper:
    """A ``Keeper`` of the test's process: what one part has kept, the next part finds after ``succeed``."""

    keeps = True

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}
        self._former: dict[str, int] = {}

    def former(self, name: str) -> int | None:
        return self._former.get(name)

    def names(self) -> frozenset[str]:
        return frozenset(self._former)

    @property
    def kept(self) -> frozenset[str]:
        """The names of all that the next process would get."""
        return frozenset(self._fds)

    def memory(self, name: str) -> int:
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        self.keep(name, fd)
        os.close(fd)
        return self._fds[name]

    def keep(self, name: str, fd: int) -> None:
        self.drop(name)
        self._fds[name] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)

    def drop(self, name: str) -> None:
        self._former.pop(name, None)
        if name in self._fds:
            os.close(self._fds.pop(name))

    def settle(self, within_ns: int) -> None: ...

    def succeed(self) -> DictKeeper:
        """The keeper of the next process. This one is not used any more."""
        after = DictKeeper()
        after._fds, after._former = self._fds, dict(self._fds)
        self._fds, self._former = {}, {}
        return after

    def __enter__(self) -> DictKeeper:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Keeps nothing any more."""
        for name in list(self._fds):
            self.drop(name)


class ServiceStore:
    """systemd's side of NOTIFY_SOCKET, with its store of descriptors (service.c: service_add_fd_store)."""

    def __init__(self, path: Path, size: int = 8192) -> None:
        self.path, self.size = path, size
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.socket.setblocking(False)
        self.fds: dict[str, int] = {}
        self.heard: list[str] = []
        self.heard_s: list[tuple[float, str]] = []  # the same, and when
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Reads all the time, as systemd does."""
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                if select.select([self.socket], [], [], 0.05)[0]:
                    self.read()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def __enter__(self) -> ServiceStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        self.socket.close()

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "FDSTORE": str(self.size)}

    def read(self) -> list[str]:
        """Takes all that has been sent; the messages, ``heard`` so far."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while True:
                # Python 3.9's recv_fds goes on after a truncated message without a word.
                data, control, flags, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
                assert not flags & socket.MSG_CTRUNC
                fds = array.array("i")
                for level, kind, content in control:
                    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                    fds.frombytes(content)
                self._take(data.decode(), list(fds))
        return self.heard

    def _take(self, message: str, fds: list[int]) -> None:
        self.heard.append(message)
        self.heard_s.append((time.monotonic(), message))
        fields = dict(line.partition("=")[::2] for line in message.splitlines())
        name = fields.get("FDNAME", "stored")
        if fields.get("FDSTOREREMOVE") == "1" and name in self.fds:
            os.close(self.fds.pop(name))
        for fd in fds:
            if fields.get("FDSTORE") == "1" and len(self.fds) < self.size:
                assert name not in self.fds, f"{name} is stored twice"
                assert fields["FDPOLL"] == "0"
                self.fds[name] = fd
            else:
                os.close(fd)

    def prefix(self) -> tuple[str, ...]:
        """The command that starts the next process; it must inherit ``fds``."""
        if not self.fds:
            return ()
        numbers, names = ",".join(map(str, self.fds.values())), ",".join(self.fds)
        return (sys.executable, "-m", "lab.keeping", numbers, names)


def run_with(numbers: Sequence[int], names: Sequence[str], argv: list[str]) -> None:
    """Becomes the program ``argv``, which gets the descriptors as systemd passes them."""
    spare = [fcntl.fcntl(fd, fcntl.F_DUPFD, SPARE) for fd in numbers]
    os.closerange(3, SPARE)
    for place, fd in enumerate(spare, 3):
        os.dup2(fd, place)
        os.close(fd)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(spare)), LISTEN_FDNAMES=":".join(names))
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    run_with([int(number) for number in sys.argv[1].split(",")], sys.argv[2].split(","), sys.argv[3:])
