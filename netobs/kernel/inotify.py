"""Names that appear in a folder and vanish (inotify(7))."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from netobs.base.libc import LIBC, checked

IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO = 0x100, 0x200, 0x40, 0x80
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x4000, 0x8000, 0x01000000
_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK  # IN_CLOEXEC and IN_NONBLOCK have these values
_EVENT = struct.Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name
_READ_BYTES = 65_536


class NameEvent(NamedTuple):
    """``appeared``: the name is new. ``lost``: names are not known any more, list them again; no name then."""

    name: str
    appeared: bool = False
    lost: bool = False


def watch(folder: str) -> int:
    """A descriptor that is readable when names appear in ``folder`` or vanish; it does not block.

    :raises OSError: there is no such folder, or too many are watched.
    """
    fd = checked(LIBC.inotify_init1(_CLOEXEC_NONBLOCK))
    try:
        mask = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR
        checked(LIBC.inotify_add_watch(fd, os.fsencode(folder), mask))
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_events(fd: int) -> Iterator[NameEvent]:
    """The events that have arrived, oldest first.

    :raises OSError: ``fd`` is no inotify descriptor.
    """
    try:
        data = os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return
    offset = 0
    while offset < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
        offset += length
        yield NameEvent(name, bool(mask & (IN_CREATE | IN_MOVED_TO)), bool(mask & (IN_Q_OVERFLOW | IN_IGNORED)))
