"""File descriptors: a TCX link takes one as long as it lives, and all else that the process does needs some, too."""

from __future__ import annotations

import errno
import os
import resource

RESERVE = 128
"""So many stay free of links: an eviction maps memory, collectors and clients are sockets, a spool is files."""


def raise_limit() -> int:
    """Lifts RLIMIT_NOFILE as far as it may be lifted; what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def limit() -> int:
    """RLIMIT_NOFILE, as it is."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def reserve(of_limit: int) -> int:
    """What is kept of a limit; of a small one half."""
    return min(RESERVE, of_limit // 2)


def check_room(open_fd: int) -> None:
    """Before a descriptor is taken for good: are enough left? ``open_fd`` is any that is open.

    :raises OSError: EMFILE: there are not; the text says how many there are, and who may have more.
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
    """What to say where ``most`` descriptors are not enough."""
    return (
        f"each interface and direction takes a file descriptor, this process may have {most} (RLIMIT_NOFILE), and "
        f"{reserve(most)} are kept for evictions and collectors; raise LimitNOFILE= of the unit, or ulimit -n"
    )
