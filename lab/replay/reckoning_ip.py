"""From an IP packet to what a flow has of it, by the RFCs alone.

An upper layer that is cut short is no mistake of the IP packet: what is missing of it counts as 0 in the flow.
"""

from __future__ import annotations

from typing import NamedTuple

HOP_BY_HOP, ICMP, TCP, UDP, DCCP, ROUTING, FRAGMENT, AUTHENTICATION = 0, 1, 6, 17, 33, 43, 44, 51
ICMPV6, DESTINATION, SCTP, MOBILITY, UDP_LITE, HIP, SHIM6 = 58, 60, 132, 135, 136, 139, 140
_HAVE_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDP_LITE})
# RFC 8200, 4; RFC 4302; RFC 6275; RFC 7401; RFC 5533. ESP (RFC 4303) hides what follows.
_EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY, HIP, SHIM6})
_MOST_EXTENSIONS = 64
_PAD1, _JUMBO = 0, 0xC2


class NotIp(Exception):
    """The frame carries no IP packet."""


class Malformed(Exception):
    """The frame says that it has an IP packet, and is cut short or contradicts itself."""


class TooManyExtensions(Exception):
    """The packet has more extension headers than netobs walks."""


class Upper(NamedTuple):
    """What a flow has of the upper layer; 0 where it has none. ``tcp_flags``: the low 12 bits of octets 12 and 13."""

    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    tcp_flags: int = 0


NOTHING = Upper()


class Inner(NamedTuple):
    """``octets``: of the IP packet. ``source`` and ``destination`` have 4 or 16 octets."""

    source: bytes
    destination: bytes
    protocol: int
    tos: int
    ttl: int
    octets: int
    upper: Upper


def ipv4(data: bytes) -> Inner:
    """RFC 791, 3.1. ``data`` may have padding behind the packet. :raises Malformed: see there."""
    if len(data) < 20:
        raise Malformed("an IPv4 header is cut short")
    header, total = (data[0] & 15) * 4, int.from_bytes(data[2:4], "big")
    if data[0] >> 4 != 4 or header < 20 or not header <= total <= len(data):
        raise Malformed("IPv4: version, header length or total length")
    protocol, offset = data[9], int.from_bytes(data[6:8], "big") & 0x1FFF
    upper = NOTHING if offset else _upper(protocol, data[header:total])
    return Inner(data[12:16], data[16:20], protocol, data[1], data[8], total, upper)


def ipv6(data: bytes) -> Inner:
    """RFC 8200, 3 and 4; RFC 2675. ``data`` may have padding behind the packet.

    :raises Malformed, TooManyExtensions: see there.
    """
    if len(data) < 40 or data[0] >> 4 != 6:
        raise Malformed("IPv6: cut short, or another version")
    payload = int.from_bytes(data[4:6], "big")
    if payload == 0 and data[6] == HOP_BY_HOP:
        payload = _jumbo_length(data[40:])
    total = 40 + payload
    if total > len(data):
        raise Malformed("IPv6: the payload goes beyond the frame")
    protocol, upper = _walk(data[6], data[40:total])
    tos = int.from_bytes(data[:2], "big") >> 4 & 0xFF
    return Inner(data[8:24], data[24:40], protocol, tos, data[7], total, upper)


def _jumbo_length(data: bytes) -> int:
    """The value of the Jumbo Payload option in a hop-by-hop header, which must have one where the length is 0.

    RFC 2675, 2 and 3. It is taken as it is, also where a smaller packet would not have needed it.
    """
    options = data[2 : (data[1] + 1) * 8] if len(data) >= 8 else b""
    while len(options) >= 2 or options == b"\0":
        if options[0] == _PAD1:
            options = options[1:]
            continue
        if options[0] == _JUMBO and options[1] == 4 and len(options) >= 6:
            length = int.from_bytes(options[2:6], "big")
            if length < (data[1] + 1) * 8:
                break
            return length
        options = options[2 + options[1] :]
    raise Malformed("IPv6: payload length 0, and no jumbo payload that has room for its own header")


def _walk(protocol: int, data: bytes) -> tuple[int, Upper]:
    """The protocol behind the extension headers. Where one of them is cut short, that is where the walk ends."""
    walked = 0
    while protocol in _EXTENSIONS:
        if walked == _MOST_EXTENSIONS:
            raise TooManyExtensions
        walked += 1
        if len(data) < 8:
            return protocol, NOTHING
        size = (data[1] + 2) * 4 if protocol == AUTHENTICATION else (data[1] + 1) * 8
        if protocol == FRAGMENT:
            size = 8
            if int.from_bytes(data[2:4], "big") >> 3:
                return data[0], NOTHING  # a later fragment: its octets are in the middle of something
        if size > len(data):
            return protocol, NOTHING
        protocol, data = data[0], data[size:]
    return protocol, _upper(protocol, data)


def _upper(protocol: int, data: bytes) -> Upper:
    """ICMP and ICMPv6 have their type and code in either version of IP."""
    if protocol in _HAVE_PORTS and len(data) >= 4:
        flags = int.from_bytes(data[12:14], "big") & 0xFFF if protocol == TCP and len(data) >= 14 else 0
        return Upper(int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big"), tcp_flags=flags)
    if protocol in {ICMP, ICMPV6} and len(data) >= 2:
        return Upper(icmp_type=data[0], icmp_code=data[1])
    return NOTHING
