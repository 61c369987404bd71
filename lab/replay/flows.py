"""Flows: what the reckoning adds up of a file's packets, and what the daemon exported of them, in the same words."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from lab.replay.reckoning import Packet
from lab.replay.reckoning_ip import Malformed, NotIp, TooManyExtensions

FRAMES_NAMED = 5
SYN, FIN_OR_RST = 0x02, 0x05
ETHERNET, IP = "ethernet", "ip"
ICMP_ELEMENTS = {4: "IPv4", 6: "IPv6"}


class Key(NamedTuple):
    """What tells flows of one file apart. ``medium``: ETHERNET or IP, the kind of interface."""

    medium: str
    ethertype: int
    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    destination_port: int
    icmp_type: int
    icmp_code: int
    vlan: int

    def __str__(self) -> str:
        source, destination = (ipaddress.ip_address(address) for address in (self.source, self.destination))
        parts = [f"protocol {self.protocol} {source}:{self.source_port} > {destination}:{self.destination_port}"]
        parts += [f"type {self.icmp_type} code {self.icmp_code}"] * bool(self.icmp_type or self.icmp_code)
        parts += [f"vlan {self.vlan}"] * bool(self.vlan)
        return ", ".join(parts)


class First(NamedTuple):
    """What a flow has of its first packet."""

    tos: int
    priority: int
    source_mac: bytes
    destination_mac: bytes


@dataclass
class Flow:
    """Lengths and counts are IP octets."""

    packets: int
    octets: int
    tcp_flags: int
    least_ttl: int
    greatest_ttl: int
    least_octets: int
    greatest_octets: int
    first: First

    def add(self, other: Flow) -> None:
        """Take in a later part of the same flow."""
        self.packets += other.packets
        self.octets += other.octets
        self.tcp_flags |= other.tcp_flags
        self.least_ttl = min(self.least_ttl, other.least_ttl)
        self.greatest_ttl = max(self.greatest_ttl, other.greatest_ttl)
        self.least_octets = min(self.least_octets, other.least_octets)
        self.greatest_octets = max(self.greatest_octets, other.greatest_octets)


@dataclass
class Frames:
    """Numbers of frames in a file, from 1 on: the first few, and how many there are."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        self.count += 1
        if len(self.first) < FRAMES_NAMED:
            self.first.append(number)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return f"frame {', '.join(map(str, self.first))}{more}" if self.first else "no frame"


@dataclass
class Reckoning:
    """What must come of the frames of one file. ``frames`` has those of each flow, ``ledger`` those of each reason.

    ``restarts``: a SYN after a FIN or RST begins another connection with the same ports. Whether both are in one
    record depends on when it is taken out, and so does which of their first packets counts.
    """

    flows: dict[Key, Flow] = field(default_factory=dict)
    frames: dict[Key, Frames] = field(default_factory=dict)
    ledger: dict[str, Frames] = field(default_factory=dict)
    restarts: dict[Key, set[First]] = field(default_factory=dict)

    def count(self, number: int, medium: str, reckon: Any) -> None:
        """Add frame ``number``; ``reckon()`` gives its packet, or says why it is in no flow."""
        try:
            packet = reckon()
        except NotIp:
            self.ledger.setdefault("not_ip", Frames()).add(number)
        except Malformed:
            self.ledger.setdefault("malformed", Frames()).add(number)
        except TooManyExtensions:
            self.ledger.setdefault("ext_headers", Frames()).add(number)
        else:
            self._add(number, medium, packet)

    def _add(self, number: int, medium: str, packet: Packet) -> None:
        ip, upper = packet.inner, packet.inner.upper
        key = Key(medium, packet.ethertype, ip.source, ip.destination, ip.protocol, upper.source_port,
                  upper.destination_port, upper.icmp_type, upper.icmp_code, packet.vlan)  # fmt: skip
        first = First(ip.tos, packet.priority, packet.source_mac, packet.destination_mac)
        part = Flow(1, ip.octets, upper.tcp_flags, ip.ttl, ip.ttl, ip.octets, ip.octets, first)
        if key in self.flows:
            if upper.tcp_flags & SYN and self.flows[key].tcp_flags & FIN_OR_RST:
                self.restarts.setdefault(key, set()).add(first)
            self.flows[key].add(part)
        else:
            self.flows[key] = part
            self.frames[key] = Frames()
        self.frames[key].add(number)


def exported(record: Mapping[str, Any], medium: str) -> tuple[Key, Flow]:
    """The flow that a decoded Data Record of the template ``full`` tells of."""
    version = record["ipVersion"]
    family = ICMP_ELEMENTS[version]
    source, destination = (
        ipaddress.ip_address(record[f"{end}{family}Address"]).packed for end in ("source", "destination")
    )
    kind, code = record[f"icmpType{family}"], record[f"icmpCode{family}"]
    port = record["destinationTransportPort"]
    if kind or code:
        port -= kind << 8 | code  # where an ICMP message has no port, old collectors find type and code
    key = Key(medium, record["ethernetType"], source, destination, record["protocolIdentifier"],
              record["sourceTransportPort"], port, kind, code, record["dot1qVlanId"])  # fmt: skip
    macs = (bytes.fromhex(record[f"{end}MacAddress"].replace(":", "")) for end in ("source", "destination"))
    flow = Flow(
        record["packetDeltaCount"],
        record["octetDeltaCount"],
        record["tcpControlBits"],
        record["minimumTTL"],
        record["maximumTTL"],
        record["minimumIpTotalLength"],
        record["maximumIpTotalLength"],
        First(record["ipClassOfService"], record["dot1qPriority"], *macs),
    )
    return key, flow


def contradictions(record: Mapping[str, Any], egress: bool) -> list[str]:
    """Elements of a Data Record that contradict others of it, or the direction that is measured, as text."""
    family = ICMP_ELEMENTS[record["ipVersion"]]
    tos, vlan = record["ipClassOfService"], record["dot1qVlanId"]
    kind, code = record[f"icmpType{family}"], record[f"icmpCode{family}"]
    start, end = (datetime.fromisoformat(record[f"flow{way}Milliseconds"].rstrip("Z")) for way in ("Start", "End"))
    here, there = ("egress", "ingress") if egress else ("ingress", "egress")
    expected = {
        "flowDirection": int(egress),
        f"{there}Interface": 0,
        "vlanId": 0 if egress else vlan,
        "postVlanId": vlan if egress else 0,
        "ipDiffServCodePoint": tos >> 2,
        "ipPrecedence": tos >> 5,
        f"icmpTypeCode{family}": kind << 8 | code,
        "observationPointId": record[f"{here}Interface"] * 2 + egress,
        "flowDurationMilliseconds": (end - start) // timedelta(milliseconds=1),
    }
    found = [
        f"{name}: expected {value}, got {record[name]}" for name, value in expected.items() if record[name] != value
    ]
    if end < start:
        found.append("flowEndMilliseconds is before flowStartMilliseconds")
    return found
