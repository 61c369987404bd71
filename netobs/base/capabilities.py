"""The capabilities of this thread (capabilities(7)): those set aside stay permitted, and are taken up for a moment."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterator

from netobs.base.libc import LIBC

NET_ADMIN, PERFMON, BPF = 1 << 12, 1 << 38, 1 << 39
"""The bits of those that netobs needs (linux/capability.h)."""
DAC_OVERRIDE, KILL, SETGID, SETUID = 1 << 1, 1 << 5, 1 << 6, 1 << 7
"""Of those that root has besides."""
_PR_CAPBSET_DROP, _BITS = 24, 64  # linux/prctl.h

_HEADER = struct.pack("=Ii", 0x20080522, 0)  # linux/capability.h: _LINUX_CAPABILITY_VERSION_3, this thread
_SETS = struct.Struct("=6I")
"""Effective, permitted, inheritable: the low words, then the high ones (struct __user_cap_data_struct)."""


def _read() -> tuple[int, int, int]:
    buffer = ctypes.create_string_buffer(_SETS.size)
    LIBC.capget(_HEADER, buffer)
    low, high = _SETS.unpack(buffer.raw)[:3], _SETS.unpack(buffer.raw)[3:]
    effective, permitted, inheritable = (word | above << 32 for word, above in zip(low, high))
    return effective, permitted, inheritable


def _write(*words: int) -> None:
    low, high = [word & 0xFFFFFFFF for word in words], [word >> 32 for word in words]
    LIBC.capset(_HEADER, _SETS.pack(*low, *high))


def _use(effective: int) -> None:
    _, permitted, inheritable = _read()
    _write(effective & permitted, permitted, inheritable)


def in_effect() -> int:
    """The effective set, a bit for each capability."""
    return _read()[0]


def permitted() -> int:
    """The permitted set."""
    return _read()[1]


def set_aside(mask: int) -> None:
    """Takes the capabilities of ``mask`` out of effect. Threads that are started from now on are without them, too;
    programs that are executed are not concerned."""
    _use(in_effect() & ~mask)


def take_up(mask: int) -> None:
    """Puts the capabilities of ``mask`` into effect, as far as this thread is permitted to have them."""
    _use(in_effect() | mask)


def keep_only(mask: int, for_programs: int = 0) -> None:
    """Drops all others than those of ``mask`` for good. Programs that root executes later can have those of
    ``for_programs`` as well. Who lacks CAP_SETPCAP keeps the bounding set, which limits programs of root, and those
    that files give capabilities to."""
    for number in range(_BITS):
        if not (mask | for_programs) >> number & 1 and LIBC.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0):
            break  # it may not, or there are no more
    _write(*(each & mask for each in _read()))


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
