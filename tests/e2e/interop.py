"""Known traffic of every kind past the real daemon, and the comparison of what a collector shows with what was sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Callable, NamedTuple

from netobs import records
from netobs.encode.protocols import exporter
from tests.e2e.daemon import KEPT, Account, Counts, Daemon, Table, configuration
from tests.lab.namespaces import Lab, Link, command
from tests.lab.programs import Capture
from tests.lab.traffic import Traffic

TICK_NS = 10_000_000
"""The kernel's tick at 100 Hz, the longest that kernels are built with."""
TIME_TOLERANCE_NS = TICK_NS + 1_000_000
ONCE = {"eviction_interval": "1h"}
"""[capture] for tests that compare Flow Records: all packets of a flow are in one, flows that end by FIN too."""

Flow = dict[str, Any]
"""Information Element to value: numbers, addresses as text, times in ns since 1970."""


class Conversation(NamedTuple):
    """A train of packets that is sent twice: the second time with the ``changed`` options of the plan."""

    plan: Traffic
    changed: Mapping[str, Any]
    egress: bool = False  # seen leaving the observed host

    def plans(self) -> tuple[Traffic, Traffic]:
        return self.plan, replace(self.plan, **self.changed)


def _plan(number: int, protocol: str, **options: Any) -> Traffic:
    """Each conversation has source addresses of its own."""
    return Traffic(flows=3, packets=30, protocol=protocol, flow_base=number * 16, seed=number, **options)


TCP4 = _plan(1, "tcp", size=(60, 1514), tos=0xB8, ttl=64, tcp_flags=0x02, dst_port=443)
UDP4 = _plan(2, "udp", size=(60, 1514), tos=0x28, ttl=255, dst_port=53)
ICMP4 = _plan(3, "icmp", size=(64, 1514), ttl=1)
VLAN4 = _plan(4, "tcp", size=(64, 1518), vlan=100, priority=5, tcp_flags=0x10, dst_port=22)
TCP6 = _plan(5, "tcp", size=(78, 1514), ipv6=True, tos=0x04, ttl=63, tcp_flags=0xC2, dst_port=8443)
UDP6 = _plan(6, "udp", size=(66, 1514), ipv6=True, tos=0xFF, ttl=2, dst_port=65535)
ICMP6 = _plan(7, "icmp", size=(66, 1514), ipv6=True, ttl=128)
VLAN6 = _plan(8, "udp", size=(78, 1518), ipv6=True, vlan=4094, dst_port=4789)

CONVERSATIONS = (
    Conversation(TCP4, {"ttl": 60, "tcp_flags": 0x11, "seed": 101}),
    Conversation(UDP4, {"ttl": 9, "seed": 102}),
    Conversation(ICMP4, {"ttl": 7, "seed": 103}),
    Conversation(VLAN4, {"ttl": 63, "tcp_flags": 0x28, "seed": 104}),
    Conversation(TCP6, {"ttl": 59, "tcp_flags": 0x19, "seed": 105}),
    Conversation(UDP6, {"ttl": 254, "seed": 106}),
    Conversation(ICMP6, {"ttl": 3, "seed": 107}),
    Conversation(VLAN6, {"ttl": 62, "seed": 108}),
    Conversation(replace(TCP4, flow_base=256, tcp_flags=0x14), {"ttl": 61, "seed": 109}, egress=True),
    Conversation(replace(ICMP4, flow_base=272), {"ttl": 5, "seed": 110}, egress=True),
    Conversation(replace(VLAN4, flow_base=288, vlan=4000), {"ttl": 50, "seed": 111}, egress=True),
    Conversation(replace(UDP6, flow_base=304), {"ttl": 50, "seed": 112}, egress=True),
    Conversation(replace(VLAN6, flow_base=320, vlan=1), {"ttl": 51, "seed": 113}, egress=True),
)
FIN_OR_RST = 0x05
END_OF_FLOW, FORCED_END = 3, 4


def send(lab: Lab, near: Link, far: Link, directory: Path) -> list[Flow]:
    """Send all conversations between ``near`` and ``far``, which is observed; the flows, with times by tcpdump."""
    rows = []
    with Capture(lab, far.ns, directory, far.name) as capture:
        for conversation in CONVERSATIONS:
            link = far if conversation.egress else near
            for plan in conversation.plans():
                assert plan.send(lab, link).retries == 0
            parts = [
                plan.expected(ifindex=far.ifindex, direction=int(conversation.egress), src_mac=link.mac)
                for plan in conversation.plans()
            ]
            rows.append(_merged(*parts))
        capture.stop()
    times = _times(capture.pcap)
    return [_described(row, times) for part in rows for row in part]


def _merged(first: records.Records, second: records.Records) -> records.Records:
    """Both trains as one: what is of the first packet stays."""
    for name in ("packets", "octets"):
        first[name] += second[name]
    for name, better in (("min_ip_length", min), ("max_ip_length", max), ("min_ttl", min), ("max_ttl", max)):
        first[name] = [better(pair) for pair in zip(first[name], second[name])]
    first["tcp_flags"] |= second["tcp_flags"]
    return first


def _times(pcap: Path) -> dict[str, tuple[int, int]]:
    """Source address to the times of the first and the last packet."""
    columns = ("-e", "frame.time_epoch", "-e", "ip.src", "-e", "ipv6.src")
    argv = ["tshark", "-r", str(pcap), "-n", "-T", "fields", "-E", "occurrence=f", *columns]
    times: dict[str, tuple[int, int]] = {}
    for line in command(argv).stdout.splitlines():
        at, ipv4, ipv6 = line.split("\t")
        seconds, _, fraction = at.partition(".")
        at_ns = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
        first = times.get(ipv4 or ipv6, (at_ns,))[0]
        times[ipv4 or ipv6] = (first, at_ns)
    return times


