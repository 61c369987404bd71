"""Counting rules for IPv6 and its extension headers: one frame each, with the exact record or reason."""

from __future__ import annotations

import pytest

from lab import frames as f
from lab.prog_run import Programs
from tests.kernel.flows import flow6, no_ports6, readable

pytestmark = pytest.mark.kernel

UDP = f.udp()
MOST = 64  # extension headers that are walked


def _ipv6(next_header: int, payload: bytes = b"", *, padding: int = 0, **fields: int) -> bytes:
    return f.ethernet(f.IPV6, f.ipv6(next_header, payload, **fields) + bytes(padding))  # type: ignore[arg-type]


def _chain(*headers: tuple[int, bytes], protocol: int = f.UDP, payload: bytes = UDP) -> bytes:
    return _ipv6(*f.chain(list(headers), protocol, payload))


def _jumbo(length: int, payload: bytes, protocol: int = f.UDP) -> bytes:
    return _ipv6(*f.chain([f.jumbo(length)], protocol, payload), length=0)


def _in_vlan(payload: bytes) -> bytes:
    return f.ethernet(*f.tag(f.Q, 9, f.IPV6, payload))


def _cut(frame: bytes, count: int) -> bytes:
    """An IPv6 packet that ends ``count`` bytes earlier and says so."""
    packet = frame[14:-count]
    return frame[:14] + packet[:4] + (len(packet) - 40).to_bytes(2, "big") + packet[6:]


ALL_SEEN_IN_PRACTICE = [f.extension(kind) for kind in (f.HOP, f.DEST, f.ROUTING, f.FRAGMENT, f.DEST)]

