"""Counting rules for IPv4: one frame each, with the exact record or reason that it must give."""

from __future__ import annotations

import pytest

from lab import frames as f
from lab.prog_run import Programs
from tests.kernel.flows import Flow, flow, no_ports, readable

pytestmark = pytest.mark.kernel

NOP = b"\x01"


def _ipv4(*arguments: object, padding: int = 0, **fields: object) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(*arguments, **fields) + bytes(padding))  # type: ignore[arg-type]


def _in_vlan(payload: bytes) -> bytes:
    """A test run refuses an IPv4 frame below 34 bytes, unless the EtherType of the frame says VLAN."""
    return f.ethernet(*f.tag(f.Q, 9, f.IPV4, payload))


FLOWS = {
    "udp": (_ipv4(f.UDP, f.udp()), flow()),
    "udp with payload": (_ipv4(f.UDP, f.udp(bytes(100))), flow(ip_length=128)),
    "no payload at all": (_ipv4(f.UDP), no_ports(ip_length=20)),
    "tcp": (_ipv4(f.TCP, f.tcp()), flow(protocol=f.TCP, tcp_flags=f.ACK, ip_length=40)),
    "sctp": (_ipv4(f.SCTP, f.ports(12)), flow(protocol=f.SCTP, ip_length=32)),
    "udp-lite": (_ipv4(f.UDPLITE, f.ports(8)), flow(protocol=f.UDPLITE)),
    "dccp": (_ipv4(f.DCCP, f.ports(16)), flow(protocol=f.DCCP, ip_length=36)),
    "no ports in gre": (_ipv4(f.GRE, f.gre(f.IPV4, f.ipv4(f.UDP))), no_ports(protocol=f.GRE, ip_length=44)),
    "no ports in esp": (_ipv4(f.ESP, bytes(range(1, 33))), no_ports(protocol=f.ESP, ip_length=52)),
    "no ports in protocol 255": (_ipv4(255, bytes(range(1, 33))), no_ports(protocol=255, ip_length=52)),
    "echo request": (_ipv4(f.ICMP, f.icmp(8)), no_ports(protocol=f.ICMP, icmp=(8, 0))),
    "port unreachable": (
        _ipv4(f.ICMP, f.icmp(3, 3, f.ipv4(f.UDP, f.udp()))),
        no_ports(protocol=f.ICMP, icmp=(3, 3), ip_length=56),
    ),
    "icmpv6 in ipv4": (_ipv4(f.ICMPV6, f.icmp(128, 1)), no_ports(protocol=f.ICMPV6, icmp=(128, 1))),
    "padding of a short frame": (_ipv4(f.UDP, f.udp(), padding=18), flow()),
    "padding is no header": (_ipv4(f.UDP, b"", padding=26), no_ports(ip_length=20)),
    "padding is no tcp flag": (_ipv4(f.TCP, f.tcp()[:13], padding=13), flow(protocol=f.TCP, ip_length=33)),
    "first fragment": (_ipv4(f.UDP, f.udp(bytes(64)), fragment=0x2000), flow(ip_length=92)),
    "later fragment": (_ipv4(f.UDP, bytes(range(1, 65)), fragment=0x2001), no_ports(ip_length=84)),
    "last fragment": (_ipv4(f.UDP, bytes(range(1, 65)), fragment=0x1FFF), no_ports(ip_length=84)),
    "later fragment of tcp": (
        _ipv4(f.TCP, b"\xff" * 40, fragment=0x0004),
        no_ports(protocol=f.TCP, ip_length=60),
    ),
    "later fragment of icmp": (_ipv4(f.ICMP, b"\xff" * 40, fragment=0x0004), no_ports(protocol=f.ICMP, ip_length=60)),
    "don't fragment": (_ipv4(f.UDP, f.udp(), fragment=0x4000), flow()),
    "evil bit": (_ipv4(f.UDP, f.udp(), fragment=0x8000), flow()),
    "udp cut after the ports": (_ipv4(f.UDP, f.udp()[:4]), flow(ip_length=24)),
    "udp cut in the ports": (_ipv4(f.UDP, f.udp()[:3]), no_ports(ip_length=23)),
    "padding is no port": (_ipv4(f.UDP, f.udp()[:3], padding=23), no_ports(ip_length=23)),
    "padding is no code": (_ipv4(f.ICMP, b"\x08", padding=25), no_ports(protocol=f.ICMP, ip_length=21)),
    "sctp cut in the ports": (_ipv4(f.SCTP, f.ports(12)[:1]), no_ports(protocol=f.SCTP, ip_length=21)),
    "tcp cut after the flags": (
        _ipv4(f.TCP, f.tcp(f.SYN)[:14]),
        flow(protocol=f.TCP, tcp_flags=f.SYN, ip_length=34),
    ),
    "tcp cut before the flags": (_ipv4(f.TCP, f.tcp(f.SYN)[:12]), flow(protocol=f.TCP, ip_length=32)),
    "tcp cut in the ports": (_ipv4(f.TCP, f.tcp(f.SYN)[:3]), no_ports(protocol=f.TCP, ip_length=23)),
    "icmp cut after the type": (_ipv4(f.ICMP, f.icmp(8)[:1]), no_ports(protocol=f.ICMP, ip_length=21)),
    "icmp cut after the code": (
        _ipv4(f.ICMP, f.icmp(3, 1)[:2]),
        no_ports(protocol=f.ICMP, icmp=(3, 1), ip_length=22),
    ),
    "tos and ttl 0": (_ipv4(f.UDP, f.udp(), tos=0, ttl=0), flow(tos=0, min_ttl=0, max_ttl=0)),
    "tos and ttl 255": (_ipv4(f.UDP, f.udp(), tos=255, ttl=255), flow(tos=255, min_ttl=255, max_ttl=255)),
    "broadcast": (
        f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(), src="0.0.0.0", dst="255.255.255.255"), dst="ff:ff:ff:ff:ff:ff"),
        flow(src_addr="0.0.0.0", dst_addr="255.255.255.255", dst_mac="ff:ff:ff:ff:ff:ff"),
    ),
    "largest frame of a test run": (_ipv4(f.UDP, f.udp(bytes(3600))), flow(ip_length=3628)),
}