def _described(row: Any, times: Mapping[str, tuple[int, int]]) -> Flow:
    """What netobs must say of a flow, by Information Element, whatever the protocol."""
    number = {name: int(row[name]) for name in row.dtype.names if row[name].ndim == 0}
    addresses = [ip_address(bytes(row[name])) for name in ("src_addr", "dst_addr")]
    source, destination = (str(getattr(ip, "ipv4_mapped", None) or ip) for ip in addresses)
    version = 6 if number["ethertype"] == 0x86DD else 4
    type_code = number["icmp_type"] << 8 | number["icmp_code"]
    ingress = number["direction"] == 0
    first_ns, last_ns = times[source]
    return {
        f"sourceIPv{version}Address": source,
        f"destinationIPv{version}Address": destination,
        "sourceTransportPort": number["src_port"],
        "destinationTransportPort": number["dst_port"] or type_code,
        "protocolIdentifier": number["protocol"],
        "ipClassOfService": number["tos"],
        "tcpControlBits": number["tcp_flags"],
        "ingressInterface": number["ifindex"] if ingress else 0,
        "egressInterface": 0 if ingress else number["ifindex"],
        "flowDirection": number["direction"],
        "octetDeltaCount": number["octets"],
        "packetDeltaCount": number["packets"],
        "flowStartMilliseconds": first_ns,
        "flowEndMilliseconds": last_ns,
        "flowStartSysUpTime": first_ns,
        "flowEndSysUpTime": last_ns,
        "flowEndReason": END_OF_FLOW if number["tcp_flags"] & FIN_OR_RST else FORCED_END,
        "ipVersion": version,
        "ethernetType": number["ethertype"],
        "sourceMacAddress": bytes(row["src_mac"]).hex(":"),
        "destinationMacAddress": bytes(row["dst_mac"]).hex(":"),
        "vlanId": number["vlan_id"] if ingress else 0,
        "postVlanId": 0 if ingress else number["vlan_id"],
        "minimumTTL": number["min_ttl"],
        "maximumTTL": number["max_ttl"],
        "minimumIpTotalLength": number["min_ip_length"],
        "maximumIpTotalLength": number["max_ip_length"],
        f"icmpTypeCodeIPv{version}": type_code,
    }


ABSENT = object()
"""Stands for a value that a collector does not show."""


def as_it_is(shown: Any) -> Any:
    return shown


@dataclass(frozen=True)
class Shows:
    """A field of a collector's output: which elements it comes from, and what must stand there.

    ``expected(flow)`` may be ``ABSENT``; ``read`` makes what is shown comparable with it.
    """

    elements: str
    expected: Callable[[Flow], Any]
    read: Callable[[Any], Any] = as_it_is
    tolerance: int = 0

    def fits(self, flow: Flow, shown: Any) -> bool:
        expected = self.expected(flow)
        if expected is ABSENT or shown is ABSENT:
            return expected is shown
        return bool(abs(self.read(shown) - expected) <= self.tolerance if self.tolerance else
                    self.read(shown) == expected)  # fmt: skip


def element(name: str, read: Callable[[Any], Any] = as_it_is) -> Shows:
    """A field that is an element as it is, and is not there when the flow has none."""
    return Shows(name, lambda flow: flow.get(name, ABSENT), read)


def moment(name: str, read: Callable[[Any], int], tolerance_ns: int = TIME_TOLERANCE_NS) -> Shows:
    """A time; ``read`` makes it ns since 1970."""
    return Shows(name, lambda flow: flow[name], read, tolerance_ns)


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
    return found + [f"{source}: {seen.count(source)} times" for source in by_source if seen.count(source) != 1]


def source_of(flow: Flow) -> str:
    """The source address: no two flows have the same."""
    return str(flow.get("sourceIPv4Address") or flow["sourceIPv6Address"])


def templates(protocol: str) -> Sequence[Any]:
    """The templates that the daemon sends by default."""
    return exporter(protocol, "default", 0, 1).encoder.templates


def not_compared(protocol: str, columns: Columns, not_shown: Iterable[str] = ()) -> set[str]:
    """The elements that are sent and neither compared by ``columns`` nor known not to be shown; must be empty."""
    compared = {name for shows in columns.values() for name in shows.elements.split()}
    sent = {field.element.name for template in templates(protocol) for field in template.fields}
    return sent - compared - set(not_shown)


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
    packets, octets = (sum(flow[name] for flow in flows) for name in ("packetDeltaCount", "octetDeltaCount"))
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


def flow_set_ids(protocol: str) -> set[int]:
    """The Sets that carry flows; other Data Sets carry options."""
    return {template.id for template in templates(protocol)}


def options_messages(messages: Iterable[Mapping[str, Any]], protocol: str) -> int:
    """How many of tshark's ``messages`` carry options data."""
    flow_sets = flow_set_ids(protocol)
    return sum(any(number >= 256 and number not in flow_sets for number, _ in sets(message)) for message in messages)


def sets(message: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """The Sets of one of tshark's messages, with their ids."""
    parts = [part for part in message.values() if isinstance(part, dict) and "cflow.flowset_id" in part]
    return [(int(part["cflow.flowset_id"]), part) for part in parts]
