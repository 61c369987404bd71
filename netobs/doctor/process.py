"""The process of the daemon: its capabilities, its descriptors, and the memory that is left to it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from netobs.base.errors import NetobsError
from netobs.config import Config
from netobs.daemon import footprint
from netobs.datapath.memory import MIB, Room, rooms_of
from netobs.doctor.finding import DAEMON, Finding
from netobs.kernel import descriptors, host, privileges, requirements

_SPARE = 8
"""Descriptors that come and go with an eviction or a client."""


class Process(NamedTuple):
    """What /proc shows of the daemon. None: it does not show that to this process."""

    pid: int
    permitted: int | None
    descriptors: int | None
    max_descriptors: int | None
    max_locked_bytes: int | None
    unit: str
    """The systemd unit that it is in, "" if none."""


def look(pid: int, proc: Path = Path("/proc")) -> Process:
    """Reads the files of process ``pid`` (proc(5))."""
    folder = proc / str(pid)
    status = re.search(r"^CapPrm:\s*([0-9a-f]+)$", host.read_if_there(f"{folder}/status"), re.MULTILINE)
    limits = host.read_if_there(f"{folder}/limits")
    count = None
    with contextlib.suppress(OSError):
        count = len(os.listdir(folder / "fd"))
    unit = re.search(r"/([^/\n]+\.service)(?:/|$)", host.read_if_there(f"{folder}/cgroup"), re.MULTILINE)
    return Process(
        pid, int(status[1], 16) if status else None, count, _limit(limits, "open files"),
        _limit(limits, "locked memory"), unit[1] if unit else "",
    )  # fmt: skip


def is_elsewhere(pid: int) -> bool:
    """Whether the process is in another network namespace than this thread, as far as /proc shows it."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat("/proc/thread-self/ns/net").st_ino
    except OSError:
        return False


def _limit(limits: str, name: str) -> int | None:
    found = re.search(rf"^Max {name}\s+(\d+)\s", limits, re.MULTILINE)
    return int(found[1]) if found else None


def findings(process: Process, config: Config | None) -> Iterator[Finding]:
    """``config``: the daemon's, None if it cannot be read."""
    yield from _capabilities(process, config)
    if process.descriptors is not None and process.max_descriptors is not None:
        yield from _descriptors(process.descriptors, process.max_descriptors)
    release = os.uname().release
    if process.max_locked_bytes is not None and requirements.kernel_version(release) < requirements.MEMLOCK_UNTIL:
        yield Finding(
            "locked-memory", "warning",
            f"maps are locked memory in kernel {release}, and the daemon may lock {process.max_locked_bytes} bytes",
            (DAEMON,), "a larger flow table cannot be made",
            "set LimitMEMLOCK=infinity in the unit",
        )  # fmt: skip
    if config is not None:
        yield from _memory(process, config)


def _capabilities(process: Process, config: Config | None) -> Iterator[Finding]:
    if process.permitted is None:
        return
    missing = privileges.missing_in(process.permitted)
    if not missing:
        yield Finding("daemon-capabilities", "ok", "the daemon has the capabilities that it needs", (DAEMON,))
    elif config is not None and config.capture.drop_capabilities:
        yield Finding(
            "daemon-capabilities", "ok", f"the daemon has given up {', '.join(missing)}", (DAEMON,),
            "capture.drop_capabilities: some keys take effect at the next start only",
        )  # fmt: skip
    else:
        yield Finding(
            "daemon-capability-missing", "problem", f"the daemon lacks {', '.join(missing)}", (DAEMON,),
            "it cannot load programs again, or set filters on interfaces that appear",
            f"add {' '.join(missing)} to AmbientCapabilities= and CapabilityBoundingSet= of the unit",
        )  # fmt: skip


def _descriptors(used: int, most: int) -> Iterator[Finding]:
    room = most - descriptors.reserve(most)
    if used >= room - _SPARE:
        yield Finding(
            "descriptors-full", "problem", f"the daemon has {used} of {most} descriptors open", (DAEMON,),
            f"{descriptors.reserve(most)} are kept for evictions and collectors: no further interface gets a program",
            "raise LimitNOFILE= of the unit, or ulimit -n: each interface and direction takes one",
        )  # fmt: skip
    else:
        yield Finding("descriptors", "ok", f"the daemon has {used} of {most} descriptors open", (DAEMON,))


def _memory(process: Process, config: Config) -> Iterator[Finding]:
    """What the daemon takes when its flow cache and an eviction are full has to find room in its cgroup."""
    try:
        left: Room = min(rooms_of(f"/proc/{process.pid}"))
    except NetobsError:  # there is no /proc
        return
    needed = footprint.eviction_bytes(config)
    words = f"{left.whose} has {left.left_bytes / MIB:.0f} MiB left"
    if left.left_bytes < needed:
        yield Finding(
            "memory", "warning", f"{words}; an eviction of a full table takes {needed / MIB:.0f} MiB", (DAEMON,),
            "the kernel may end the daemon, which starts again and goes on with what it kept",
            "lower capture.max_flows and metering.max_flows, or raise MemoryMax= of the unit",
        )  # fmt: skip
    else:
        yield Finding("memory", "ok", f"{words} for the daemon", (DAEMON,))