@pytest.mark.parametrize("name", FLOWS)
def test_frame_becomes_this_flow(programs: Programs, name: str) -> None:
    frame, expected = FLOWS[name]
    observed = programs.observe(frame)
    assert readable(observed.records) == [expected]
    assert observed.reasons == {}


@pytest.mark.parametrize("ihl", range(6, 16))
def test_options_are_skipped(programs: Programs, ihl: int) -> None:
    options = NOP * (4 * (ihl - 5))
    observed = programs.observe(_ipv4(f.UDP, f.udp(bytes(5)), options=options))
    assert readable(observed.records) == [flow(ip_length=4 * ihl + 13)]


MALFORMED = {
    "longer than the frame": _ipv4(f.UDP, f.udp(), total=29),
    "as long as can be": _ipv4(f.UDP, f.udp(), total=0xFFFF),
    "length 0": _ipv4(f.UDP, f.udp(), total=0),
    "shorter than its header": _ipv4(f.UDP, f.udp(), total=19),
    "shorter than its options": _ipv4(f.UDP, f.udp(bytes(20)), ihl=9, total=35),
    "IHL 0": _ipv4(f.UDP, f.udp(), ihl=0),
    "IHL 4": _ipv4(f.UDP, f.udp(), ihl=4),
    "options beyond the frame": _ipv4(f.UDP, b"", ihl=15, total=60),
    "version 0": _ipv4(f.UDP, f.udp(), version=0),
    "version 6 as EtherType IPv4": _ipv4(f.UDP, f.udp(), version=6),
    "version 15": _ipv4(f.UDP, f.udp(), version=15),
    "nothing after the tag": _in_vlan(b""),
    "one byte of IP": _in_vlan(f.ipv4(f.UDP)[:1]),
    "nineteen bytes of IP": _in_vlan(f.ipv4(f.UDP)[:19]),
    "cut in the options": _in_vlan(f.ipv4(f.UDP, options=NOP * 8)[:24]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_frame_is_malformed(programs: Programs, name: str) -> None:
    observed = programs.observe(MALFORMED[name])
    assert len(observed.records) == 0
    assert observed.reasons == {"malformed": (1, len(MALFORMED[name]))}


def test_smallest_packets_in_a_vlan(programs: Programs) -> None:
    observed = programs.observe(_in_vlan(f.ipv4(f.UDP)))
    assert readable(observed.records) == [no_ports(vlan_id=9, ip_length=20)]


@pytest.mark.parametrize("bit", range(12))
def test_tcp_flag_alone(programs: Programs, bit: int) -> None:
    observed = programs.observe(_ipv4(f.TCP, f.tcp(1 << bit)))
    assert readable(observed.records) == [flow(protocol=f.TCP, tcp_flags=1 << bit, ip_length=40)]


def test_tcp_flags_are_ored(programs: Programs) -> None:
    segments = [_ipv4(f.TCP, f.tcp(flags)) for flags in (f.SYN, f.ACK, f.PSH | f.ACK, 0x100, 0)]
    observed = programs.observe(*segments)
    assert readable(observed.flows) == [
        {**flow(protocol=f.TCP, tcp_flags=0x11A, ip_length=40), "packets": 5, "octets": 200}
    ]


def test_data_offset_is_no_flag(programs: Programs) -> None:
    observed = programs.observe(_ipv4(f.TCP, f.tcp(f.FIN, options=NOP * 40)))
    assert readable(observed.records) == [flow(protocol=f.TCP, tcp_flags=f.FIN, ip_length=80)]


def test_lengths_and_ttl_have_minimum_and_maximum_and_the_rest_is_of_the_first_packet(programs: Programs) -> None:
    def packet(size: int, ttl: int, tos: int, mac: str) -> bytes:
        return f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(size)), ttl=ttl, tos=tos), src=mac, dst=mac)

    first, other = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
    observed = programs.observe(
        packet(100, 64, 4, first), packet(10, 1, 0, other), packet(1000, 255, 255, other), packet(50, 32, 8, other)
    )
    expected: Flow = flow(packets=4, octets=4 * 28 + 1160, min_ip_length=38, max_ip_length=1028, tos=4)
    assert readable(observed.flows) == [{**expected, "min_ttl": 1, "max_ttl": 255, "src_mac": first, "dst_mac": first}]


