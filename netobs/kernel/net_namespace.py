"""Steps of this thread from one network namespace into another (setns(2), unshare(2))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from netobs.base.libc import LIBC, checked

CLONE_NEWNET = 0x40000000  # linux/sched.h


def own() -> int:
    """A descriptor of the namespace that this thread is in. It keeps the namespace alive."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(fd: int) -> None:
    """Steps into the namespace ``fd``.

    :raises OSError: EPERM without CAP_SYS_ADMIN.
    """
    checked(LIBC.setns(fd, CLONE_NEWNET))


def enter_new() -> None:
    """Steps into a new namespace, which goes when nobody is in it and nobody has a descriptor of it or of a socket.

    :raises OSError: EPERM without CAP_SYS_ADMIN; ENOSPC: the user has too many (/proc/sys/user/max_net_namespaces).
    """
    checked(LIBC.unshare(CLONE_NEWNET))


@contextlib.contextmanager
def inside(fd: int) -> Iterator[None]:
    """This thread is in the namespace ``fd`` meanwhile. Sockets that it opens there stay in that namespace.

    :raises OSError: the namespace cannot be entered, or the former one not again.
    """
    home = own()
    try:
        enter(fd)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)
