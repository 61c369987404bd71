"""Frames that no socket sends: VLAN tags, fragments, a super-packet of exactly known size, and what is in no flow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from netobs.selftest import frames as f

PADDED_OCTETS = 60  # least length of a frame, without its checksum
MSS = 1000
_NOBODY = "02:6e:6f:62:73:fe"  # who receives such a frame drops it early, and answers nothing
_FROM = "02:6e:6f:62:73:fd"
_SRC4, _DST4 = "198.51.100.1", "203.0.113.2"
_SRC6, _DST6 = "2001:db8:1::1", "2001:db8:2::2"
_MORE_FRAGMENTS, _FRAGMENT_OCTETS = 0x2000, 1480
_MAX_EXTENSION_HEADERS = 64
_NOP = b"\1"


class Crafted(NamedTuple):
    """A frame, and what it is: ``key`` (source, destination, protocol, ports, VLAN) of its flow, or the ``reason`` why
    it is in none. ``packets`` on the wire, ``octets`` of IP, or of the frame where there is a reason."""

    kind: str
    data: bytes
    octets: int
    key: tuple[str, str, int, int, int, int] | None = None
    elements: dict[str, Any] | None = None
    reason: str = ""
    packets: int = 1
    mss: int = 0
    """Of a super-packet."""
    header_octets: int = 0
    """Of a super-packet, up to its payload."""


def crafted() -> Iterator[Crafted]:
    """Each frame once. The ports tell the flows apart."""
    yield from _vlan()
    yield from _fragments()
    yield _padded()
    yield _with_options()
    yield _super_packet()
    yield from _without_a_flow()


def _frame(ethertype: int, payload: bytes) -> bytes:
    return f.ethernet(ethertype, payload, src=_FROM, dst=_NOBODY)


def _ipv4(protocol: int, payload: bytes, **header: Any) -> bytes:
    return f.ipv4(protocol, payload, src=_SRC4, dst=_DST4, **header)


def _ipv6(protocol: int, payload: bytes) -> bytes:
    return f.ipv6(protocol, payload, src=_SRC6, dst=_DST6)


def _elements(octets: int, version: int, **others: Any) -> dict[str, Any]:
    return {
        "sourceMacAddress": _FROM,
        "destinationMacAddress": _NOBODY,
        "ethernetType": f.IPV4 if version == 4 else f.IPV6,
        "ipVersion": version,
        "ipClassOfService": f.TOS,
        "minimumTTL": f.TTL,
        "maximumTTL": f.TTL,
        "minimumIpTotalLength": octets,
        "maximumIpTotalLength": octets,
        **others,
    }


def _vlan() -> Iterator[Crafted]:
    packet = _ipv4(f.UDP, f.udp(bytes(100), sport=1001, dport=2001))
    data = _frame(*f.tag(f.Q, 100, f.IPV4, packet))
    yield Crafted("VLAN tag", data, 128, (_SRC4, _DST4, f.UDP, 1001, 2001, 100), _elements(128, 4))
    packet = _ipv6(f.TCP, f.tcp(f.SYN | f.ACK, bytes(100), sport=1002, dport=2002))
    data = _frame(*f.tag(f.AD, 200, *f.tag(f.Q, 300, f.IPV6, packet)))
    elements = _elements(160, 6, tcpControlBits=f.SYN | f.ACK)
    yield Crafted("two VLAN tags", data, 160, (_SRC6, _DST6, f.TCP, 1002, 2002, 200), elements)


def _fragments() -> Iterator[Crafted]:
    """The first fragment has the ports, the others have none."""
    first = f.udp(bytes(_FRAGMENT_OCTETS - 8), sport=1003, dport=2003)
    for data, offset, port in ((first, 0, (1003, 2003)), (bytes(520), _FRAGMENT_OCTETS // 8, (0, 0))):
        kind, octets = "IPv4 fragments", 20 + len(data)
        packet = _ipv4(f.UDP, data, fragment=offset | (0 if offset else _MORE_FRAGMENTS))
        yield Crafted(kind, _frame(f.IPV4, packet), octets, (_SRC4, _DST4, f.UDP, *port, 0), _elements(octets, 4))
    first = f.udp(bytes(1440 - 8), sport=1004, dport=2004)
    for data, offset, port in ((first, 0, (1004, 2004)), (bytes(520), 1440 // 8, (0, 0))):
        kind, octets = "IPv6 fragments", 40 + 8 + len(data)
        packet = _ipv6(*f.chain([f.fragment6(offset, more=not offset)], f.UDP, data))
        yield Crafted(kind, _frame(f.IPV6, packet), octets, (_SRC6, _DST6, f.UDP, *port, 0), _elements(octets, 6))


def _padded() -> Crafted:
    data = _frame(f.IPV4, _ipv4(f.UDP, f.udp(b"x", sport=1005, dport=2005)))
    key = (_SRC4, _DST4, f.UDP, 1005, 2005, 0)
    return Crafted("padding behind IP", data.ljust(PADDED_OCTETS, b"\0"), 29, key, _elements(29, 4))


def _with_options() -> Crafted:
    packet = _ipv4(f.TCP, f.tcp(f.FIN | f.ACK, options=_NOP * 12, sport=1006, dport=2006), options=_NOP * 8)
    key = (_SRC4, _DST4, f.TCP, 1006, 2006, 0)
    return Crafted("IPv4 and TCP options", _frame(f.IPV4, packet), 60, key, _elements(60, 4, tcpControlBits=0x11))


def _super_packet() -> Crafted:
    """Ten segments. The last one has half of the payload of the others."""
    headers, payload = 20 + 20, 9 * MSS + MSS // 2
    packet = _ipv4(f.TCP, f.tcp(f.ACK, bytes(payload), sport=1007, dport=2007))
    elements = _elements(0, 4, tcpControlBits=f.ACK)
    elements.update(minimumIpTotalLength=headers + MSS // 2, maximumIpTotalLength=headers + MSS)
    return Crafted(
        "super-packet of ten segments", _frame(f.IPV4, packet), 10 * headers + payload,
        (_SRC4, _DST4, f.TCP, 1007, 2007, 0), elements, packets=10, mss=MSS, header_octets=14 + headers,
    )  # fmt: skip


def _without_a_flow() -> Iterator[Crafted]:
    udp = f.udp(bytes(20), sport=1008, dport=2008)
    too_many = [f.extension(f.DEST)] * (_MAX_EXTENSION_HEADERS + 1)
    for reason, kind, data in (
        ("not_ip", "ARP", _frame(f.ARP, bytes(28))),
        ("malformed", "IPv4 that is longer than its frame", _frame(f.IPV4, _ipv4(f.UDP, udp, total=1000))),
        ("malformed", "IPv4 header that is too short", _frame(f.IPV4, _ipv4(f.UDP, udp, ihl=4))),
        ("malformed", "IPv6 header that is cut", _frame(f.IPV6, _ipv6(f.UDP, udp)[:30])),
        ("ext_headers", "too many extension headers", _frame(f.IPV6, _ipv6(*f.chain(too_many, f.UDP, udp)))),
    ):
        yield Crafted(kind, data, len(data), reason=reason)
