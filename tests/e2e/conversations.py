"""Known traffic of every kind, both ways past an interface, and the flows that must come of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from lab.namespaces import Lab, Link
from lab.pcap import read_pcap
from lab.programs import Capture
from lab.traffic import Traffic
from lab.wire import Sender
from netobs.flow import records
from tests.e2e.handmade import EACH_COMBINATION, TRAINS, Train

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
ALIAS = "uplink Zürich"
"""Of the observed interface."""
FIN_OR_RST = 0x05
END_OF_FLOW, FORCED_END = 3, 4


def send(lab: Lab, near: Link, far: Link, directory: Path) -> list[Flow]:
    """Send all conversations between ``near`` and ``far``, which is observed; the flows, with times by tcpdump."""
    with Capture(lab, far.ns, directory, far.name) as capture:
        rows = _send_all(lab, near, far, CONVERSATIONS, (*TRAINS, *EACH_COMBINATION))
        capture.stop()
    times = _times(capture.pcap)
    return [described(row, far.name, times) for row in rows]


def send_often(lab: Lab, near: Link, far: Link, packets: int) -> list[Flow]:
    """Send the same kinds with (about) so many ``packets`` in each flow; the flows, with all times 0."""
    often = [each._replace(plan=replace(each.plan, packets=each.plan.flows * packets // 2)) for each in CONVERSATIONS]
    rows = _send_all(lab, near, far, often, TRAINS, packets)
    return [described(row, far.name, defaultdict(lambda: (0, 0))) for row in rows]


def _send_all(
    lab: Lab, near: Link, far: Link, conversations: Sequence[Conversation], trains: Sequence[Train], packets: int = 0
) -> list[Any]:
    """Send them, trains again and again until they have ``packets``; a row, dtype ``records.RECORD``, for each flow."""
    parts = []
    for conversation in conversations:
        link = far if conversation.egress else near
        plans = conversation.plans()
        assert [plan.send(lab, link).retries for plan in plans] == [0, 0]
        direction = int(conversation.egress)
        both = (plan.expected(ifindex=far.ifindex, direction=direction, src_mac=link.mac) for plan in plans)
        parts.append(_merged(*both))
    with Sender(near) as ingress, Sender(far) as egress:
        for train in trains:
            mac, sender = (far.mac, egress) if train.egress else (near.mac, ingress)
            repeat = packets // len(train.packets) or 1
            sender.send(*train.frames(mac) * repeat)
            parts.append(train.expected(far.ifindex, mac, repeat))
    return [row for part in parts for row in part]


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
    times: dict[str, tuple[int, int]] = {}
    for packet in read_pcap(pcap):
        source = _source(packet.octets)
        times[source] = (times.get(source, (packet.time_ns,))[0], packet.time_ns)
    return times


def _source(frame: bytes) -> str:
    """The source address of a frame behind any VLAN tags."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    first, octets = (14, 4) if frame[at : at + 2] == b"\x08\x00" else (10, 16)
    return str(ip_address(frame[at + first : at + first + octets]))


def described(row: Any, interface: str, times: Mapping[str, tuple[int, int]]) -> Flow:
    """What netobs must say of a flow, by Information Element, whatever the protocol."""
    number = {name: int(row[name]) for name in row.dtype.names if row[name].ndim == 0}
    addresses = [ip_address(bytes(row[name])) for name in ("src_addr", "dst_addr")]
    source, destination = (str(getattr(ip, "ipv4_mapped", None) or ip) for ip in addresses)
    version = 6 if number["ethertype"] == 0x86DD else 4
    type_code = number["dst_port"] if number["protocol"] in (1, 58) else 0
    ingress = number["direction"] == 0
    first_ns, last_ns = times[source]
    return {
        f"sourceIPv{version}Address": source,
        f"destinationIPv{version}Address": destination,
        "sourceTransportPort": number["src_port"],
        "destinationTransportPort": number["dst_port"],
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
        "flowDurationMilliseconds": (last_ns - first_ns) / 1e6,
        "flowEndReason": END_OF_FLOW if number["tcp_flags"] & FIN_OR_RST else FORCED_END,
        "ipVersion": version,
        "ethernetType": number["ethertype"],
        "sourceMacAddress": bytes(row["src_mac"]).hex(":"),
        "destinationMacAddress": bytes(row["dst_mac"]).hex(":"),
        "vlanId": number["vlan_id"] if ingress else 0,
        "postVlanId": 0 if ingress else number["vlan_id"],
        "dot1qVlanId": number["vlan_id"],
        "dot1qPriority": number["dot1q_priority"],
        "minimumTTL": number["min_ttl"],
        "maximumTTL": number["max_ttl"],
        "minimumIpTotalLength": number["min_ip_length"],
        "maximumIpTotalLength": number["max_ip_length"],
        f"icmpTypeCodeIPv{version}": type_code,
        f"icmpTypeIPv{version}": type_code >> 8,
        f"icmpCodeIPv{version}": type_code & 0xFF,
        "ipDiffServCodePoint": number["tos"] >> 2,
        "ipPrecedence": number["tos"] >> 5,
        "observationPointId": number["ifindex"] * 2 + number["direction"],
        "samplingInterval": 1,
        "interfaceName": interface,
        "interfaceDescription": ALIAS,
    }


def source_of(flow: Flow) -> str:
    """The source address: no two flows have the same."""
    return str(flow.get("sourceIPv4Address") or flow["sourceIPv6Address"])
