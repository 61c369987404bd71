"""Packets that were once judged wrongly (tests/cases/frames.json), in both directions, by a test run and on a wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import frames as f
from lab.namespaces import Link
from lab.prog_run import Observed, Programs
from lab.wire import Sender, exchange, measured
from tests.kernel.flows import readable

pytestmark = pytest.mark.kernel

CASES = {
    case["id"]: case for case in json.loads((Path(__file__).parents[1] / "cases" / "frames.json").read_text("utf-8"))
}
FIELDS = {
    "octets": "octets",
    "protocol": "protocol",
    "source_port": "src_port",
    "destination_port": "dst_port",
    "vlan": "vlan_id",
}
NOT_FIELDS = {"ledger", "or_ledger", "same_at_ingress_and_egress", "icmp_type_code_or_port"}


def frame_of(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["frame"]).ljust(case.get("pad_to", 0), b"\0")


def check(case: dict[str, Any], observed: Observed) -> None:
    expected = case["expected"]
    assert set(expected) <= {*FIELDS, *NOT_FIELDS}
    if "ledger" in expected:
        assert len(observed.records) == 0
        assert observed.reasons == {expected["ledger"]: (1, len(frame_of(case)))}
        return
    (row,) = readable(observed.records)
    wanted = {name: value for name, value in expected.items() if name in FIELDS}
    assert {name: row[FIELDS[name]] for name in wanted} == wanted


@pytest.mark.parametrize("program", ["netobs_ingress", "netobs_egress"])
@pytest.mark.parametrize("name", CASES)
def test_case(programs: Programs, name: str, program: str) -> None:
    check(CASES[name], programs.observe(frame_of(CASES[name]), program=program))


@pytest.fixture(scope="module")
def ends(pair: tuple[Link, Link]) -> Iterator[tuple[Sender, Programs, Programs]]:
    """A sender, the programs where its frames leave, and those where they arrive."""
    egress, ingress = measured(pair[0], direction="egress"), measured(pair[1], direction="ingress")
    with egress as leaving, ingress as arriving, Sender(pair[0]) as sender:
        yield sender, leaving, arriving


def both(ends: tuple[Sender, Programs, Programs], frame: bytes) -> list[Observed]:
    """What both ends make of ``frame``; the same, but for interface and direction."""
    sender, leaving, arriving = ends
    with arriving.accounting() as arrived:
        left = exchange(leaving, sender, [frame])
    rows = [readable(observed.records) for observed in (left, arrived[0])]
    for row in (row for part in rows for row in part):
        del row["ifindex"], row["direction"]
    assert rows[0] == rows[1]
    assert left.reasons == arrived[0].reasons
    return [left, arrived[0]]


@pytest.mark.parametrize("name", CASES)
def test_case_on_a_wire(ends: tuple[Sender, Programs, Programs], name: str) -> None:
    for observed in both(ends, frame_of(CASES[name])):
        check(CASES[name], observed)


IP4 = f.ipv4(f.UDP, f.udp())
ALIKE = {
    "arp in a vlan": f.ethernet(*f.tag(f.Q, 7, f.ARP, bytes(28))),
    "arp in two vlans": f.ethernet(*f.tag(f.AD, 7, *f.tag(f.Q, 8, f.ARP, bytes(28)))),
    "lldp in a priority tag": f.ethernet(*f.tag(f.Q, 0, f.LLDP, bytes(50))),
    "malformed in a vlan": f.ethernet(*f.tag(f.Q, 7, f.IPV4, f.ipv4(f.UDP, f.udp(), version=5))),
    "extension headers in a vlan": f.ethernet(
        *f.tag(f.Q, 7, f.IPV6, f.ipv6(*f.chain([f.extension(f.DEST)] * 70, f.UDP, f.udp())))
    ),
    "five tags": f.ethernet(
        *f.tag(f.AD, 1, *f.tag(f.Q, 2, *f.tag(f.Q, 3, *f.tag(f.Q, 4, *f.tag(f.Q, 5, f.IPV4, IP4)))))
    ),
    "priority tag around a vlan": f.ethernet(*f.tag(f.Q, 0, *f.tag(f.Q, 7, f.IPV4, IP4), priority=5)),
    "pppoe in a vlan": f.ethernet(*f.tag(f.Q, 7, *f.pppoe(f.PPP_IPV4, IP4), priority=3)),
    "pppoe": f.ethernet(*f.pppoe(f.PPP_IPV6, f.ipv6(f.UDP, f.udp()))),
    "mpls in a vlan": f.ethernet(*f.tag(f.Q, 7, *f.mpls(IP4, labels=2), priority=3)),
    "snap in a vlan": f.ethernet(*f.tag(f.Q, 7, *f.snap(f.IPV4, IP4), priority=3)),
    "snap": f.ethernet(*f.snap(f.IPV4, IP4)),
}


@pytest.mark.parametrize("name", ALIKE)
def test_both_ends_agree(ends: tuple[Sender, Programs, Programs], name: str) -> None:
    """One tag travels in the metadata of a packet that arrives."""
    both(ends, ALIKE[name])
