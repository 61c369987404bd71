"""The wall clock, which flows are dated by: whether it is synchronised."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from netobs.base.libc import LIBC
from netobs.doctor.finding import Finding
from netobs.kernel import host

_STA_UNSYNC = 0x40  # linux/timex.h
_ZERO_OFFSETS = {"0"}


class _Timex(ctypes.Structure):
    """struct timex of the C library (adjtimex(2)), up to the fields that are wanted."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror_us", ctypes.c_long),
        ("esterror_us", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    ]


def findings() -> Iterator[Finding]:
    """What adjtimex(2) says of it, and whether this process is in a time namespace."""
    timex = _Timex()
    if LIBC.adjtimex(ctypes.byref(timex)) >= 0:
        if timex.status & _STA_UNSYNC:
            yield Finding(
                "clock-not-synchronised", "warning", "nothing synchronises the wall clock (adjtimex: STA_UNSYNC)",
                netobs="flow times and Export Time are those of this clock", remedy="run chrony or systemd-timesyncd",
            )  # fmt: skip
        else:
            yield Finding("clock", "ok", f"the wall clock is synchronised to within {timex.maxerror_us / 1e3:.0f} ms")
    offsets = [line.split() for line in host.read_if_there("/proc/self/timens_offsets").splitlines()]
    if any(set(words[1:]) - _ZERO_OFFSETS for words in offsets):
        yield Finding("time-namespace", "note", "this process is in a time namespace", netobs="it corrects flow times")
