"""The reckoning of the replay tool: frames made by hand, with what the standards say of them."""

from __future__ import annotations

import ipaddress

import pytest

from lab import frames as f
from lab.replay.reckoning import of_frame, of_payload
from lab.replay.reckoning_ip import NOTHING, Malformed, NotIp, TooManyExtensions, Upper

IP4, IP6 = f.ipv4(f.UDP, f.udp()), f.ipv6(f.UDP, f.udp())
PORTS = Upper(f.SPORT, f.DPORT)
LATER = b"\xff" * 16
SNAP = b"\xaa\xaa\x03\0\0\0"


def frame(ethertype: int, *layers: bytes) -> bytes:
    return f.ethernet(ethertype, b"".join(layers))


def v4(protocol: int, payload: bytes = b"", **fields: int) -> bytes:
    return frame(f.IPV4, f.ipv4(protocol, payload, **fields))  # type: ignore[arg-type]


def v6(*headers: tuple[int, bytes], protocol: int = f.UDP, payload: bytes | None = None, **fields: int) -> bytes:
    upper = f.udp() if payload is None else payload
    return frame(f.IPV6, f.ipv6(*f.chain(list(headers), protocol, upper), **fields))  # type: ignore[arg-type]


def pppoe(protocol: int, inner: bytes, first: int = 0x1100, length: int | None = None) -> bytes:
    size = len(inner) + 2 if length is None else length
    return frame(0x8864, first.to_bytes(2, "big"), b"\0\7", size.to_bytes(2, "big"), protocol.to_bytes(2, "big"), inner)


def mpls(*labels: int, inner: bytes = IP4) -> bytes:
    entries = [(label << 12 | (label == labels[-1]) << 8 | 64).to_bytes(4, "big") for label in labels]
    return frame(f.MPLS, *entries, inner)


def snap(ethertype: int, inner: bytes, length: int | None = None) -> bytes:
    body = SNAP + ethertype.to_bytes(2, "big") + inner
    return frame(len(body) if length is None else length, body)