KEY_FIELDS = {
    "src_addr": _ipv4(f.UDP, f.udp(), src="192.0.2.9"),
    "dst_addr": _ipv4(f.UDP, f.udp(), dst="192.0.2.9"),
    "src_port": _ipv4(f.UDP, f.udp(sport=1)),
    "dst_port": _ipv4(f.UDP, f.udp(dport=1)),
    "protocol": _ipv4(f.UDPLITE, f.ports(8)),
    "vlan_id": f.ethernet(*f.tag(f.Q, 5, f.IPV4, f.ipv4(f.UDP, f.udp()))),
}


@pytest.mark.parametrize("field", KEY_FIELDS)
def test_key_field_parts_flows(programs: Programs, field: str) -> None:
    observed = programs.observe(_ipv4(f.UDP, f.udp()), KEY_FIELDS[field])
    one, two = readable(observed.records)
    assert {name for name in one if one[name] != two[name]} == {field}


@pytest.mark.parametrize(("program", "direction"), [("netobs_ingress", 0), ("netobs_egress", 1)])
def test_direction_is_that_of_the_program(programs: Programs, program: str, direction: int) -> None:
    observed = programs.observe(_ipv4(f.UDP, f.udp()), program=program)
    assert readable(observed.records) == [flow(direction=direction)]
