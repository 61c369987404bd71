"""Traffic of the kinds that the generator has not: frames made by hand, and the flow that each train of them must give.

What a flow must say is written down beside the packets, and counted from their octets: nothing here parses a packet.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

from lab import frames as f
from lab.traffic import OTHER_HOST
from netobs.flow import records

ALL_TCP_FLAGS = range(1 << 9)  # FIN to CWR, and AE, which was NS (RFC 9768)


class Packet(NamedTuple):
    """A packet: what follows its IP header, and what that header says. ``fragment`` is for IPv4, see ``frames``."""

    payload: bytes = b""
    tos: int = 0
    ttl: int = 64
    fragment: int = 0
    options: bytes = b""
    extensions: Sequence[tuple[int, bytes]] = ()


class Tag(NamedTuple):
    tpid: int
    vid: int
    priority: int = 0


@dataclass(frozen=True)
class Train:
    """Packets of one flow; no two trains have the same ``number``, which is part of the source address."""

    number: int
    protocol: int
    packets: tuple[Packet, ...]
    ports: tuple[int, int] = (0, 0)
    icmp: tuple[int, int] = (0, 0)
    tcp_flags: int = 0
    ipv6: bool = False
    tags: tuple[Tag, ...] = ()
    egress: bool = False

    @property
    def addresses(self) -> tuple[str, str]:
        if self.ipv6:
            return f"2001:db8:3::{self.number:x}", "2001:db8:4::1"
        return f"100.64.{self.number >> 8}.{self.number & 255}", "100.65.0.1"

    def frames(self, src_mac: str) -> list[bytes]:
        """The frames that leave the interface ``src_mac``."""
        return [self._frame(src_mac, packet) for packet in self._ip_packets()]

    def expected(self, ifindex: int, src_mac: str, repeat: int = 1) -> records.Records:
        """The one Flow Record, dtype ``records.RECORD``, of all frames sent ``repeat`` times; its times are 0."""
        row = records.empty(1)
        lengths = [len(packet) for packet in self._ip_packets()]
        ttls = [packet.ttl for packet in self.packets]
        for name, address in zip(("src_addr", "dst_addr"), self.addresses):
            packed = ip_address(address).packed
            row[name] = list(packed if self.ipv6 else bytes(10) + b"\xff\xff" + packed)
        values = {
            "src_port": self.ports[0], "dst_port": self.ports[1] or self.icmp[0] << 8 | self.icmp[1],
            "protocol": self.protocol, "direction": int(self.egress), "ethertype": f.IPV6 if self.ipv6 else f.IPV4,
            "vlan_id": self.tags[0].vid if self.tags else 0, "ifindex": ifindex,
            "packets": len(lengths) * repeat, "octets": sum(lengths) * repeat, "tcp_flags": self.tcp_flags,
            "min_ip_length": min(lengths), "max_ip_length": max(lengths), "tos": self.packets[0].tos,
            "min_ttl": min(ttls), "max_ttl": max(ttls),
            "dot1q_priority": self.tags[0].priority if self.tags else 0,
            "src_mac": list(f.mac(src_mac)), "dst_mac": list(f.mac(OTHER_HOST)),
        }  # fmt: skip
        for name, value in values.items():
            row[name] = value
        return row

    def _ip_packets(self) -> list[bytes]:
        return [self._ip(packet) for packet in self.packets]

    def _ip(self, packet: Packet) -> bytes:
        source, destination = self.addresses
        if self.ipv6:
            upper = f.chain(list(packet.extensions), self.protocol, packet.payload)
            return f.ipv6(*upper, src=source, dst=destination, traffic_class=packet.tos, hop_limit=packet.ttl)
        header = {"tos": packet.tos, "ttl": packet.ttl, "fragment": packet.fragment}
        return f.ipv4(self.protocol, packet.payload, src=source, dst=destination, options=packet.options, **header)

    def _frame(self, src_mac: str, packet: bytes) -> bytes:
        ethertype = f.IPV6 if self.ipv6 else f.IPV4
        for tag in reversed(self.tags):
            ethertype, packet = f.tag(tag.tpid, tag.vid, ethertype, packet, priority=tag.priority)
        return f.ethernet(ethertype, packet, src=src_mac, dst=OTHER_HOST)


def _same(payload: bytes) -> tuple[Packet, ...]:
    """Three packets that begin alike, of several lengths, TTLs and types of service."""
    long = Packet(payload + bytes(700), tos=0x01, ttl=255)
    return Packet(payload, tos=0xB9, ttl=2), long, Packet(payload + bytes(1), tos=0xFF, ttl=1)


_OPAQUE = (Packet(b"\xa5" * 64, tos=0x02), Packet(b"\xa5" * 1452, ttl=128), Packet(b"\xa5" * 20, ttl=3))
"""What could be taken for ports, flags and types, and is none."""
_INNER4, _INNER6 = f.ipv4(f.TCP, f.tcp(f.SYN)), f.ipv6(f.UDP, f.udp())
_FLAGS = (f.SYN, 0x0C2, 0x1C0, f.ACK | f.PSH, 0x1FF)


def _tcp(flags: Sequence[int], ports: tuple[int, int], **options: Any) -> dict[str, Any]:
    """TCP packets with these flags, one after the other."""
    packets = tuple(Packet(f.tcp(each, bytes(each), sport=ports[0], dport=ports[1]), **options) for each in flags)
    return {"protocol": f.TCP, "packets": packets, "ports": ports, "tcp_flags": functools.reduce(operator.or_, flags)}


def _ports(protocol: int, size: int, ports: tuple[int, int]) -> dict[str, Any]:
    """A protocol whose header of ``size`` octets begins with the ports."""
    return {"protocol": protocol, "packets": _same(f.ports(size, sport=ports[0], dport=ports[1])), "ports": ports}


def _icmp(protocol: int, kind: int, code: int) -> dict[str, Any]:
    return {"protocol": protocol, "packets": _same(f.icmp(kind, code)), "icmp": (kind, code)}


def _later(protocol: int) -> dict[str, Any]:
    """Fragments without the first one."""
    middle, last = 0x2000 | 185, 370
    fragments4 = (Packet(b"\xa5" * 1480, fragment=middle), Packet(b"\xa5" * 100, fragment=last))
    return {"protocol": protocol, "packets": fragments4}


def _later6(protocol: int) -> dict[str, Any]:
    fragments = (f.fragment6(181, more=True), f.fragment6(362, more=False))
    return {"protocol": protocol, "packets": tuple(Packet(b"\xa5" * 1448, extensions=[each]) for each in fragments)}


_BOTH: tuple[dict[str, Any], ...] = (
    _tcp(_FLAGS, (33000, 80)),
    _tcp(_FLAGS[1:3], (65535, 65535), tos=0x03),
    _ports(f.UDP, 8, (0, 53)),
    _ports(f.UDPLITE, 8, (5004, 5005)),
    _ports(f.SCTP, 12, (36412, 38412)),
    _ports(f.DCCP, 16, (65535, 1)),
    {"protocol": f.GRE, "packets": _same(f.gre(f.IPV4, _INNER4, key=True))},
    {"protocol": f.ESP, "packets": _OPAQUE},
    {"protocol": f.IPIP, "packets": _same(_INNER4)},
    {"protocol": f.IP6IN4, "packets": _same(_INNER6)},
    {"protocol": 112, "packets": _OPAQUE},  # VRRP
    {"protocol": 253, "packets": (Packet(ttl=0), Packet(bytes(1440), ttl=255))},  # RFC 3692: for experiments
)
_TAGGED: tuple[dict[str, Any], ...] = (
    {**_tcp(_FLAGS[:2], (1, 2)), "tags": (Tag(f.Q, 1, 7),)},
    {**_ports(f.SCTP, 12, (2905, 2905)), "tags": (Tag(f.AD, 300, 3), Tag(f.Q, 400, 1))},
    {"protocol": f.ESP, "packets": _OPAQUE, "tags": (Tag(f.Q, 4094, 1), Tag(f.Q, 7))},
)
_ONLY_V4: tuple[dict[str, Any], ...] = (
    *(_icmp(f.ICMP, *each) for each in ((0, 0), (3, 1), (3, 3), (3, 13), (5, 1), (9, 16), (11, 0), (12, 2), (13, 0))),
    {"protocol": f.AUTH, "packets": _OPAQUE},
    _tcp(_FLAGS[:1], (1023, 1024), options=b"\x01" * 40),
    _later(f.UDP),
    _later(f.TCP),
)
_ONLY_V6: tuple[dict[str, Any], ...] = (
    *(_icmp(f.ICMPV6, *each) for each in ((1, 4), (2, 0), (3, 1), (4, 2), (129, 0), (133, 0), (135, 0), (143, 0))),
    _tcp(_FLAGS[2:3], (51, 52), extensions=[f.extension(f.HOP, 16), f.extension(f.AUTH, 24), f.extension(f.DEST)]),
    {"protocol": f.NO_NEXT, "packets": (Packet(),)},
    _later6(f.UDP),
    _later6(f.SCTP),
)
_PLANS = (
    *((plan, False) for plan in (*_BOTH, *_TAGGED, *_ONLY_V4)),
    *((plan, True) for plan in (*_BOTH, *_TAGGED, *_ONLY_V6)),
)
TRAINS = tuple(
    Train(number, ipv6=ipv6, egress=number % 3 == 0, **plan) for number, (plan, ipv6) in enumerate(_PLANS, start=1)
)
"""Each kind of traffic, over IPv4 and IPv6, a third of it leaving the observed host."""

EACH_COMBINATION = tuple(
    Train(1024 + flags, ipv6=bool(flags & 1), egress=bool(flags & 2), **_tcp([flags], (10_000 + flags, 443)))
    for flags in ALL_TCP_FLAGS
)
"""A packet for each combination of TCP flags."""
