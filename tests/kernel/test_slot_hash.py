"""Whether flows that differ in little find slots of their own: the hash of percpu_array is ours."""

from __future__ import annotations

import os
from typing import Callable

import pytest

from lab import frames as f
from lab.prog_run import Programs, on_cpu
from netobs.datapath.percpu_array import LEAST_SLOTS
from tests.kernel.numbered import packet, source

pytestmark = pytest.mark.kernel


def _gre(src: str, dst: str) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.GRE, bytes(8), src=src, dst=dst))


FLOWS_THAT_DIFFER_IN: dict[str, Callable[[int], bytes]] = {
    "source": packet,
    "destination net": lambda n: f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(), dst=f"{n % 200 + 1}.{n // 200}.0.1")),
    "source port": lambda n: f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(sport=n))),
    "destination port": lambda n: f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(dport=n))),
    "both ports": lambda n: f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(sport=n, dport=n))),
    "same address twice": lambda n: _gre(source(n), source(n)),
    "hosts of two nets": lambda n: _gre(f"10.0.0.{n % 23}", f"10.0.1.{n // 23}"),
    "hosts of one net": lambda n: _gre(f"10.0.0.{n % 23}", f"10.0.0.{n // 23}"),
    "vlan and port": lambda n: f.ethernet(*f.tag(f.Q, n % 23, f.IPV4, f.ipv4(f.UDP, f.udp(dport=n // 23)))),
    "icmp": lambda n: f.ethernet(f.IPV4, f.ipv4(f.ICMP, f.icmp(n % 256, n // 256))),
    "protocol and source": lambda n: f.ethernet(f.IPV4, f.ipv4(100 + n % 100, bytes(8), src=source(n // 100))),
    "vlan": lambda n: f.ethernet(*f.tag(f.Q, n, f.IPV4, f.ipv4(f.UDP, f.udp()))),
    "IPv6 interface id": lambda n: f.ethernet(f.IPV6, f.ipv6(f.UDP, f.udp(), src=f"2001:db8::{n:x}")),
    "IPv6 prefix": lambda n: f.ethernet(f.IPV6, f.ipv6(f.UDP, f.udp(), dst=f"2001:db8:{n:x}::1")),
    "IPv6 hosts of one net": lambda n: f.ethernet(
        f.IPV6, f.ipv6(f.UDP, f.udp(), src=f"fd00::{n % 23:x}", dst=f"fd00::{n // 23:x}")
    ),
    "IPv6 nets": lambda n: f.ethernet(
        f.IPV6, f.ipv6(f.UDP, f.udp(), src=f"fd00:0:{n % 23:x}::1", dst=f"fd00:0:{n // 23:x}::1")
    ),
    "IPv6 both": lambda n: f.ethernet(f.IPV6, f.ipv6(f.UDP, f.udp(), src=f"fd00::{n:x}", dst=f"fd00:{n:x}::")),
}


@pytest.mark.parametrize("what", FLOWS_THAT_DIFFER_IN)
def test_hash_spreads_flows_over_the_slots(what: str) -> None:
    """Slots half full: by chance one flow in 40 finds all its places taken."""
    flows = LEAST_SLOTS // 2
    with Programs(max_flows=LEAST_SLOTS) as programs, on_cpu(max(os.sched_getaffinity(0))):
        observed = programs.observe(*[FLOWS_THAT_DIFFER_IN[what](number) for number in range(flows)])
        levels = programs.table.occupancy()
    assert sum(levels.values()) == len(observed.records) == flows
    assert levels["overflow"] <= flows // 16
