"""Whether flows that differ in little find slots of their own: the hash of percpu_array is ours."""

from __future__ import annotations

import ipaddress
import os
from typing import Callable

import numpy as np
import numpy.typing as npt
import pytest

from lab import frames as f
from lab.prog_run import Programs, get, on_cpu
from netobs.datapath.layout import SETTINGS, SLOT_PROBES
from netobs.datapath.percpu_array import LEAST_SLOTS
from tests.kernel.flows import LOOPBACK
from tests.kernel.numbered import packet, source

CANDIDATES = 1 << 18
pytestmark = pytest.mark.kernel


def _gre(src: str, dst: str) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.GRE, bytes(8), src=src, dst=dst))


def _host(interface_id: bytes) -> str:
    return str(ipaddress.IPv6Address(b"\xfd" + bytes(7) + interface_id))


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
    "IPv6 hosts that mirror each other": lambda n: f.ethernet(
        f.IPV6, f.ipv6(f.UDP, f.udp(), src=_host(n.to_bytes(8, "big")), dst=_host(n.to_bytes(8, "little")))
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


def test_flows_for_one_bucket_are_for_many_in_the_next_run() -> None:
    """Who knows the hash, and does not know the keys of a run, can make no flows that share their places."""
    with Programs(max_flows=LEAST_SLOTS) as one, Programs(max_flows=LEAST_SLOTS) as other:
        hashes = _hashes(_keys(one), np.arange(CANDIDATES, dtype="u8"))
        chosen = np.flatnonzero(hashes % LEAST_SLOTS == 7)
        assert len(chosen) > 100
        frames = [packet(int(number)) for number in chosen]
        overflows = []
        for programs in (one, other):
            with on_cpu(max(os.sched_getaffinity(0))):
                assert len(programs.observe(*frames).records) == len(frames)
            overflows.append(programs.table.occupancy()["overflow"])
    assert overflows[0] == len(frames) - SLOT_PROBES
    assert overflows[1] <= len(frames) // 16


def _keys(programs: Programs) -> npt.NDArray[np.uint64]:
    settings = get(programs.map_fd(".rodata"), np.uint32(0), SETTINGS.itemsize)
    assert settings is not None
    keys: npt.NDArray[np.uint64] = np.frombuffer(settings, SETTINGS)["hash_keys"][0]
    assert (keys % 2 == 1).all()
    return keys


def _hashes(keys: npt.NDArray[np.uint64], numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """slot_hash() of bpf/flow.bpf.h for the flows of ``packet``."""
    mapped, shift = 0xFFFF << 32, np.uint64(32)
    src = np.uint64(mapped | 10 << 24) | numbers
    dst = np.uint64(mapped | int(ipaddress.IPv4Address(f.DST4)))
    ports, place = f.SPORT | f.DPORT << 16 | LOOPBACK << 32, f.UDP << 16 | 1 << 24
    rest = np.array([(ports ^ place << 40) % (1 << 64)], dtype="u8") * keys[2]
    hosts = src * keys[0] + np.array([dst]) * keys[1]
    folded = (hosts ^ hosts >> shift ^ rest ^ rest >> np.uint64(31)) * np.uint64(0x9FB21C651E98DF25)
    result: npt.NDArray[np.uint64] = folded >> np.uint64(40)
    return result
