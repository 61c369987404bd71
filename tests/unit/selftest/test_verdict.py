"""What the selftest calls wrong: each kind of difference is in the check that it belongs to, and in no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from netobs.collector.decode import DecodeStats
from netobs.datapath.ledger import Count, LedgerReading
from netobs.selftest.expected import EGRESS, INGRESS, Expected, Flow
from netobs.selftest.verdict import Outcome, judge

INDEX = 7
NOON_NS = 1_767_268_800_000_000_000  # 2026-01-01T12:00:00Z
OUT = Flow(EGRESS, "192.0.2.1", "192.0.2.2", 6, 1000, 2000, 100)
IN = Flow(INGRESS, "2001:db8::2", "2001:db8::1", 58, 0, 129 << 8)
ACCOUNT, TIMES, EXPORT = "seen = exported + ledger", "times of flows", "IPFIX over UDP: 3 records in 1 Messages"


def expected() -> Expected:
    """Two flows, and ARP."""
    made = Expected()
    made.add("TCP", OUT, 4, 400, {"tcpControlBits": 0x1B, "minimumTTL": 64, "sourceMacAddress": "02:00:00:00:00:01"})
    made.add("TCP", OUT, 6, 600, {})
    made.add("echo", IN, 3, 240, {"minimumTTL": 64})
    made.add_to_ledger("not_ip", 2, 84)
    return made


def record(flow: Flow, packets: int, octets: int, **elements: Any) -> dict[str, Any]:
    version = 6 if ":" in flow.source else 4
    is_in = flow.direction == INGRESS
    return {
        f"sourceIPv{version}Address": flow.source,
        f"destinationIPv{version}Address": flow.destination,
        "protocolIdentifier": flow.protocol,
        "sourceTransportPort": flow.source_port,
        "destinationTransportPort": flow.destination_port,
        "flowDirection": flow.direction,
        "vlanId": flow.vlan if is_in else 0,
        "postVlanId": 0 if is_in else flow.vlan,
        "ingressInterface": INDEX if is_in else 0,
        "egressInterface": 0 if is_in else INDEX,
        "packetDeltaCount": packets,
        "octetDeltaCount": octets,
        "tcpControlBits": 0,
        "minimumTTL": 64,
        "sourceMacAddress": "02:00:00:00:00:01",
        "flowStartMilliseconds": "2026-01-01T12:00:00.100Z",
        "flowEndMilliseconds": "2026-01-01T12:00:00.900Z",
        **elements,
    }


def right() -> Outcome:
    """What comes back if all is right; the first flow in two records, of which each has a part of the flags."""
    records = [
        record(OUT, 9, 900, tcpControlBits=0x1A),
        record(OUT, 1, 100, tcpControlBits=0x11),
        record(IN, 3, 240),
    ]
    decoded = DecodeStats(messages=1, flows=3)
    ledger = LedgerReading(Count(15, 1324), {"not_ip": Count(2, 84), "ring_full": Count(0, 0)})
    return Outcome(records, decoded, ledger, INDEX, NOON_NS, NOON_NS + 1_000_000_000)


def failed(outcome: Outcome) -> dict[str, list[str]]:
    """The differences of each check that failed."""
    return {check.name: check.differences for check in judge(expected(), outcome) if not check.ok}


def test_what_is_right_passes() -> None:
    checks = {check.name: check for check in judge(expected(), right())}
    assert {*checks} == {"TCP", "echo", "no other flow", "in the ledger: not IP (ARP)", ACCOUNT, EXPORT, TIMES}
    assert failed(right()) == {}
    assert (checks["TCP"].sent.packets, checks["TCP"].exported.octets) == (10, 1000)
    assert checks[ACCOUNT].as_json() == {
        "name": ACCOUNT, "ok": True, "sent": {"packets": 15, "octets": 1324},
        "exported": {"packets": 15, "octets": 1324}, "differences": [],
    }  # fmt: skip


def _change(number: int, **elements: Any) -> Callable[[Outcome], None]:
    return lambda outcome: outcome.records[number].update(elements)


def _ledger(seen: Count, **reasons: Count) -> Callable[[Outcome], None]:
    def change(outcome: Outcome) -> None:
        outcome.ledger = LedgerReading(seen, {**outcome.ledger.reasons, **reasons})

    return change


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (_change(0, packetDeltaCount=8), {"TCP", ACCOUNT}),
        (_change(0, octetDeltaCount=901), {"TCP", ACCOUNT}),
        (_change(0, tcpControlBits=0x18), {"TCP"}),
        (_change(1, minimumTTL=63), {"TCP"}),
        (_change(1, sourceMacAddress="02:00:00:00:00:02"), {"TCP"}),
        (_change(2, ingressInterface=8), {"echo"}),
        (_change(2, egressInterface=8), {"echo"}),
        (_change(0, postVlanId=101), {"TCP", "no other flow"}),
        (_change(2, flowDirection=EGRESS), {"echo", "no other flow"}),
        (_change(2, flowStartMilliseconds="2026-01-01T11:59:58.999Z"), {TIMES}),
        (_change(2, flowEndMilliseconds="2026-01-01T12:00:02.001Z"), {TIMES}),
        (_change(2, flowEndMilliseconds="2026-01-01T12:00:00.099Z"), {TIMES}),
        (lambda outcome: outcome.records.pop(), {"echo", ACCOUNT}),
        (lambda outcome: outcome.records.append(record(IN, 3, 240)), {"echo", ACCOUNT}),
        (_ledger(Count(16, 1366), not_ip=Count(3, 126)), {"in the ledger: not IP (ARP)", ACCOUNT}),
        (_ledger(Count(16, 1424), ring_full=Count(1, 100)), {"in the ledger: ring_full", ACCOUNT}),
        (_ledger(Count(16, 1324)), {ACCOUNT}),
        (lambda outcome: setattr(outcome.decoded, "lost_records", 1), {EXPORT}),
    ],
)
def test_what_is_wrong_is_found(change: Callable[[Outcome], object], wrong: set[str]) -> None:
    outcome = right()
    change(outcome)
    assert {*failed(outcome)} == wrong


def test_a_difference_says_of_what_and_by_how_much() -> None:
    outcome = right()
    outcome.records[0]["packetDeltaCount"] = 8
    outcome.records[2]["flowDirection"] = EGRESS
    found = failed(outcome)
    where = "192.0.2.1 port 1000 -> 192.0.2.2 port 2000, protocol 6, VLAN 100"
    assert found["TCP"] == [f"out, {where}: 9 packets of 10: 1 too few"]
    (stranger,) = found["no other flow"]
    assert stranger.startswith("out, 2001:db8::2 port 0 -> 2001:db8::1 port 33024, protocol 58: 3 packets, 240 octets")
