"""The BPF programs, maps and links of the whole kernel, by number. Needs CAP_SYS_ADMIN (kernel/bpf/syscall.c:
bpf_obj_get_next_id, bpf_prog_get_fd_by_id). Changes nothing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Collection, Iterator
from ctypes import byref, c_uint32
from pathlib import Path
from typing import Any, Callable, NamedTuple

from netobs.kernel import libbpf
from netobs.kernel.libbpf_types import MapInfo, ProgramInfo, TcxLinkInfo

MOST_MAPS = 64
"""Of a program; more are not listed."""
_TCX_LINK = 11  # enum bpf_link_type
_HANDLES = {"anon_inode:bpf-prog", "anon_inode:bpf_link"}


class Program(NamedTuple):
    """A loaded program. ``kind``: enum bpf_prog_type; ``name``: up to 15 characters; ``tag``: a hash of its
    instructions, in hexadecimal; ``maps``: their numbers."""

    number: int
    kind: int
    name: str
    tag: str
    uid: int
    maps: tuple[int, ...]


class Map(NamedTuple):
    """A map. ``kind``: enum bpf_map_type."""

    number: int
    kind: int
    name: str
    key_bytes: int
    value_bytes: int
    max_entries: int


def program(number: int) -> Program | None:
    """The program with this number; None if it is gone.

    :raises PermissionError: this process may not ask.
    """
    maps = (c_uint32 * MOST_MAPS)()
    info = ProgramInfo(nr_map_ids=MOST_MAPS, map_ids=ctypes.addressof(maps))
    if not _describe(libbpf.library().bpf_prog_get_fd_by_id, number, info):
        return None
    used = tuple(maps[: min(info.nr_map_ids, MOST_MAPS)])
    return Program(info.id, info.type, _text(info.name), bytes(info.tag).hex(), info.created_by_uid, used)


def map_of(number: int) -> Map | None:
    """The map with this number; None if it is gone.

    :raises PermissionError: this process may not ask.
    """
    info = MapInfo()
    if not _describe(libbpf.library().bpf_map_get_fd_by_id, number, info):
        return None
    return Map(info.id, info.type, _text(info.name), info.key_size, info.value_size, info.max_entries)


def programs() -> Iterator[Program]:
    """All programs.

    :raises PermissionError: this process may not ask.
    """
    for number in _numbers(libbpf.library().bpf_prog_get_next_id):
        found = program(number)
        if found is not None:
            yield found


def tcx_links() -> Iterator[tuple[int, int, int]]:
    """(program's number, interface's index, enum bpf_attach_type) of each TCX link, in whatever network namespace.

    :raises PermissionError: this process may not ask.
    """
    for number in _numbers(libbpf.library().bpf_link_get_next_id):
        info = TcxLinkInfo()
        if _describe(libbpf.library().bpf_link_get_fd_by_id, number, info) and info.type == _TCX_LINK:
            yield info.prog_id, info.ifindex, info.attach_type


def _numbers(next_of: Callable[[int, Any], int]) -> Iterator[int]:
    number = c_uint32(0)
    while (result := next_of(number.value, byref(number))) == 0:
        yield number.value
    if result != -errno.ENOENT:
        libbpf.checked(result, "list of BPF objects")


def _describe(open_by: Callable[[int], int], number: int, info: ctypes.Structure) -> bool:
    """Fills ``info``. False if the object is gone, or a link that is just made (EAGAIN)."""
    result = open_by(number)
    if result in (-errno.ENOENT, -errno.EAGAIN):
        return False
    fd = libbpf.checked(result, f"BPF object {number}")
    try:
        size = c_uint32(ctypes.sizeof(info))
        libbpf.checked(libbpf.library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), f"BPF object {number}")
    finally:
        os.close(fd)
    return True


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def holders(numbers: Collection[int], proc: Path = Path("/proc")) -> dict[int, str]:
    """By the number of a program, ``NAME (process PID)`` of one that has it, or a link of it, open (proc(5), fdinfo).
    Those that this process may not look at are left out."""
    found: dict[int, str] = {}
    for folder in (each for each in proc.iterdir() if each.name.isdecimal()):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            for fd in os.listdir(folder / "fd"):
                if os.readlink(folder / "fd" / fd) in _HANDLES:
                    number = _program_in((folder / "fdinfo" / fd).read_text("ascii"))
                    if number in numbers and number not in found:
                        found[number] = (
                            f"{(folder / 'comm').read_text('utf-8', 'replace').strip()} (process {folder.name})"
                        )
        if len(found) == len(numbers):
            break
    return found


def _program_in(fdinfo: str) -> int:
    line = re.search(r"^prog_id:\s+(\d+)$", fdinfo, re.MULTILINE)
    return int(line[1]) if line else 0
