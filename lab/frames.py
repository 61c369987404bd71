"""Frames made by hand: those of netobs.selftest, and the headers that only tests send."""

from __future__ import annotations

import struct

from netobs.selftest.frames import *  # noqa: F403
from netobs.selftest.frames import DPORT, HOP, SPORT, udp

LLDP, MPLS = 0x88CC, 0x8847
QINQ_OLD, TEB = 0x9100, 0x6558
MPLS_MULTICAST, PPPOE, PPPOE_DISCOVERY = 0x8848, 0x8864, 0x8863
PPP_IPV4, PPP_IPV6, PPP_MPLS, PPP_LCP = 0x0021, 0x0057, 0x0281, 0xC021

IPIP, IP6IN4, GRE, ESP, SCTP, UDPLITE, DCCP = 4, 41, 47, 50, 132, 136, 33
ROUTING, NO_NEXT, MOBILITY, HIP, SHIM6 = 43, 59, 135, 139, 140


def snap(ethertype: int, payload: bytes = b"", *, oui: int = 0, length: int | None = None) -> tuple[int, bytes]:
    """LLC and SNAP (RFC 1042) behind an 802.3 length. ``ethernet(*snap(...))``."""
    llc = b"\xaa\xaa\x03" + oui.to_bytes(3, "big") + ethertype.to_bytes(2, "big") + payload
    return len(llc) if length is None else length, llc


def pppoe(
    protocol: int, payload: bytes = b"", *, compressed: bool = False, code: int = 0, length: int | None = None
) -> tuple[int, bytes]:
    """A PPPoE session (RFC 2516) and the PPP protocol. ``ethernet(*pppoe(...))``."""
    inside = protocol.to_bytes(1 if compressed else 2, "big") + payload
    length = len(inside) if length is None else length
    return PPPOE, struct.pack("!BBHH", 0x11, code, 0x0815, length) + inside


def mpls(payload: bytes = b"", *, labels: int = 1, multicast: bool = False) -> tuple[int, bytes]:
    """A label stack (RFC 3032). ``ethernet(*mpls(...))``."""
    stack = [struct.pack("!I", (1000 + n) << 12 | (n == labels - 1) << 8 | 64) for n in range(labels)]
    return MPLS_MULTICAST if multicast else MPLS, b"".join(stack) + payload


def jumbo(length: int) -> tuple[int, bytes]:
    """A hop-by-hop header with the jumbo payload option (RFC 2675)."""
    return HOP, struct.pack("!BBBI", 0, 0xC2, 4, length)


def ports(size: int, *, sport: int = SPORT, dport: int = DPORT) -> bytes:
    """A transport header of ``size`` bytes that begins with ports: SCTP (12), DCCP (16), UDP-Lite (8)."""
    return struct.pack("!HH", sport, dport) + bytes(size - 4)


def vxlan(inner: bytes, *, port: int = 4789) -> bytes:
    """UDP and VXLAN before an Ethernet frame (RFC 7348)."""
    return udp(struct.pack("!II", 0x08000000, 77 << 8) + inner, dport=port)


def geneve(ethertype: int, inner: bytes, *, options: bytes = b"") -> bytes:
    """UDP and Geneve (RFC 8926); ``ethertype`` TEB: ``inner`` is an Ethernet frame."""
    return udp(struct.pack("!BBHI", len(options) // 4, 0, ethertype, 77 << 8) + options + inner, dport=6081)


def gre(
    ethertype: int, inner: bytes, *, with_checksum: bool = False, key: bool = False, sequence: bool = False
) -> bytes:
    """GRE (RFC 2784, RFC 2890)."""
    flags = with_checksum << 15 | key << 13 | sequence << 12
    return struct.pack("!HH", flags, ethertype) + bytes(4 * (with_checksum + key + sequence)) + inner