FLOWS = {
    "udp": (_ipv6(f.UDP, UDP), flow6()),
    "tcp": (_ipv6(f.TCP, f.tcp(0x1FF)), flow6(protocol=f.TCP, tcp_flags=0x1FF, ip_length=60)),
    "sctp": (_ipv6(f.SCTP, f.ports(12)), flow6(protocol=f.SCTP, ip_length=52)),
    "dccp": (_ipv6(f.DCCP, f.ports(16)), flow6(protocol=f.DCCP, ip_length=56)),
    "udp-lite": (_ipv6(f.UDPLITE, f.ports(8)), flow6(protocol=f.UDPLITE)),
    "neighbour solicitation": (
        _ipv6(f.ICMPV6, f.icmp(135, 0, bytes(16)), hop_limit=255),
        no_ports6(protocol=f.ICMPV6, icmp=(135, 0), ip_length=64, min_ttl=255, max_ttl=255),
    ),
    "port unreachable": (
        _ipv6(f.ICMPV6, f.icmp(1, 4)),
        no_ports6(protocol=f.ICMPV6, icmp=(1, 4)),
    ),
    "ipv4 inside": (_ipv6(f.IPIP, f.ipv4(f.UDP, UDP)), no_ports6(protocol=f.IPIP, ip_length=68)),
    "traffic class 255": (_ipv6(f.UDP, UDP, traffic_class=255), flow6(tos=255)),
    "traffic class 0": (_ipv6(f.UDP, UDP, traffic_class=0), flow6(tos=0)),
    "padding of a short frame": (_ipv6(f.UDP, UDP, padding=5), flow6()),
    "payload length 0": (_ipv6(f.UDP, b"", padding=20), no_ports6(ip_length=40)),
    "no next header": (_ipv6(f.NO_NEXT, bytes(9)), no_ports6(protocol=f.NO_NEXT, ip_length=49)),
    "no next header, bare": (_ipv6(f.NO_NEXT), no_ports6(protocol=f.NO_NEXT, ip_length=40)),
    "esp hides the rest": (_ipv6(f.ESP, b"\xff" * 32), no_ports6(protocol=f.ESP, ip_length=72)),
    "esp after destination options": (
        _chain(f.extension(f.DEST), protocol=f.ESP, payload=b"\xff" * 32),
        no_ports6(protocol=f.ESP, ip_length=80),
    ),
    "no next header after hop-by-hop": (
        _chain(f.extension(f.HOP), protocol=f.NO_NEXT, payload=b""),
        no_ports6(protocol=f.NO_NEXT, ip_length=48),
    ),
    "tcp after all that is seen in practice": (
        _chain(*ALL_SEEN_IN_PRACTICE, protocol=f.TCP, payload=f.tcp(f.SYN)),
        flow6(protocol=f.TCP, tcp_flags=f.SYN, ip_length=100),
    ),
    "long headers": (
        _chain((f.HOP, f.extension(f.HOP, 256)[1]), (f.ROUTING, f.extension(f.ROUTING, 2048)[1])),
        flow6(ip_length=48 + 256 + 2048),
    ),
    "long authentication header": (_chain(f.extension(f.AUTH, 44)), flow6(ip_length=92)),
    "multicast listener report": (
        _chain(f.extension(f.HOP), protocol=f.ICMPV6, payload=f.icmp(143)),
        no_ports6(protocol=f.ICMPV6, icmp=(143, 0), ip_length=56),
    ),
    "first fragment": (_chain(f.fragment6(0, more=True)), flow6(ip_length=56)),
    "atomic fragment": (_chain(f.fragment6(0, more=False)), flow6(ip_length=56)),
    "later fragment": (_chain(f.fragment6(1, more=True), payload=b"\xff" * 8), no_ports6(ip_length=56)),
    "last fragment": (_chain(f.fragment6(0x1FFF, more=False), payload=b"\xff" * 8), no_ports6(ip_length=56)),
    "later fragment after hop-by-hop": (
        _chain(f.extension(f.HOP), f.fragment6(185, more=False), protocol=f.TCP, payload=b"\xff" * 40),
        no_ports6(protocol=f.TCP, ip_length=96),
    ),
    # What follows a later fragment's header is payload, even if the next header field names an extension header.
    "later fragment of an extension header": (
        _chain(f.fragment6(1, more=False), protocol=f.DEST, payload=b"\x11" + bytes(7) + UDP),
        no_ports6(protocol=f.DEST, ip_length=64),
    ),
    "eight extension headers": (_chain(*[f.extension(f.DEST)] * 8), flow6(ip_length=112)),
    "nine extension headers": (_chain(*[f.extension(f.DEST)] * 9), flow6(ip_length=120)),
    "as many extension headers as are walked": (_chain(*[f.extension(f.DEST)] * MOST), flow6(ip_length=48 + 8 * MOST)),
    "a later fragment behind as many": (
        _chain(*[f.extension(f.DEST)] * (MOST - 1), f.fragment6(1, more=False), protocol=f.DEST, payload=bytes(8)),
        no_ports6(protocol=f.DEST, ip_length=48 + 8 * MOST),
    ),
    "jumbo payload": (_jumbo(16, UDP), flow6(ip_length=56)),
    "jumbo payload and padding": (_jumbo(16, UDP + bytes(20)), flow6(ip_length=56)),
    "jumbo payload without payload": (_jumbo(8, b"", protocol=f.NO_NEXT), no_ports6(protocol=f.NO_NEXT, ip_length=48)),
    "jumbo payload behind other options": (
        _ipv6(
            *f.chain(
                [(f.HOP, b"\x01\x05\x02" + bytes(3) + b"\xc2\x04" + (24).to_bytes(4, "big") + bytes(3))], f.UDP, UDP
            ),
            length=0,
        ),
        flow6(ip_length=64),
    ),
    "jumbo payload and another extension header": (
        _ipv6(*f.chain([f.jumbo(24), f.extension(f.DEST)], f.UDP, UDP), length=0),
        flow6(ip_length=64),
    ),
    "jumbo payload beside a payload length": (
        _ipv6(*f.chain([f.jumbo(16)], f.UDP, UDP), length=16),
        flow6(ip_length=56),
    ),
    "extension header beyond the payload": (
        _chain((f.HOP, b"\x04" + bytes(6))),
        no_ports6(protocol=f.HOP, ip_length=56),
    ),
    "extension header beyond the payload, not beyond the frame": (
        _ipv6(*f.chain([(f.HOP, b"\x01" + bytes(6))], f.UDP, b""), padding=30),
        no_ports6(protocol=f.HOP, ip_length=48),
    ),
    "extension header cut short": (_cut(_ipv6(f.DEST, bytes(8)), 1), no_ports6(protocol=f.DEST, ip_length=47)),
    "extension header missing": (_ipv6(f.ROUTING), no_ports6(protocol=f.ROUTING, ip_length=40)),
    "second extension header cut short": (
        _cut(_chain(f.extension(f.HOP), f.extension(f.DEST), payload=b""), 3),
        no_ports6(protocol=f.DEST, ip_length=53),
    ),
    "ports cut short after a header": (
        _cut(_chain(f.extension(f.HOP), payload=UDP[:4]), 1),
        no_ports6(ip_length=51),
    ),
    "version in the first nibble only": (_ipv6(f.UDP, UDP, traffic_class=0x44), flow6(tos=0x44)),
}


