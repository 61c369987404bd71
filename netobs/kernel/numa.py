"""On which NUMA nodes the kernel puts the memory of maps.

The pages of an array map come from the node of the thread that creates the map. For each packet, the CPUs of all other
nodes would read and write memory of that node. Interleaved, each node has a share of the pages, and no memory
controller has all of the accesses. (A map cannot have the slots of each CPU on the node of that CPU.)
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator

from netobs.base.libc import checked
from netobs.kernel import host

log = logging.getLogger("netobs.capture")

NODES_WITH_MEMORY = "/sys/devices/system/node/has_memory"
MPOL_DEFAULT, MPOL_INTERLEAVE = 0, 3  # include/uapi/linux/mempolicy.h
_CALLS = {
    "x86_64": (238, 239),
    "aarch64": (237, 236),
    "riscv64": (237, 236),
    "loongarch64": (237, 236),
    "ppc64le": (261, 260),
}
"""Numbers of set_mempolicy and get_mempolicy."""
_SYSCALL = ctypes.CDLL(None, use_errno=True).syscall
_SYSCALL.restype = ctypes.c_long
_WORD_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)


def nodes(listed: str) -> list[int]:
    """The numbers of a list as /sys writes it: ``0-2,5``."""
    ranges = [part.partition("-") for part in listed.strip().split(",") if part]
    return [node for first, _, last in ranges for node in range(int(first), int(last or first) + 1)]


def policy() -> int:
    """The memory policy of this thread (MPOL_*); it is MPOL_DEFAULT unless somebody set it.

    :raises OSError: the kernel refused, or has no NUMA.
    """
    mode = ctypes.c_int()
    _call(1, ctypes.byref(mode), None, ctypes.c_ulong(0), None, ctypes.c_ulong(0))
    return mode.value


def _set_policy(mode: int, among: list[int]) -> None:
    words = (ctypes.c_ulong * (max(among, default=0) // _WORD_BITS + 1))()
    for node in among:
        words[node // _WORD_BITS] |= 1 << node % _WORD_BITS
    # The kernel takes one bit less than it is told (mm/mempolicy.c: get_nodes).
    _call(0, ctypes.c_long(mode), words if among else None, ctypes.c_ulong(len(words) * _WORD_BITS + 1))


def _call(which: int, *arguments: object) -> None:
    machine = os.uname().machine
    numbers = _CALLS.get(machine)
    if numbers is None:
        raise OSError(0, f"the numbers of its system calls on {machine} are not known")
    checked(_SYSCALL(ctypes.c_long(numbers[which]), *arguments))


def with_memory() -> list[int]:
    """The nodes that have memory; none where the kernel has no NUMA."""
    return nodes(host.read_if_there(NODES_WITH_MEMORY))


@contextlib.contextmanager
def interleaved(among: list[int]) -> Iterator[None]:
    """Memory that the kernel allocates for this thread in the block comes from the nodes ``among``, in turn.

    Leaves a policy alone that somebody chose for this process (numactl(8), NUMAPolicy= of the unit).
    """
    changed = _interleave(among)
    try:
        yield
    finally:
        if changed:
            _set_policy(MPOL_DEFAULT, [])


def _interleave(among: list[int]) -> bool:
    try:
        if policy() != MPOL_DEFAULT:
            return False
        _set_policy(MPOL_INTERLEAVE, among)
    except OSError as error:
        log.info("the flow table is on one of %d NUMA nodes: set_mempolicy: %s", len(among), error.strerror)
        return False
    return True
