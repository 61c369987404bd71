"""Frames made by hand, layer by layer: each function puts one header before its payload.

Lengths and next-header fields are right unless the caller says otherwise; values that somebody compares have names.
"""

from __future__ import annotations

import ipaddress
import struct

SRC_MAC, DST_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
SRC4, DST4 = "192.0.2.1", "198.51.100.2"
SRC6, DST6 = "2001:db8::1", "2001:db8:ffff::2"
SPORT, DPORT = 40000, 443
TOS, TTL = 0xB8, 61

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
Q, AD = 0x8100, 0x88A8

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
HOP, FRAGMENT, AUTH, DEST = 0, 44, 51, 60

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10


def mac(address: str) -> bytes:
    """The six bytes of a MAC address."""
    return bytes.fromhex(address.replace(":", ""))


def ethernet(ethertype: int, payload: bytes = b"", *, src: str = SRC_MAC, dst: str = DST_MAC) -> bytes:
    """An Ethernet frame; ``ethertype`` may be an 802.3 length."""
    return mac(dst) + mac(src) + ethertype.to_bytes(2, "big") + payload


def tag(tpid: int, vid: int, ethertype: int, payload: bytes = b"", *, priority: int = 0) -> tuple[int, bytes]:
    """A VLAN tag: the EtherType that announces it, and the tag with what follows. ``ethernet(*tag(...))``."""
    return tpid, struct.pack("!HH", priority << 13 | vid, ethertype) + payload


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(
    protocol: int,
    payload: bytes = b"",
    *,
    src: str = SRC4,
    dst: str = DST4,
    tos: int = TOS,
    ttl: int = TTL,
    options: bytes = b"",
    fragment: int = 0,
    total: int | None = None,
    ihl: int | None = None,
    version: int = 4,
) -> bytes:
    """An IPv4 packet. ``fragment``: flags and offset as in the header; ``options``: a multiple of 4 bytes."""
    ihl = 5 + len(options) // 4 if ihl is None else ihl
    total = 20 + len(options) + len(payload) if total is None else total
    addresses = ipaddress.IPv4Address(src).packed + ipaddress.IPv4Address(dst).packed
    fields = (version << 4 | ihl, tos, total, 0x1234, fragment, ttl, protocol)
    without = struct.pack("!BBHHHBBH", *fields, 0) + addresses + options
    return struct.pack("!BBHHHBBH", *fields, checksum(without)) + addresses + options + payload


def ipv6(
    next_header: int,
    payload: bytes = b"",
    *,
    src: str = SRC6,
    dst: str = DST6,
    traffic_class: int = TOS,
    hop_limit: int = TTL,
    length: int | None = None,
    version: int = 6,
) -> bytes:
    """An IPv6 packet with a flow label; ``payload`` begins with the extension headers, see ``chain``."""
    length = len(payload) if length is None else length
    first = version << 28 | traffic_class << 20 | 0xBEEF5
    addresses = ipaddress.IPv6Address(src).packed + ipaddress.IPv6Address(dst).packed
    return struct.pack("!IHBB", first, length, next_header, hop_limit) + addresses + payload


def chain(headers: list[tuple[int, bytes]], protocol: int, payload: bytes = b"") -> tuple[int, bytes]:
    """Extension headers, each (type, what follows its next-header byte). ``ipv6(*chain(...))``."""
    for kind, body in reversed(headers):
        payload = bytes([protocol]) + body + payload
        protocol = kind
    return protocol, payload


def extension(kind: int, size: int = 8) -> tuple[int, bytes]:
    """An extension header of ``size`` bytes, filled with padding or zeros."""
    if kind == FRAGMENT:
        return fragment6(0, more=False)
    length = size // 4 - 2 if kind == AUTH else size // 8 - 1
    pad = bytes([1, size - 4]) + bytes(size - 4) if kind in (HOP, DEST) else bytes(size - 2)
    return kind, bytes([length]) + pad


def fragment6(offset: int, *, more: bool) -> tuple[int, bytes]:
    """A fragment header; ``offset`` in units of 8 octets."""
    return FRAGMENT, struct.pack("!BHI", 0, offset << 3 | more, 0x1234567)


def tcp(
    flags: int = ACK, payload: bytes = b"", *, sport: int = SPORT, dport: int = DPORT, options: bytes = b""
) -> bytes:
    """A TCP segment. ``flags``: the low 12 bits of bytes 12 and 13."""
    words = (5 + len(options) // 4) << 12 | flags
    return struct.pack("!HHIIHHHH", sport, dport, 1, 2, words, 512, 0, 0) + options + payload


def udp(payload: bytes = b"", *, sport: int = SPORT, dport: int = DPORT) -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int = 0, payload: bytes = b"") -> bytes:
    """An ICMP or ICMPv6 message without a checksum."""
    return struct.pack("!BBHHH", kind, code, 0, 1, 1) + payload
