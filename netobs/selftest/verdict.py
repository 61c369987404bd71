"""Compares what came back with what was sent."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from netobs.base.clock import NS_PER_S
from netobs.collector.decode import DecodeStats
from netobs.collector.received import Record
from netobs.datapath.ledger import LedgerReading
from netobs.selftest.expected import INGRESS, Count, Expected, Flow, Sent

REASONS = {"not_ip": "not IP (ARP)", "malformed": "malformed", "ext_headers": "too many IPv6 extension headers"}
"""Of the ledger, in words."""
CLOCK_TOLERANCE_NS = NS_PER_S
"""Flow times are as exact as the kernel's tick; a clock that is wrong is wrong by more."""


@dataclass
class Check:
    """One thing that was looked at, and its ``differences``: none if all is right."""

    name: str
    sent: Count = field(default_factory=Count)
    exported: Count = field(default_factory=Count)
    differences: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        """For ``netobs selftest --json``."""
        return {"ok": self.ok, **asdict(self)}

    def compare(self, what: str, exported: Count, sent: Count) -> None:
        """Notes by how much the counts differ."""
        for unit in ("packets", "octets"):
            got, wanted = getattr(exported, unit), getattr(sent, unit)
            if got != wanted:
                by = f"{abs(got - wanted):,} too {'many' if got > wanted else 'few'}"
                self.differences.append(f"{what}: {got:,} {unit} of {wanted:,}: {by}")


class Received(Count):
    """The records of one flow, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def take(self, record: Record) -> None:
        """One more record."""
        self.add(record["packetDeltaCount"], record["octetDeltaCount"])
        self.records.append(record)

    def value(self, element: str) -> Any:
        """What the records say together; text of all values where they contradict each other."""
        values = [record[element] for record in self.records]
        if element == "tcpControlBits":
            return functools.reduce(operator.or_, values)
        if element.startswith(("minimum", "maximum")):
            return min(values) if element.startswith("minimum") else max(values)
        return values[0] if len({*values}) == 1 else " and ".join(map(str, values))


@dataclass
class Outcome:
    """What came back: Flow Records as ``collector`` decoded them, its counters, and the daemon's ledger at its end.

    ``index``: of the measured interface; ``began_ns``, ``ended_ns``: when it was measured, in ns since 1970.
    """

    records: list[Record]
    decoded: DecodeStats
    ledger: LedgerReading
    index: int
    began_ns: int
    ended_ns: int


def judge(expected: Expected, outcome: Outcome) -> list[Check]:
    """Every check, the flows first."""
    received: dict[Flow, Received] = {}
    for record in outcome.records:
        received.setdefault(flow_of(record), Received()).take(record)
    strangers = {flow: received[flow] for flow in received if flow not in expected.flows}
    return [
        *_flow_checks(expected, received, outcome.index),
        _strangers(strangers),
        *_ledger_checks(expected, outcome.ledger),
        _account(expected, outcome),
        _export(outcome),
        _times(outcome),
    ]


def flow_of(record: Record) -> Flow:
    """The flow that a record is of. A packet's VLAN is postVlanId at egress."""
    source, destination = (
        record.get(f"{end}IPv4Address") or record[f"{end}IPv6Address"] for end in ("source", "destination")
    )
    direction = record["flowDirection"]
    ports = record["sourceTransportPort"], record["destinationTransportPort"]
    vlan = record["vlanId" if direction == INGRESS else "postVlanId"]
    return Flow(direction, source, destination, record["protocolIdentifier"], *ports, vlan)


def _flow_checks(expected: Expected, received: dict[Flow, Received], index: int) -> list[Check]:
    """One for each kind of traffic."""
    checks: dict[str, Check] = {}
    for flow, sent in expected.flows.items():
        check = checks.setdefault(sent.kind, Check(sent.kind))
        got = received.get(flow, Received())
        check.sent.add(sent.packets, sent.octets)
        check.exported.add(got.packets, got.octets)
        check.compare(str(flow), got, sent)
        check.differences += _elements(flow, sent, got, index)
    return [*checks.values()]


def _elements(flow: Flow, sent: Sent, received: Received, index: int) -> Iterator[str]:
    interfaces = {"ingressInterface": index, "egressInterface": 0}
    if flow.direction != INGRESS:
        interfaces = {"ingressInterface": 0, "egressInterface": index}
    if received.records:
        for element, wanted in {**interfaces, **sent.elements}.items():
            value = received.value(element)
            if value != wanted:
                yield f"{flow}: {element} {value}, not {wanted}"


def _strangers(strangers: dict[Flow, Received]) -> Check:
    check = Check("no other flow")
    for flow, received in strangers.items():
        check.exported.add(received.packets, received.octets)
        check.differences.append(f"{flow}: {received}, which nobody sent")
    return check


def _ledger_checks(expected: Expected, ledger: LedgerReading) -> Iterator[Check]:
    """One for each reason for which packets are in no flow, and one more for each that nobody caused."""
    for reason, found in ledger.reasons.items():
        sent = expected.ledger.get(reason, Count())
        if sent.packets or found.packets:
            count = Count(found.packets, found.octets)
            check = Check(f"in the ledger: {REASONS.get(reason, reason)}", sent, count)
            check.compare("ledger", count, sent)
            yield check


def _account(expected: Expected, outcome: Outcome) -> Check:
    """seen = exported + ledger, and seen is what was sent."""
    seen = Count(outcome.ledger.seen.packets, outcome.ledger.seen.octets)
    accounted = Count(outcome.ledger.not_in_flows.packets, outcome.ledger.not_in_flows.octets)
    for record in outcome.records:
        accounted.add(record["packetDeltaCount"], record["octetDeltaCount"])
    check = Check("seen = exported + ledger", expected.total, seen)
    check.compare("seen, compared with sent", seen, expected.total)
    check.compare("exported and in the ledger, compared with seen", accounted, seen)
    return check


def _export(outcome: Outcome) -> Check:
    """No Message was lost or damaged on the way to the collector."""
    check = Check(f"IPFIX over UDP: {outcome.decoded.flows} records in {outcome.decoded.messages} Messages")
    for name in ("malformed", "lost_records", "sequence_errors", "sets_without_template", "surplus_octets"):
        count = getattr(outcome.decoded, name)
        if count:
            check.differences.append(f"{count} {name.replace('_', ' ')}")
    return check


def _times(outcome: Outcome) -> Check:
    """Each flow lies within the time of the test."""
    check = Check("times of flows")
    least, most = outcome.began_ns - CLOCK_TOLERANCE_NS, outcome.ended_ns + CLOCK_TOLERANCE_NS
    for record in outcome.records:
        start, end = (_since_1970_ns(record[f"flow{which}Milliseconds"]) for which in ("Start", "End"))
        if not least <= start <= end <= most:
            said = f"{record['flowStartMilliseconds']} to {record['flowEndMilliseconds']}"
            check.differences.append(f"{flow_of(record)}: from {said}, which is not when it was sent")
    return check


def _since_1970_ns(text: str) -> int:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    return round(moment.timestamp() * 1000) * 1_000_000