# name: (frame, protocol, IP octets, upper layer)
PACKETS = {
    "udp": (v4(f.UDP, f.udp()), f.UDP, 28, PORTS),
    "padding": (v4(f.UDP, f.udp()) + bytes(18), f.UDP, 28, PORTS),
    "options": (frame(f.IPV4, f.ipv4(f.UDP, f.udp(), options=bytes(40))), f.UDP, 68, PORTS),
    "tcp flags": (v4(f.TCP, f.tcp(0xFFF)), f.TCP, 40, PORTS._replace(tcp_flags=0xFFF)),
    "tcp cut before the flags": (v4(f.TCP, f.tcp()[:13]), f.TCP, 33, PORTS),
    "udp-lite": (v4(f.UDPLITE, f.ports(8)), f.UDPLITE, 28, PORTS),
    "sctp": (v4(f.SCTP, f.ports(12)), f.SCTP, 32, PORTS),
    "dccp": (v4(f.DCCP, f.ports(16)), f.DCCP, 36, PORTS),
    "ports cut": (v4(f.UDP, f.udp()[:3]), f.UDP, 23, NOTHING),
    "icmp": (v4(f.ICMP, f.icmp(3, 1)), f.ICMP, 28, Upper(icmp_type=3, icmp_code=1)),
    "icmp without code": (v4(f.ICMP, b"\x08"), f.ICMP, 21, NOTHING),
    "icmpv6 in ipv4": (v4(f.ICMPV6, f.icmp(128)), f.ICMPV6, 28, Upper(icmp_type=128)),
    "icmp in ipv6": (v6(protocol=f.ICMP, payload=f.icmp(8, 1)), f.ICMP, 48, Upper(icmp_type=8, icmp_code=1)),
    "gre": (v4(f.GRE, f.gre(f.IPV4, IP4)), f.GRE, 52, NOTHING),
    "esp": (v4(f.ESP, bytes(32)), f.ESP, 52, NOTHING),
    "ah in ipv4": (v4(f.AUTH, bytes(32)), f.AUTH, 52, NOTHING),
    "first fragment": (v4(f.UDP, f.udp(), fragment=0x2000), f.UDP, 28, PORTS),
    "later fragment": (v4(f.UDP, LATER, fragment=1), f.UDP, 36, NOTHING),
    "ipv6": (v6(), f.UDP, 48, PORTS),
    "icmpv6": (v6(protocol=f.ICMPV6, payload=f.icmp(135, 2)), f.ICMPV6, 48, Upper(icmp_type=135, icmp_code=2)),
    "all extension headers": (
        v6(*[f.extension(kind, 24) for kind in (f.HOP, f.DEST, f.ROUTING, f.AUTH, f.MOBILITY, f.HIP, f.SHIM6)]),
        *(f.UDP, 48 + 7 * 24, PORTS),
    ),
    "64 extension headers": (v6(*[f.extension(f.DEST)] * 64), f.UDP, 560, PORTS),
    "first fragment of ipv6": (v6(f.fragment6(0, more=True)), f.UDP, 56, PORTS),
    "later fragment of ipv6": (v6(f.fragment6(1, more=True), payload=LATER), f.UDP, 64, NOTHING),
    "later fragment of a header": (v6(f.fragment6(9, more=False), f.extension(f.DEST)), f.DEST, 64, NOTHING),
    "header beyond the payload": (v6((f.DEST, b"\x04" + bytes(6))), f.DEST, 56, NOTHING),
    "esp ends the walk": (v6(f.extension(f.DEST), protocol=f.ESP, payload=LATER), f.ESP, 64, NOTHING),
    "no next header": (v6(protocol=f.NO_NEXT, payload=b""), f.NO_NEXT, 40, NOTHING),
    "jumbo payload": (v6(f.jumbo(16), length=0) + bytes(18), f.UDP, 56, PORTS),
    "jumbo payload behind padding": (
        v6((f.HOP, b"\x01\0\0\x01\x01\0\xc2\x04\0\0\0\x18" + bytes(3)), length=0),
        *(f.UDP, 64, PORTS),
    ),
    "pppoe": (pppoe(0x21, IP4), f.UDP, 28, PORTS),
    "pppoe with ipv6 and padding": (pppoe(0x57, IP6) + bytes(9), f.UDP, 48, PORTS),
    "mpls": (mpls(17), f.UDP, 28, PORTS),
    "mpls, three labels, ipv6": (mpls(17, 18, 19, inner=IP6), f.UDP, 48, PORTS),
    "mpls, 16 labels": (mpls(*range(16, 32)), f.UDP, 28, PORTS),
    "mpls, explicit null": (mpls(2, inner=IP6), f.UDP, 48, PORTS),
    "pppoe with one octet of protocol": (frame(0x8864, b"\x11\0\0\7\0\x1d\x21", IP4), f.UDP, 28, PORTS),
    "pppoe, length beyond the frame": (pppoe(0x21, IP4, length=99), f.UDP, 28, PORTS),
    "snap, length beyond the frame": (snap(f.IPV4, IP4, length=99), f.UDP, 28, PORTS),
    "snap": (snap(f.IPV4, IP4), f.UDP, 28, PORTS),
    "snap with padding": (snap(f.IPV6, IP6) + bytes(3), f.UDP, 48, PORTS),
    "mpls in pppoe": (pppoe(0x281, mpls(17)[14:]), f.UDP, 28, PORTS),
    "mpls in snap": (snap(f.MPLS, mpls(17)[14:]), f.UDP, 28, PORTS),
}


@pytest.mark.parametrize("name", PACKETS)
def test_packet(name: str) -> None:
    data, protocol, octets, upper = PACKETS[name]
    packet = of_frame(data)
    ip = packet.inner
    version = 4 if packet.ethertype == f.IPV4 else 6
    source, destination = (f.SRC4, f.DST4) if version == 4 else (f.SRC6, f.DST6)
    assert (ip.protocol, ip.octets, ip.upper) == (protocol, octets, upper)
    assert (ip.source, ip.destination) == tuple(ipaddress.ip_address(text).packed for text in (source, destination))
    assert (ip.tos, ip.ttl) == (f.TOS, f.TTL)
    assert (packet.source_mac, packet.destination_mac) == (f.mac(f.SRC_MAC), f.mac(f.DST_MAC))


