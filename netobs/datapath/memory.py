"""Checks that there is enough memory for the maps: on the host, and within the cgroups of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from netobs.base.errors import CaptureError
from netobs.kernel import host, requirements

MIB = 1 << 20
RECLAIMABLE = {"active_file", "inactive_file", "slab_reclaimable", "total_active_file", "total_inactive_file"}
"""In memory.stat: reclaimable memory of a cgroup. "total_": of version 1, with its children."""
_LIMITS = {"cgroup2": (("memory.max", "memory.high"), "memory.current"),
           "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes")}  # fmt: skip
_UNLIMITED = 1 << 60  # version 1 says the largest multiple of a page that fits


class Room(NamedTuple):
    """Available memory. ``whose``: the host or cgroup that has it, in words."""

    left_bytes: int
    whose: str


def room() -> Room:
    """The smallest of the host's available memory and the rest of each cgroup above this process.

    :raises CaptureError: there is no /proc.
    """
    return min(rooms_of("/proc/self"))


def rooms_of(process: str) -> list[Room]:
    """Of the host, and of each cgroup above the ``process``, a folder of /proc.

    :raises CaptureError: there is no /proc.
    """
    return [_host(), *(Room(left, f"the cgroup {folder}") for folder, left in _cgroups(process))]


def check_memory(max_flows: int, needed_bytes: int) -> None:
    """Before anything is allocated: the kernel would take memory from other programs, up to killing them.

    :raises CaptureError: the maps need more than there is left.
    """
    left_bytes, whose = room()
    if left_bytes < needed_bytes:
        raise CaptureError(
            f"capture.max_flows = {max_flows} needs {needed_bytes / MIB:.0f} MiB of kernel memory, "
            f"{whose} has {left_bytes / MIB:.0f} MiB left",
            "lower it",
            may_pass=True,
        )


def _host() -> Room:
    values = dict(line.split(":", 1) for line in host.read("/proc/meminfo").splitlines() if ":" in line)
    return Room(int(values["MemAvailable"].split()[0]) * 1024, "the host")


def _cgroups(process: str) -> Iterator[tuple[Path, int]]:
    """The cgroups of ``process`` that have a limit, and the rest of each. Before Linux 5.11 maps do not count there."""
    if requirements.kernel_version(os.uname().release) < requirements.MEMLOCK_UNTIL:
        return
    for kind, folder, top in memory_folders(
        host.read_if_there(f"{process}/cgroup"), host.read_if_there("/proc/self/mountinfo")
    ):
        for level in (folder, *folder.parents):
            left = _left_bytes(level, *_LIMITS[kind])
            if left is not None:
                yield level, left
            if level == top:
                break


def memory_folders(cgroup: str, mountinfo: str) -> Iterator[tuple[str, Path, Path]]:
    """(type, folder of this process, mount point) of each hierarchy with the memory controller that is mounted.

    ``cgroup``, ``mountinfo``: as in /proc/self (cgroups(7), proc(5)). What both name is seen from the cgroup namespace;
    where a part of the hierarchy is mounted that this process is not in, its top is the nearest that can be seen.
    """
    paths = {}
    for line in cgroup.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            paths["cgroup2" if number == "0" else "cgroup"] = path
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in paths or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        _, _, _, root, top = before.split(" ")[:5]
        folder = Path(top, os.path.relpath(paths[kind], root))
        yield kind, folder if ".." not in folder.parts and folder.is_dir() else Path(top), Path(top)


def _left_bytes(folder: Path, limits: tuple[str, ...], usage: str) -> int | None:
    """The rest of a cgroup; None if it has no limit, as at the root of the hierarchy, or does not tell."""
    texts = [host.read_if_there(f"{folder}/{name}").strip() for name in limits]
    numbers = [int(text) for text in texts if text.isdigit() and int(text) < _UNLIMITED]
    used = host.read_if_there(f"{folder}/{usage}").strip()
    if not numbers or not used.isdigit():
        return None
    stat = dict(line.split(" ", 1) for line in host.read_if_there(f"{folder}/memory.stat").splitlines() if " " in line)
    names = RECLAIMABLE if usage == "memory.current" else {name for name in RECLAIMABLE if name.startswith("total_")}
    reclaimable = sum(int(stat.get(name, 0)) for name in names)
    return max(min(numbers) - int(used) + reclaimable, 0)
