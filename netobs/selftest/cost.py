"""What the programs cost: the time that the kernel needs for a packet of a known flow (BPF_PROG_TEST_RUN).

The kernel runs them on a frame that comes from loopback, and they count it as they count any other.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping

from netobs.kernel import libbpf
from netobs.kernel.object import refused
from netobs.selftest import frames as f
from netobs.selftest.expected import EGRESS, INGRESS, Expected, Flow
from netobs.selftest.links import LOOPBACK_INDEX

DIRECTIONS = {"ingress": INGRESS, "egress": EGRESS}
REPEAT, SERIES = 5_000, 10
"""A series has so many runs. The fastest series counts, as others run on the host, too. All of them fit the ring
buffer."""
_PAYLOAD_OCTETS, _OCTETS = 100, 128
_FRAME = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(_PAYLOAD_OCTETS))))
_NAME = "netobs_empty"
_RETURNS_NEXT = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = -1; exit


class Cost:
    """Has an empty program, to compare with: loaded at once, before rights are dropped."""

    def __init__(self) -> None:
        """Raises CaptureError if the kernel refuses the program."""
        try:
            self._empty_fd = libbpf.load_program(libbpf.PROG_TYPE_SCHED_CLS, _NAME, _RETURNS_NEXT)
        except OSError as error:
            raise refused(_NAME, error.errno or 0, libbpf.take_warnings, {}) from error

    def measure(self, programs: Mapping[str, int], expected: Expected) -> dict[str, int]:
        """ns for a packet by ``ingress`` and ``egress`` of ``programs`` (their descriptors), and by an ``empty``
        program, which is part of the other two.

        :raises OSError: the kernel refused.
        """
        cost: dict[str, int] = {}
        for _ in range(SERIES):
            for name, fd in {**programs, "empty": self._empty_fd}.items():
                cost[name] = min(libbpf.time_program(fd, _FRAME, REPEAT), cost.get(name, sys.maxsize))
        for name in programs:
            _add(expected, DIRECTIONS[name])
        return cost

    def close(self) -> None:
        """Frees the empty program."""
        os.close(self._empty_fd)


def _add(expected: Expected, direction: int) -> None:
    flow = Flow(direction, f.SRC4, f.DST4, f.UDP, f.SPORT, f.DPORT)
    elements = {"sourceMacAddress": f.SRC_MAC, "destinationMacAddress": f.DST_MAC, "minimumIpTotalLength": _OCTETS}
    interface = "ingressInterface" if direction == INGRESS else "egressInterface"
    elements.update(maximumIpTotalLength=_OCTETS, ipClassOfService=f.TOS, minimumTTL=f.TTL, maximumTTL=f.TTL)
    elements[interface] = LOOPBACK_INDEX
    expected.add("test runs of the programs", flow, SERIES * REPEAT, SERIES * REPEAT * _OCTETS, elements)
