"""The kernel's clock beside this process's: in a time namespace (time_namespaces(7)) they differ by days.

Programs get the time from bpf_ktime_get_ns(), which no namespace changes. Without a correction, flows would lie in the
past or in the future by the difference.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import sys
from typing import Callable

from netobs.base import clock
from netobs.kernel import libbpf

log = logging.getLogger("netobs.capture")

SAMPLES = 3
TOLERANCE_NS = 1_000_000
"""The largest difference of two readings of one clock; namespaces differ by seconds."""
_FRAME = bytes(64)
_INSTRUCTIONS = (  # code, source << 4 | destination, offset, constant
    (0xBF, 0x16, 0, 0),  # r6 = context
    (0x85, 0x00, 0, 5),  # r0 = bpf_ktime_get_ns()
    (0x61, 0x62, 76, 0),  # r2 = context->data
    (0x61, 0x63, 80, 0),  # r3 = context->data_end
    (0xBF, 0x24, 0, 0),
    (0x07, 0x04, 0, 8),
    (0x2D, 0x34, 1, 0),  # the frame has 8 octets, or
    (0x7B, 0x02, 0, 0),  # they are the time
    (0xB7, 0x00, 0, 0),
    (0x95, 0x00, 0, 0),
)
_CODE = b"".join(struct.pack("=BBhi", *each) for each in _INSTRUCTIONS)


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


def _difference_ns() -> int:
    fd = libbpf.load_program(libbpf.PROG_TYPE_SCHED_CLS, "netobs_time", _CODE)
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
