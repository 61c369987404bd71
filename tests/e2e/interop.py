"""The comparison of what a collector shows with what was sent, field by field."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Callable

from lab.daemon import KEPT, Account, Counts, Daemon, Table, configuration
from lab.namespaces import Lab, Link
from netobs.encode.protocols import exporter
from netobs.encode.template.template import Template
from tests.e2e.conversations import Flow, send, source_of

CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; its resolution is the kernel's tick
TICK_NS = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
TIME_TOLERANCE_NS = TICK_NS * 5 // 4 + 1_000_000
"""A tick, the quarter of one that netobs stays behind it (capture/tick.py), and the millisecond of the export."""
LOADED_NS = 250_000_000
"""What a packet may wait, on a busy machine, between tcpdump's time stamp and the flow table: most do not wait."""
ONCE = {"eviction_interval": "1h"}
"""[capture] for tests that compare Flow Records: all packets of a flow are in one, flows that end by FIN too."""

COUNTS = ("packetDeltaCount", "octetDeltaCount")

ABSENT = object()
"""Stands for a value that a collector does not show."""


def as_it_is(shown: Any) -> Any:
    return shown


@dataclass(frozen=True)
class Shows:
    """A field of a collector's output: which elements it comes from, and what must stand there.

    ``expected(flow)`` may be ``ABSENT``; ``read`` makes what is shown comparable with it. Times may be off by
    ``usual_ns`` in the middle of all flows, and by ``LOADED_NS`` more in each.
    """

    elements: str
    expected: Callable[[Flow], Any]
    read: Callable[[Any], Any] = as_it_is
    usual_ns: int = 0

    def fits(self, flow: Flow, shown: Any) -> bool:
        expected = self.expected(flow)
        if expected is ABSENT or shown is ABSENT:
            return expected is shown
        if self.usual_ns:
            return self.off_ns(flow, shown) <= self.usual_ns + LOADED_NS
        return bool(self.read(shown) == expected)

    def off_ns(self, flow: Flow, shown: Any) -> int:
        return int(abs(self.read(shown) - self.expected(flow)))


def element(names: str, read: Callable[[Any], Any] = as_it_is, otherwise: Any = ABSENT) -> Shows:
    """A field that is an element as it is, the first of ``names`` that the flow has; else ``otherwise``."""
    return Shows(names, lambda flow: next((flow[name] for name in names.split() if name in flow), otherwise), read)


def moment(name: str, read: Callable[[Any], int], usual_ns: int = TIME_TOLERANCE_NS) -> Shows:
    """A time; ``read`` makes it ns since 1970."""
    return Shows(name, lambda flow: flow[name], read, usual_ns)


def always(value: Any) -> Shows:
    """A field of the collector's own, which does not come from an element."""
    return Shows("", lambda _flow: value)


ANYTHING = Shows("", lambda _flow: True, lambda _shown: True)
"""A field that says nothing of the flow."""

Columns = Mapping[str, Shows]


def differences(sent: Sequence[Flow], shown: Iterable[tuple[str, Mapping[str, Any]]], columns: Columns) -> list[str]:
    """What is not as it must be, a line each. ``shown``: source address and what the collector shows of its flow.

    A field that ``columns`` does not know is a difference, too.
    """
    by_source = {source_of(flow): flow for flow in sent}
    found, seen = [], []
    off: dict[str, list[int]] = {}
    for source, fields in shown:
        seen.append(source)
        flow = by_source.get(source)
        if flow is None:
            found.append(f"{source}: not sent")
            continue
        for name in sorted(columns.keys() | fields.keys()):
            value = fields.get(name, ABSENT)
            if name not in columns:
                found.append(f"{source}: {name} = {value!r} is not compared")
            elif not columns[name].fits(flow, value):
                wanted = columns[name].expected(flow)
                text = ["nothing" if it is ABSENT else repr(it) for it in (value, wanted)]
                found.append(f"{source}: {name} is {text[0]}, must be {text[1]}")
            elif columns[name].usual_ns:
                off.setdefault(name, []).append(columns[name].off_ns(flow, value))
    found += [
        f"{name} is off by {median(all_ns) / 1e6} ms in half of the flows"
        for name, all_ns in off.items()
        if median(all_ns) > columns[name].usual_ns
    ]
    return found + [f"{source}: {seen.count(source)} times" for source in by_source if seen.count(source) != 1]


@functools.cache
def templates(protocol: str, template: str = "default") -> Sequence[Template]:
    """The templates that the daemon sends."""
    found: Sequence[Template] = exporter(protocol, template, 0, 1).encoder.templates
    return found


def elements(protocol: str, template: str = "default") -> set[str]:
    """The elements of both families."""
    return {field.element.name for each in templates(protocol, template) for field in each.fields}


def not_compared(sent: Iterable[str], columns: Columns, not_shown: Iterable[str] = ()) -> set[str]:
    """The elements that are ``sent`` and neither compared by ``columns`` nor known not to be shown; must be empty."""
    return set(sent) - {name for shows in columns.values() for name in shows.elements.split()} - set(not_shown)


