"""The capabilities of this thread (capabilities(7)): those set aside stay permitted, and are taken up for a moment."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterator

from netobs.base.libc import LIBC

NET_ADMIN, PERFMON, BPF = 1 << 12, 1 << 38, 1 << 39
"""The bits of those that netobs needs (linux/capability.h)."""

_HEADER = struct.pack("=Ii", 0x20080522, 0)  # linux/capability.h: _LINUX_CAPABILITY_VERSION_3, this thread
_SETS = struct.Struct("=6I")
"""Effective, permitted, inheritable: the low words, then the high ones (struct __user_cap_data_struct)."""


def _read() -> tuple[int, int, int]:
    buffer = ctypes.create_string_buffer(_SETS.size)
    LIBC.capget(_HEADER, buffer)
    low, high = _SETS.unpack(buffer.raw)[:3], _SETS.unpack(buffer.raw)[3:]
    effective, permitted, inheritable = (word | above << 32 for word, above in zip(low, high))
    return effective, permitted, inheritable


def _use(effective: int) -> None:
    _, permitted, inheritable = _read()
    words = (effective & permitted, permitted, inheritable)
    low, high = [word & 0xFFFFFFFF for word in words], [word >> 32 for word in words]
    LIBC.capset(_HEADER, _SETS.pack(*low, *high))


def in_effect() -> int:
    """The effective set, a bit for each capability."""
    return _read()[0]


def set_aside(mask: int) -> None:
    """Takes the capabilities of ``mask`` out of effect. Threads that are started from now on are without them, too;
    programs that are executed are not concerned."""
    _use(in_effect() & ~mask)


def give_up() -> None:
    """Drops all of them for good, as far as the kernel lets this thread."""
    LIBC.capset(_HEADER, bytes(_SETS.size))


@contextlib.contextmanager
def taken_up(mask: int) -> Iterator[None]:
    """The capabilities of ``mask`` are in effect, as far as this thread is permitted to have them."""
    before = in_effect()
    _use(before | mask)
    try:
        yield
    finally:
        _use(before)
