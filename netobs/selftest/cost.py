"""What the programs cost: the time that the kernel needs for a packet of a known flow."""

from __future__ import annotations

import os
import struct
import sys

from netobs.config import CaptureConfig
from netobs.datapath.datapath import Datapath
from netobs.kernel import libbpf, methods
from netobs.selftest import frames as f

REPEAT, SERIES = 10_000, 20
"""A series has so many runs; the fastest of the series counts, as others run on the host, too."""
_FRAME = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(100))))
_RETURNS_NEXT = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = -1; exit


def measure(config: CaptureConfig) -> tuple[str, dict[str, int]]:
    """The way in which this kernel attaches (tcx or tc), and the cost in ns for ``ingress``, ``egress``, and for an
    ``empty`` program, which is part of the other two. The programs are loaded for it, and attached to nothing.

    :raises CaptureError: they cannot be loaded, or not be attached by ``config.attach``.
    """
    datapath = Datapath(config)
    empty_fd = -1
    try:
        datapath.load()
        method = methods.possible(config.attach, datapath.program_fd("netobs_ingress"))
        empty_fd = libbpf.load_program(libbpf.PROG_TYPE_SCHED_CLS, "netobs_empty", _RETURNS_NEXT)
        programs = {name: datapath.program_fd(f"netobs_{name}") for name in ("ingress", "egress")}
        cost: dict[str, int] = {}
        for _ in range(SERIES):
            for name, fd in {**programs, "empty": empty_fd}.items():
                cost[name] = min(libbpf.time_program(fd, _FRAME, REPEAT), cost.get(name, sys.maxsize))
            datapath.read_ring()  # a full ring would be another case
        return method, cost
    finally:
        if empty_fd >= 0:
            os.close(empty_fd)
        datapath.close()
