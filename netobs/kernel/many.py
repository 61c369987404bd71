"""Many interfaces: what it costs to attach to them, and how capture.attach = "auto" keeps that low.

The kernel waits for a grace period at each TCX link that is made or closed, and holds the lock of all interfaces (RTNL)
meanwhile (net/tcx.h: tcx_entry_sync); others wait at "ip link add". A filter waits for nothing. docs/performance.md has
the figures. So "auto" makes TCX links on the first ``MANY`` interfaces, which are the host's own ones, and filters on
the others, the taps of guests. But a TCX program of somebody else can keep packets from all filters: where there is
one, ours is a TCX program, too.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from netobs.base import capabilities
from netobs.kernel import libbpf
from netobs.kernel.attach import BPF_TCX

MANY = 32
_LINK_S, _FILTER_S = 0.015, 0.0015
"""Until a program is attached."""


@dataclass(frozen=True)
class AttachingCost:
    """For a number of interfaces: how many get TCX links and how many get filters, and what that costs."""

    by_tcx: int
    by_tc: int
    seconds: float
    """Until all are attached. Links take as long to close."""
    others_ms: int
    """How much longer others wait at ``ip link add`` meanwhile."""


def cost(interfaces: int, directions: int, method: str, mixes: bool) -> AttachingCost:
    """``method``: tcx or tc; ``mixes``: filters may be used instead of links beyond ``MANY``."""
    by_tcx = 0 if method == "tc" else min(interfaces, MANY) if mixes else interfaces
    by_tc = interfaces - by_tcx
    seconds = directions * (by_tcx * _LINK_S + by_tc * _FILTER_S)
    return AttachingCost(by_tcx, by_tc, seconds, round(1000 * (_LINK_S if by_tcx else _FILTER_S)))


def has_tcx_programs(ifindex: int, direction: str) -> bool:
    """Whether there are TCX programs on this hook of interface ``ifindex``."""
    count = ctypes.c_uint32(0)
    with capabilities.taken_up(capabilities.NET_ADMIN):
        result: int = libbpf.library().bpf_prog_query(ifindex, BPF_TCX[direction], 0, None, None, ctypes.byref(count))
    return result == 0 and count.value > 0
