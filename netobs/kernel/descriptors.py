"""File descriptors: each TCX link keeps one, and the other parts of the process need some as well."""

from __future__ import annotations

import errno
import os
import resource

RESERVE = 128
"""Descriptors that links leave free: evictions map memory, collectors and clients are sockets, a spool is files."""


def raise_limit() -> int:
    """Raises RLIMIT_NOFILE as far as allowed; returns the new limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def limit() -> int:
    """RLIMIT_NOFILE, as it is."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def reserve(of_limit: int) -> int:
    """The reserve of a limit; half of a small one."""
    return min(RESERVE, of_limit // 2)


def check_room(open_fd: int) -> None:
    """Checks that enough descriptors are left, before a link takes one. ``open_fd`` is any open descriptor.

    :raises OSError: EMFILE: too few are left; the text gives the limit, and how to raise it.
    """
    most = limit()
    try:
        lowest = os.dup(open_fd)  # a descriptor is the lowest free number
        os.close(lowest)
    except OSError:
        lowest = most
    if lowest >= most - reserve(most):
        raise OSError(errno.EMFILE, shortage(most))


def shortage(most: int) -> str:
    """The message if ``most`` descriptors are not enough."""
    return (
        f"each interface and direction takes a file descriptor, this process may have {most} (RLIMIT_NOFILE), and "
        f"{reserve(most)} are kept for evictions and collectors; raise LimitNOFILE= of the unit, or ulimit -n"
    )
