"""Many interfaces: what it costs to attach to them, and how capture.attach = "auto" keeps that low.

The kernel waits for a grace period at each TCX link that is made or closed, and holds the lock of all interfaces (RTNL)
meanwhile (net/tcx.h: tcx_entry_sync); others wait at "ip link add". A filter waits for nothing. docs/performance.md has
the figures. But a filter needs a clsact qdisc, and where that is, nobody can add an ingress qdisc, with which Open
vSwitch, libvirt and container networks limit rates; most do so when they make an interface. And a TCX program of
somebody else can keep packets from all filters.

So "auto" makes TCX links, except where it finds more than ``MANY`` interfaces at once: those beyond the first get
filters, unless there is Open vSwitch or a TCX program of others. Interfaces that come later get links.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from netobs.base import capabilities, clock
from netobs.base.clock import NS_PER_S
from netobs.kernel import libbpf
from netobs.kernel.attach import BPF_TCX
from netobs.kernel.interfaces import Interface

MANY = 32
SWITCH = "openvswitch"
"""The kind of the interfaces of Open vSwitch itself, ovs-system among them, which is there as long as it works."""
LONGEST_PAUSE_NS = 20_000_000
_LINK_S, _FILTER_S = 0.015, 0.0015
"""Until a program is attached; for filters with the pauses."""


class AttachingCost(NamedTuple):
    """What it costs to attach by TCX links to some interfaces, and by filters to others."""

    links: int
    filters: int
    seconds: float
    """Until all are attached. A stop takes less, as it does not pause."""
    others_ms: int
    """How much longer others wait at ``ip link add`` meanwhile."""
    files: int
    """Descriptors."""

    @property
    def is_high(self) -> bool:
        """Whether it is worth a word."""
        return self.links + self.filters > MANY


def cost(interfaces: int, filters: int, directions: int) -> AttachingCost:
    """``filters``: how many of the ``interfaces`` get filters."""
    links = interfaces - filters
    seconds = directions * (links * _LINK_S + filters * _FILTER_S) + links * LONGEST_PAUSE_NS / NS_PER_S
    return AttachingCost(links, filters, seconds, round(1000 * (_LINK_S if links else _FILTER_S)), links * directions)


def rested_ns(began_ns: int) -> int:
    """When the next slice of attaching may begin after one that began at ``began_ns`` and ends now: others who wait for
    the kernel's lock of all interfaces have as long as the slice took, at most ``LONGEST_PAUSE_NS``."""
    now_ns = clock.monotonic_ns()
    return now_ns + min(now_ns - began_ns, LONGEST_PAUSE_NS)


def for_filters(present: Sequence[Interface], wanted: Sequence[Interface]) -> set[int]:
    """The indices of the ``wanted`` ones that get filters: not the oldest, which are the host's own, as a rule."""
    if any(interface.kind == SWITCH for interface in present):
        return set()
    return {interface.index for interface in sorted(wanted, key=lambda each: each.index)[MANY:]}


def has_tcx_programs(ifindex: int, direction: str) -> bool:
    """Whether there are TCX programs on this hook of interface ``ifindex``."""
    count = ctypes.c_uint32(0)
    with capabilities.taken_up(capabilities.NET_ADMIN):
        result: int = libbpf.library().bpf_prog_query(ifindex, BPF_TCX[direction], 0, None, None, ctypes.byref(count))
    return result == 0 and count.value > 0