@pytest.mark.parametrize("name", FLOWS)
def test_frame_becomes_this_flow(programs: Programs, name: str) -> None:
    frame, expected = FLOWS[name]
    observed = programs.observe(frame)
    assert readable(observed.records) == [expected]
    assert observed.reasons == {}


@pytest.mark.parametrize("kind", [f.HOP, f.ROUTING, f.FRAGMENT, f.DEST, f.AUTH, f.MOBILITY, f.HIP, f.SHIM6])
def test_extension_header_is_walked(programs: Programs, kind: int) -> None:
    observed = programs.observe(_chain(f.extension(kind, 8 if kind != f.AUTH else 24), f.extension(f.DEST, 16)))
    assert readable(observed.records) == [flow6(ip_length=48 + 16 + (8 if kind != f.AUTH else 24))]


MALFORMED = {
    "longer than the frame": _ipv6(f.UDP, UDP, length=9),
    "as long as can be": _ipv6(f.UDP, UDP, length=0xFFFF),
    "version 4 as EtherType IPv6": _ipv6(f.UDP, UDP, version=4),
    "version 0": _ipv6(f.UDP, UDP, version=0),
    "payload length 0 and no jumbo payload": _ipv6(*f.chain([f.extension(f.HOP)], f.UDP, UDP), length=0),
    "payload length 0 and options without a jumbo payload": _ipv6(
        *f.chain([f.extension(f.HOP, 256)], f.UDP, UDP), length=0
    ),
    "payload length 0 and the header cut short": _in_vlan(f.ipv6(f.HOP, length=0)),
    "jumbo payload beyond the frame": _jumbo(17, UDP),
    "jumbo payload far beyond the frame": _jumbo(70_000, UDP + bytes(28)),
    "jumbo payload that wraps": _jumbo(2**32 - 40, UDP),
    "jumbo payload that wraps to this length": _jumbo(2**32 - 24, UDP),
    "jumbo payload of 0": _jumbo(0, UDP),
    "jumbo payload that ends in its own header": _jumbo(7, UDP),
    "jumbo payload of another length": _ipv6(*f.chain([(f.HOP, b"\x00\xc2\x02" + bytes(4))], f.UDP, UDP), length=0),
    "jumbo payload beyond the options": _ipv6(
        *f.chain([(f.HOP, b"\x00\x01\x00\xc2\x04\x00\x00")], f.UDP, UDP), length=0
    ),
    "nothing after the tag": _in_vlan(b""),
    "thirty-nine bytes of IP": _in_vlan(f.ipv6(f.UDP)[:39]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_frame_is_malformed(programs: Programs, name: str) -> None:
    observed = programs.observe(MALFORMED[name])
    assert len(observed.records) == 0
    assert observed.reasons == {"malformed": (1, len(MALFORMED[name]))}


@pytest.mark.parametrize("count", [MOST + 1, 180])
@pytest.mark.parametrize("protocol", [f.TCP, f.NO_NEXT])
def test_more_extension_headers_than_are_walked(programs: Programs, count: int, protocol: int) -> None:
    frame = _chain(*[f.extension(f.DEST)] * count, protocol=protocol, payload=f.tcp(f.SYN))
    observed = programs.observe(frame)
    assert len(observed.records) == 0
    assert observed.reasons == {"ext_headers": (1, len(frame))}


def test_addresses_are_whole(programs: Programs) -> None:
    packet = f.ipv6(f.UDP, UDP, src="1:203:405:607:809:a0b:c0d:e0f", dst="fe80::ffff:192.0.2.1")
    observed = programs.observe(f.ethernet(f.IPV6, packet))
    expected = flow6(src_addr="1:203:405:607:809:a0b:c0d:e0f", dst_addr="fe80::ffff:c000:201")
    assert readable(observed.records) == [expected]


def test_mapped_address_is_not_the_ipv4_flow(programs: Programs) -> None:
    """The EtherType is a part of the key: ::ffff:192.0.2.1 on the wire is another flow than 192.0.2.1."""
    mapped = f.ipv6(f.UDP, UDP, src=f"::ffff:{f.SRC4}", dst=f"::ffff:{f.DST4}")
    observed = programs.observe(f.ethernet(f.IPV6, mapped), f.ethernet(f.IPV4, f.ipv4(f.UDP, UDP)))
    assert sorted(record["ethertype"] for record in readable(observed.records)) == [f.IPV4, f.IPV6]
