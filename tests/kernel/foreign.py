"""Other people's programs and filters on an interface, and what the kernel says is there."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
from ctypes import byref, c_int, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from lab.namespaces import Lab, Link, in_namespace
from lab.prog_run import declared, get, kernel_id
from netobs.kernel import libbpf, libbpf_types
from netobs.kernel.attach import BPF_TC_POINT, BPF_TCX, TC_HANDLE
from netobs.kernel.object import BpfObject

SOURCE = Path(__file__).with_name("foreign.bpf.c")
HANDLE = 0x77


def compile_foreign(folder: Path) -> Path:
    """The object of foreign.bpf.c."""
    return compile_bpf(SOURCE, folder)


def compile_bpf(source: Path, folder: Path) -> Path:
    """The object of a test's own programs."""
    target = folder / source.with_suffix(".o").name
    include = f"/usr/include/{os.uname().machine}-linux-gnu"  # Debian's place for <asm/types.h>
    argv = ["clang", "-O2", "-g", "-target", "bpf", "-idirafter", include, "-c", str(source), "-o", str(target)]
    subprocess.run(argv, check=True, timeout=60)
    return target


class Foreign:
    """The foreign programs, loaded; what they have counted."""

    def __init__(self, path: Path) -> None:
        self._object = BpfObject(path)
        self._object.load()
        self._links: list[int] = []

    def __enter__(self) -> Foreign:
        return self

    def __exit__(self, *exc: object) -> None:
        for link in self._links:
            os.close(link)
        self._object.close()

    def program_id(self, program: str = "foreign_count") -> int:
        return kernel_id(self._object.program_fd(program))

    def _count(self, which: int) -> int:
        value = get(self._object.map_fd("packets"), np.uint32(which), 8)
        assert value is not None
        return int.from_bytes(value, "little")

    @property
    def counted(self) -> int:
        return self._count(0)

    @property
    def dropped(self) -> int:
        return self._count(1)

    def attach_tcx(self, link: Link, direction: str, program: str = "foreign_count", flags: int = 0) -> None:
        """``flags``: 0 = behind all that are there, BPF_F_BEFORE = in front."""
        options = libbpf_types.LinkCreateOpts(ctypes.sizeof(libbpf_types.LinkCreateOpts), flags)
        fd = self._object.program_fd(program)
        with in_namespace(link.ns):
            create = libbpf.library().bpf_link_create
            created = create(fd, link.ifindex, BPF_TCX[direction], byref(options))
        self._links.append(libbpf.checked(created, "foreign TCX link"))

    def take_over(self, link: int, program: str = "foreign_count") -> None:
        """Puts the program into a TCX link of somebody else's, which the kernel knows by the number ``link``."""
        fd = libbpf.checked(declared("bpf_link_get_fd_by_id", c_uint32)(link), "link")
        update = declared("bpf_link_update", c_int, c_int, c_void_p)
        try:
            libbpf.checked(update(fd, self._object.program_fd(program), None), "update of a link")
        finally:
            os.close(fd)

    def attach_tc(self, link: Link, direction: str, priority: int, program: str = "foreign_count") -> None:
        """A direct-action filter, as `tc filter add … bpf direct-action` makes it; and clsact, if there is none."""
        lib = libbpf.library()
        hook = libbpf_types.TcHook(ctypes.sizeof(libbpf_types.TcHook), link.ifindex, BPF_TC_POINT[direction], 0)
        fd = self._object.program_fd(program)
        options = libbpf_types.TcOpts(ctypes.sizeof(libbpf_types.TcOpts), fd, 0, 0, HANDLE, priority)
        with in_namespace(link.ns):
            lib.bpf_tc_hook_create(byref(hook))
            libbpf.checked(lib.bpf_tc_attach(byref(hook), byref(options)), "foreign filter")

    def detach_tc(self, link: Link, direction: str, priority: int) -> None:
        """Removes the filter; with these objects only links go by themselves."""
        hook = libbpf_types.TcHook(ctypes.sizeof(libbpf_types.TcHook), link.ifindex, BPF_TC_POINT[direction], 0)
        options = libbpf_types.TcOpts(ctypes.sizeof(libbpf_types.TcOpts), 0, 0, 0, HANDLE, priority)
        with in_namespace(link.ns):
            libbpf.checked(libbpf.library().bpf_tc_detach(byref(hook), byref(options)), "foreign filter")


def tcx_programs(link: Link, direction: str) -> list[int]:
    """The kernel's numbers of the TCX programs, in the order in which they run (bpftool knows TCX from 7.3 only).
    None on a kernel before 6.6, which has no TCX."""
    numbers, count, flags = (c_uint32 * 64)(), c_uint32(64), c_uint32()
    query = declared("bpf_prog_query", c_int, c_int, c_uint32, c_void_p, c_void_p, c_void_p)
    with in_namespace(link.ns):
        result = query(link.ifindex, BPF_TCX[direction], 0, byref(flags), numbers, byref(count))
    if result == -errno.EINVAL and tuple(map(int, os.uname().release.split(".")[:2])) < (6, 6):
        return []
    libbpf.checked(result, "query of TCX programs")
    return list(numbers[: count.value])


def filters(lab: Lab, link: Link, direction: str) -> list[dict[str, Any]]:
    """The filters that tc lists, without the lines that only announce a priority."""
    listed = json.loads(lab.run(link.ns, ["tc", "-j", "filter", "show", "dev", link.name, direction]).stdout or "[]")
    return [entry for entry in listed if "handle" in entry.get("options", {}) or "fh" in entry.get("options", {})]


def handles(lab: Lab, link: Link, direction: str) -> list[int]:
    """The handles of the BPF filters, in order."""
    return [int(entry["options"]["handle"], 16) for entry in filters(lab, link, direction) if entry["kind"] == "bpf"]


def ours(lab: Lab, link: Link) -> int:
    """How many filters have our handle, in both directions."""
    return sum(handles(lab, link, direction).count(TC_HANDLE) for direction in BPF_TC_POINT)


def qdiscs(lab: Lab, link: Link) -> list[str]:
    """The kinds of the qdiscs of an interface."""
    listed = json.loads(lab.run(link.ns, ["tc", "-j", "qdisc", "show", "dev", link.name]).stdout)
    return [entry["kind"] for entry in listed]
