"""The wall clock, which flows are dated by: whether it is synchronised, and whether it was set while the daemon ran."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from netobs.base import clock
from netobs.base.clock import NS_PER_S
from netobs.base.libc import LIBC
from netobs.base.wall_clock import STEP_NS
from netobs.doctor.finding import DAEMON, Finding
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


def findings(pid: int, started_s: float | None) -> Iterator[Finding]:
    """``pid``: of the daemon, 0 if none runs; ``started_s``: when it started, by the wall clock of then."""
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
    if pid and started_s is not None:
        yield from stepped(pid, started_s)


def stepped(pid: int, started_s: float, proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Compares the two: the kernel knows the start of a process by a clock that nobody sets (proc(5), stat)."""
    fields = host.read_if_there(f"{proc}/{pid}/stat").rpartition(")")[2].split()
    uptime = host.read_if_there(f"{proc}/uptime").split()
    if len(fields) < 20 or not uptime:
        return
    age_s = float(uptime[0]) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    step_s = clock.read_pair().realtime_ns / NS_PER_S - age_s - started_s
    if abs(step_s) * NS_PER_S > STEP_NS + NS_PER_S:  # it says when it started a moment after its start
        yield Finding(
            "clock-stepped", "warning",
            f"the wall clock was set {'forward' if step_s > 0 else 'back'} by {abs(step_s):.0f} s while the daemon ran",
            (DAEMON,), "Export Time follows the clock; flows of before keep their times",
            "have chrony or systemd-timesyncd correct the clock at boot, before netobs starts",
        )  # fmt: skip
