"""The kernel's clock beside this process's: in a time namespace (time_namespaces(7)) they differ by days.

Programs get the time from bpf_ktime_get_ns(), which no namespace changes. Without a correction, flows would lie in the
past or in the future by the difference.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Callable

from netobs.base import clock
from netobs.kernel import ebpf, libbpf
from netobs.kernel.ebpf import R0, R1, R2, R3, R4, R6

log = logging.getLogger("netobs.capture")

SAMPLES = 3
TOLERANCE_NS = 1_000_000
"""The largest difference of two readings of one clock; namespaces differ by seconds."""
_FRAME = bytes(64)
KTIME_GET_NS = 5  # enum bpf_func_id


def follow() -> None:
    """Makes ``netobs.base.clock`` return the kernel's time, whatever namespace this process is in.

    If the kernel does not run the program that reads its clock, the two are assumed to be one clock.
    """
    try:
        offset_ns = _difference_ns()
    except OSError as error:
        log.debug("the kernel's clock cannot be read: %s", error.strerror)
        return
    if offset_ns:
        clock.move(offset_ns)
        log.info(
            "this process is in a time namespace, %.3f s from the kernel's clock, which flows are dated by",
            offset_ns / clock.NS_PER_S,
        )


def _code() -> bytes:
    """A program that writes the time over the first 8 octets of its frame."""
    code = ebpf.Assembler()
    end = code.label()
    code.move(R6, R1)
    code.call(KTIME_GET_NS)
    code.load(R2, 4, R6, ebpf.SKB_DATA)
    code.load(R3, 4, R6, ebpf.SKB_DATA_END)
    code.move(R4, R2)
    code.operate(ebpf.ADD, R4, value=8, width=64)
    code.branch(end, ebpf.JGT, R4, by=R3, width=64)
    code.store(R2, 0, R0, 8)
    code.place(end)
    code.operate(ebpf.MOV, R0, value=0)
    code.exit()
    return code.assemble()


def _difference_ns() -> int:
    fd = libbpf.load_program(libbpf.PROG_TYPE_SCHED_CLS, "netobs_time", _code())
    with contextlib.closing(os.fdopen(fd, "rb", buffering=0)):
        return difference_ns(lambda: int.from_bytes(libbpf.run_program(fd, _FRAME)[:8], sys.byteorder))


def difference_ns(kernel_ns: Callable[[], int]) -> int:
    """How far ``kernel_ns`` is ahead of ``clock.monotonic_ns``; 0 if they are one clock."""
    best = None
    for _ in range(SAMPLES):
        before = clock.monotonic_ns()
        kernel = kernel_ns()
        after = clock.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, kernel - (before + after) // 2)
    assert best is not None
    took_ns, offset_ns = best
    return offset_ns if abs(offset_ns) > took_ns + TOLERANCE_NS else 0