def tagged(*tags: tuple[int, int, int]) -> bytes:
    """Tags (TPID, VLAN id, priority), outer first."""
    ethertype, payload = f.IPV4, IP4
    for tpid, vid, priority in reversed(tags):
        ethertype, payload = f.tag(tpid, vid, ethertype, payload, priority=priority)
    return f.ethernet(ethertype, payload)


# name: (frame, VLAN, priority)
TAGS = {
    "none": (tagged(), 0, 0),
    "802.1Q": (tagged((f.Q, 4095, 5)), 4095, 5),
    "802.1ad around 802.1Q": (tagged((f.AD, 100, 3), (f.Q, 200, 5)), 100, 3),
    "older": (tagged((f.QINQ_OLD, 100, 3), (f.Q, 200, 5)), 100, 3),
    "priority tag": (tagged((f.Q, 0, 6)), 0, 6),
    "priority tag around a vlan": (tagged((f.Q, 0, 6), (f.Q, 7, 2)), 7, 6),
    "four tags": (tagged((f.AD, 1, 1), (f.Q, 2, 2), (f.Q, 3, 3), (f.Q, 4, 4)), 1, 1),
}


@pytest.mark.parametrize("name", TAGS)
def test_tags(name: str) -> None:
    data, vlan, priority = TAGS[name]
    packet = of_frame(data)
    assert (packet.vlan, packet.priority, packet.inner.octets) == (vlan, priority, 28)


def test_without_ethernet() -> None:
    packet = of_payload(f.IPV6, IP6)
    assert (packet.ethertype, packet.source_mac, packet.inner.upper) == (f.IPV6, bytes(6), PORTS)


NOT_IP = {
    "arp": frame(f.ARP, bytes(28)),
    "lldp in a vlan": f.ethernet(*f.tag(f.Q, 7, f.LLDP, bytes(46))),
    "nothing": frame(f.ARP),
    "802.3 length": frame(38, b"\x42\x42\x03", bytes(35)),
    "802.3 length 0": frame(0, bytes(46)),
    "five tags": tagged(*[(f.Q, 1, 1)] * 5),
    "snap without ip": snap(f.ARP, bytes(28)),
    "snap of another organisation": frame(36, b"\xaa\xaa\x03\0\0\x0c\x08\0", IP4),
    "pppoe discovery": frame(0x8863, bytes(20)),
    "pppoe, lcp": pppoe(0xC021, bytes(8)),
    "pppoe of another code": pppoe(0x21, IP4, first=0x11A7),
    "mpls with a control word": mpls(17, inner=bytes(20)),
    "mpls with what only begins as ip": mpls(17, inner=IP4[:19]),
    "mpls, 17 labels": mpls(*range(16, 33)),
    "label stack cut": frame(f.MPLS, b"\0\1\0\x40\0\1"),
    "pppoe header cut": frame(0x8864, b"\x11\0\0\7\0"),
}


@pytest.mark.parametrize("name", NOT_IP)
def test_not_ip(name: str) -> None:
    with pytest.raises(NotIp):
        of_frame(NOT_IP[name])


MALFORMED = {
    "ipv4 header cut": frame(f.IPV4, IP4[:19]),
    "longer than the frame": v4(f.UDP, f.udp(), total=29),
    "shorter than its header": v4(f.UDP, f.udp(), total=19),
    "header length below 5": v4(f.UDP, f.udp(), ihl=4),
    "options beyond the frame": v4(f.UDP, ihl=15, total=60),
    "version 6 as IPv4": v4(f.UDP, f.udp(), version=6),
    "ipv6 header cut": frame(f.IPV6, IP6[:39]),
    "ipv6 longer than the frame": v6(length=9),
    "version 4 as IPv6": v6(version=4),
    "jumbo payload shorter than its header": v6(f.jumbo(7), length=0),
    "jumbo payload beyond the frame": v6(f.jumbo(70_000), length=0),
    "length 0 without jumbo payload": v6(f.extension(f.HOP), length=0),
    "tag cut": tagged((f.Q, 7, 0))[:17],
    "ip beyond pppoe": pppoe(0x21, IP4, length=29),
    "ip beyond snap": snap(f.IPV4, IP4, length=35),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        of_frame(MALFORMED[name])


def test_more_extension_headers_than_are_walked() -> None:
    with pytest.raises(TooManyExtensions):
        of_frame(v6(*[f.extension(f.DEST)] * 65))
