"""Reads the files that an operator names, and refuses those that are not regular files or are far too long."""

from __future__ import annotations

import errno
import os
import stat

MIB = 1 << 20


def read_file(path: str | os.PathLike[str], most_mib: int) -> bytes:
    """The whole file. Never waits for a writer, as opening a FIFO would.

    Also reads the unnamed pipes that a shell substitutes for a file: ``<(command)``, /dev/stdin.

    Raises OSError, with a readable reason, or ValueError if no file can have this path.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if stat.S_ISFIFO(mode) and not os.path.exists(os.path.realpath(path)):
            os.set_blocking(fd, True)
        elif not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
        data, part = bytearray(), b"-"
        while part and len(data) <= most_mib * MIB:
            part = os.read(fd, MIB)
            data += part
    finally:
        os.close(fd)
    if len(data) > most_mib * MIB:
        raise OSError(errno.EFBIG, f"is longer than {most_mib} MiB", os.fspath(path))
    return bytes(data)