def carried(flow: Flow, protocol: str, template: str, rate: int = 0, scale: int = 1) -> Flow:
    """What of ``flow`` is in the Data Records of a template, as far as these have room; counts times ``scale``.

    A time of NetFlow's sysUptime stays in ns since 1970. ``rate``: what the collector is told to be
    the sampling rate, 0 if it is told nothing.
    """
    family = f"ipv{flow['ipVersion']}"
    (fields,) = (each.fields for each in templates(protocol, template) if each.family == family)
    found: Flow = {"rate": rate}
    for field in fields:
        name = field.element.name
        value = flow[name] if name in flow else _netflow(flow, name)
        if name == "tcpControlBits" and (field.octets == 1 or protocol == "netflow5"):
            value &= 0xFF
        found[name] = value * scale if name in COUNTS else value
    return found


def _netflow(flow: Flow, name: str) -> Any:
    """What stands in an element that only NetFlow has, or has for both families; 0 in those that a host cannot fill."""
    if name.endswith("SysUpTime"):
        return flow[name.replace("SysUpTime", "Milliseconds")]
    if name == "ipNextHopIPv4Address":
        return "0.0.0.0"
    return flow["icmpTypeCodeIPv6"] if name == "icmpTypeCodeIPv4" else 0


@dataclass(frozen=True)
class Run:
    """What was sent, and what the daemon says of it."""

    flows: list[Flow]
    account: Account
    log: str

    def unencodable(self) -> Counts:
        """What the daemon says that its protocol has no place for."""
        found = re.search(r": no template for (\d+) flows, (\d+) packets, (\d+) octets$", self.log, re.MULTILINE)
        return Counts(*map(int, found.groups())) if found else Counts()


def totals(flows: Sequence[Flow]) -> Counts:
    """Flows, and packets and octets in them."""
    packets, octets = (sum(flow[name] for flow in flows) for name in COUNTS)
    return Counts(len(flows), packets, octets)


def only_ipv4(flows: Sequence[Flow]) -> list[Flow]:
    return [flow for flow in flows if flow["ipVersion"] == 4]


def observe(lab: Lab, near: Link, far: Link, directory: Path, collector: Table) -> Run:
    """The daemon on ``far`` exports to ``collector`` while all conversations pass."""
    with Daemon(lab, far.ns, directory, configuration(ONCE, KEPT, [collector])) as daemon:
        flows = send(lab, near, far, directory)
        account = daemon.finish()
    assert account.seen.measured == totals(flows).measured
    assert (account.ledger, account.not_sent) == ({}, {})
    return Run(flows, account, daemon.log)


CISCO = {
    "octetDeltaCount": "IN_BYTES",
    "packetDeltaCount": "IN_PKTS",
    "protocolIdentifier": "PROTOCOL",
    "ipClassOfService": "SRC_TOS",
    "tcpControlBits": "TCP_FLAGS",
    "sourceTransportPort": "L4_SRC_PORT",
    "sourceIPv4Address": "IPV4_SRC_ADDR",
    "ingressInterface": "INPUT_SNMP",
    "destinationTransportPort": "L4_DST_PORT",
    "destinationIPv4Address": "IPV4_DST_ADDR",
    "egressInterface": "OUTPUT_SNMP",
    "flowEndSysUpTime": "LAST_SWITCHED",
    "flowStartSysUpTime": "FIRST_SWITCHED",
    "minimumIpTotalLength": "MIN_PKT_LNGTH",
    "maximumIpTotalLength": "MAX_PKT_LNGTH",
    "sourceIPv6Address": "IPV6_SRC_ADDR",
    "destinationIPv6Address": "IPV6_DST_ADDR",
    "icmpTypeCodeIPv4": "ICMP_TYPE",
    "samplingInterval": "SAMPLING_INTERVAL",
    "samplingAlgorithm": "SAMPLING_ALGORITHM",
    "exportedOctetTotalCount": "TOTAL_BYTES_EXP",
    "exportedMessageTotalCount": "TOTAL_PKTS_EXP",
    "exportedFlowRecordTotalCount": "TOTAL_FLOWS_EXP",
    "minimumTTL": "MIN_TTL",
    "maximumTTL": "MAX_TTL",
    "sourceMacAddress": "IN_SRC_MAC",
    "vlanId": "SRC_VLAN",
    "postVlanId": "DST_VLAN",
    "ipVersion": "IP_PROTOCOL_VERSION",
    "flowDirection": "DIRECTION",
    "destinationMacAddress": "IN_DST_MAC",
    "interfaceName": "IF_NAME",
    "interfaceDescription": "IF_DESC",
}
"""Elements by the names that NetFlow v9 has for them (RFC 3954, 8)."""


def with_times(line: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A record of lab/decoders with sysUptime ``names`` in ns since 1970, by the header of its Message."""
    record, header = dict(line["record"]), line.get("header", {})
    seconds = header.get("timestamp", header.get("seconds", 0))
    for name in record.keys() & set(names):
        record[name] = (seconds * 1000 - header["uptime"] + record[name]) * 1_000_000
    return record


def sets(message: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """The Sets of one of tshark's messages, with their ids."""
    parts = [part for part in message.values() if isinstance(part, dict) and "cflow.flowset_id" in part]
    return [(int(part["cflow.flowset_id"]), part) for part in parts]
