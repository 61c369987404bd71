"""A process of the test that is killed at a chosen line of the code, and what it leaves to the next one.

The process is a fork of the test. It counts the lines that it executes in ``netobs/export``, and sends itself SIGKILL
at the line with the chosen number. So a kill falls between any two lines, at the same place for the same number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any, Callable

CODE = f"{os.sep}netobs{os.sep}export{os.sep}"


class Store:
    """What dying processes have kept: descriptors by name, which came through a socket."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self._here, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def read(self) -> Store:
        """Takes what has come."""
        self._here.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                name, fds, _, _ = socket.recv_fds(self._here, 64, 1)
                self.drop(name.decode())
                if fds:
                    self.fds[name.decode()] = fds[0]
        return self

    def drop(self, name: str) -> None:
        if name in self.fds:
            os.close(self.fds.pop(name))

    def close(self) -> None:
        self._here.close()
        self.there.close()
        for name in list(self.fds):
            self.drop(name)


class SocketKeeper:
    """The ``Keeper`` of a process that gives its descriptors to ``store``, which the test has to ``read`` after it."""

    keeps = True

    def __init__(self, store: Store) -> None:
        self._former = dict(store.fds)
        self._store = store
        self._own: list[int] = []

    def former(self, name: str) -> int | None:
        return self._former.get(name)

    def names(self) -> frozenset[str]:
        return frozenset(self._former)

    def memory(self, name: str) -> int:
        fd = os.memfd_create(name)
        self._own.append(fd)
        self.keep(name, fd)
        return fd

    def keep(self, name: str, fd: int) -> None:
        socket.send_fds(self._store.there, [name.encode()], [fd])

    def drop(self, name: str) -> None:
        self._former.pop(name, None)
        self._store.there.send(name.encode())

    def close(self) -> None:
        for fd in self._own:
            os.close(fd)


def _count_lines(last: int) -> Callable[[FrameType, str, Any], Any]:
    left = [last]

    def on_line(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return on_line if CODE in frame.f_code.co_filename else None

    return on_call


def run(work: Callable[[], None], die_at: int) -> bool:
    """Runs ``work`` in a process that dies at the line number ``die_at``. Returns whether it died before the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child uses no lock that they may hold
        pid = os.fork()
    if not pid:
        code = 1
        try:
            sys.settrace(_count_lines(die_at))
            work()
            sys.settrace(None)
            code = 0
        except BaseException:  # noqa: BLE001  it must not go on as a second pytest
            sys.settrace(None)
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or not os.WEXITSTATUS(status), "the process failed: see its traceback"
    return os.WIFSIGNALED(status)


def lines_of(work: Callable[[], None]) -> int:
    """How many lines ``work`` executes in a process of its own."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def counted() -> None:
        sys.settrace(None)
        total = [0]

        def on_line(frame: FrameType, event: str, _argument: Any) -> Any:
            total[0] += event == "line"
            return on_line

        sys.settrace(lambda frame, _event, _argument: on_line if CODE in frame.f_code.co_filename else None)
        work()
        sys.settrace(None)
        there.sendall(total[0].to_bytes(8, "little"))

    with here, there:
        assert not run(counted, 0)
        return int.from_bytes(here.recv(8), "little")


@contextlib.contextmanager
def store() -> Iterator[Store]:
    made = Store()
    try:
        yield made
    finally:
        made.close()
