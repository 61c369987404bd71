"""The handle of the clsact filters of a capture without a daemon, beside the daemon and other captures."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from netobs.base.errors import CaptureError
from netobs.kernel.attach import FilterPlace

FIRST_HANDLE = 0x6E6F6300  # "noc"
MAX_PLACES = 256


@contextlib.contextmanager
def own_place() -> Iterator[FilterPlace]:
    """A place that no other process has while this one runs. A filter that a killed process left there is replaced.

    The lock is the name of an abstract Unix socket (unix(7)). Like an interface, it belongs to a network namespace, and
    it is free as soon as its owner has ended.

    :raises CaptureError: there are too many.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        for handle in range(FIRST_HANDLE, FIRST_HANDLE + MAX_PLACES):
            try:
                lock.bind(f"\0netobs-capture-{handle:x}")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        else:
            raise CaptureError(f"{MAX_PLACES} captures are running already", "end one: ss -xa lists netobs-capture")
        yield FilterPlace(handle)
