"""What is on a hook of an interface, in the order in which a packet passes it: TCX, then clsact filters."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Collection
from typing import NamedTuple

from netobs.base import capabilities
from netobs.kernel import libbpf, netlink
from netobs.kernel.attach import BPF_TCX, TC_HANDLE

MAX_PROGRAMS = 64
"""On one TCX hook (linux/bpf_mprog.h: BPF_MPROG_MAX)."""


class Place(NamedTuple):
    """``position`` of ``of``, from 1 on."""

    position: int
    of: int


def tcx_programs(ifindex: int, direction: str) -> list[int]:
    """The numbers of the TCX programs on this hook, in their order. Takes the kernel's lock of all interfaces.

    :raises OSError: the kernel refused; EINVAL where it has no TCX.
    """
    numbers, count = (ctypes.c_uint32 * MAX_PROGRAMS)(), ctypes.c_uint32(MAX_PROGRAMS)
    with capabilities.taken_up(capabilities.NET_ADMIN):
        result = libbpf.library().bpf_prog_query(ifindex, BPF_TCX[direction], 0, None, numbers, ctypes.byref(count))
    libbpf.checked(result, "TCX programs")
    return numbers[: count.value]


def place_of(ifindex: int, direction: str, method: str, ours: Collection[int]) -> Place | None:
    """Where our program is, which ``method`` (tcx, tc) has put there: one with a number of ``ours``, or the filter with
    our handle. None if it cannot be found. Takes the kernel's lock of all interfaces."""
    try:
        numbers = tcx_programs(ifindex, direction)
    except OSError as error:
        if error.errno != errno.EINVAL:
            return None
        numbers = []
    handles = [handle for handle, _ in netlink.filters(ifindex, netlink.TC_H_CLSACT[direction]) if handle]
    order = [method == "tcx" and number in ours for number in numbers]
    order += [method == "tc" and handle == TC_HANDLE for handle in handles]
    return Place(order.index(True) + 1, len(order)) if True in order else None
