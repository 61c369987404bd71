"""Super-packets: GSO and GRO. What is counted is what their segments are on the wire.

The rule of the kernel is qdisc_pkt_len_init() (net/core/dev.c): each segment repeats all headers.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lab import frames as f
from lab.prog_run import Programs
from tests.kernel.flows import Flow, flow, flow6, no_ports, no_ports6, readable

pytestmark = pytest.mark.kernel

PAYLOAD = bytes(2500)  # with 1000 octets in each: segments of 1000, 1000 and 500
SIZE, SEGMENTS = 1000, 3
TIMESTAMPS = b"\x01\x01\x08\x0a" + bytes(8)
TCP = f.tcp(f.ACK, PAYLOAD)


@dataclass(frozen=True)
class Super:
    """A super-packet, and the octets of IP that each of its segments repeats: all headers from the outer IP on."""

    frame: bytes
    headers: int
    expected: Flow


def _counted(case: Super) -> Flow:
    return {
        **case.expected,
        "packets": SEGMENTS,
        "octets": len(PAYLOAD) + SEGMENTS * case.headers,
        "min_ip_length": case.headers + 500,
        "max_ip_length": case.headers + SIZE,
    }


def _v4(protocol: int, payload: bytes, **fields: bytes) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(protocol, payload, **fields))  # type: ignore[arg-type]


def _v6(protocol: int, payload: bytes) -> bytes:
    return f.ethernet(f.IPV6, f.ipv6(protocol, payload))


INNER4, INNER6 = f.ipv4(f.TCP, TCP, src="10.0.0.1"), f.ipv6(f.TCP, TCP, src="fd00::1")
INNER_ETHERNET = f.ethernet(f.IPV4, INNER4)
INNER_VLAN = f.ethernet(*f.tag(f.Q, 5, f.IPV4, INNER4))
OF_TCP = {"protocol": f.TCP, "tcp_flags": f.ACK}
VXLAN4 = flow(dst_port=4789)

CASES = {
    "tcp over ipv4": Super(_v4(f.TCP, TCP), 40, flow(**OF_TCP)),
    "tcp over ipv6": Super(_v6(f.TCP, TCP), 60, flow6(**OF_TCP)),
    "tcp options": Super(_v4(f.TCP, f.tcp(f.ACK, PAYLOAD, options=TIMESTAMPS)), 52, flow(**OF_TCP)),
    "ip options": Super(_v4(f.TCP, TCP, options=b"\x01" * 8), 48, flow(**OF_TCP)),
    "in a vlan": Super(f.ethernet(*f.tag(f.Q, 100, f.IPV4, f.ipv4(f.TCP, TCP))), 40, flow(**OF_TCP, vlan_id=100)),
    "pppoe": Super(f.ethernet(*f.pppoe(f.PPP_IPV4, f.ipv4(f.TCP, TCP))), 40, flow(**OF_TCP)),
    "pppoe whose length field is of one segment": Super(
        f.ethernet(*f.pppoe(f.PPP_IPV6, f.ipv6(f.TCP, TCP), length=1042)), 60, flow6(**OF_TCP)
    ),
    "mpls": Super(f.ethernet(*f.mpls(f.ipv4(f.TCP, TCP), labels=2)), 40, flow(**OF_TCP)),
    "mpls in a vlan": Super(
        f.ethernet(*f.tag(f.Q, 100, *f.mpls(f.ipv6(f.TCP, TCP)))), 60, flow6(**OF_TCP, vlan_id=100)
    ),
    "vxlan in mpls": Super(
        f.ethernet(*f.mpls(f.ipv4(f.UDP, f.vxlan(f.ethernet(f.IPV4, f.ipv4(f.TCP, TCP)))))), 90, VXLAN4
    ),
    "extension header": Super(_v6(*f.chain([f.extension(f.DEST)], f.TCP, TCP)), 68, flow6(**OF_TCP)),
    "udp": Super(_v4(f.UDP, f.udp(PAYLOAD)), 28, flow()),
    "udp over ipv6": Super(_v6(f.UDP, f.udp(PAYLOAD)), 48, flow6()),
    "sctp": Super(_v4(f.SCTP, f.ports(12) + PAYLOAD), 32, flow(protocol=f.SCTP)),
    "vxlan": Super(_v4(f.UDP, f.vxlan(INNER_ETHERNET)), 20 + 16 + 14 + 40, VXLAN4),
    "vxlan, port of Linux": Super(
        _v4(f.UDP, f.vxlan(INNER_ETHERNET, port=8472)), 20 + 16 + 14 + 40, flow(dst_port=8472)
    ),
    "vxlan with a tag inside": Super(_v4(f.UDP, f.vxlan(INNER_VLAN)), 20 + 16 + 18 + 40, VXLAN4),
    "vxlan with ipv6 inside": Super(_v4(f.UDP, f.vxlan(f.ethernet(f.IPV6, INNER6))), 20 + 16 + 14 + 60, VXLAN4),
    "vxlan over ipv6": Super(_v6(f.UDP, f.vxlan(INNER_ETHERNET)), 40 + 16 + 14 + 40, flow6(dst_port=4789)),
    "vxlan with udp inside": Super(
        _v4(f.UDP, f.vxlan(f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(PAYLOAD))))), 20 + 16 + 14 + 28, VXLAN4
    ),
    "geneve": Super(_v4(f.UDP, f.geneve(f.TEB, INNER_ETHERNET)), 20 + 16 + 14 + 40, flow(dst_port=6081)),
    "geneve with options": Super(
        _v4(f.UDP, f.geneve(f.TEB, INNER_ETHERNET, options=bytes(12))), 20 + 28 + 14 + 40, flow(dst_port=6081)
    ),
    "geneve without ethernet": Super(_v4(f.UDP, f.geneve(f.IPV6, INNER6)), 20 + 16 + 60, flow(dst_port=6081)),
    "gre": Super(_v4(f.GRE, f.gre(f.IPV4, INNER4)), 20 + 4 + 40, no_ports(protocol=f.GRE)),
    "gre with key": Super(_v4(f.GRE, f.gre(f.IPV4, INNER4, key=True)), 20 + 8 + 40, no_ports(protocol=f.GRE)),
    "gre with all": Super(
        _v4(f.GRE, f.gre(f.IPV6, INNER6, with_checksum=True, key=True, sequence=True)),
        20 + 16 + 60,
        no_ports(protocol=f.GRE),
    ),
    "gretap": Super(_v4(f.GRE, f.gre(f.TEB, INNER_ETHERNET)), 20 + 4 + 14 + 40, no_ports(protocol=f.GRE)),
    "gre over ipv6": Super(_v6(f.GRE, f.gre(f.IPV4, INNER4)), 40 + 4 + 40, no_ports6(protocol=f.GRE)),
    "ipip": Super(_v4(f.IPIP, INNER4), 20 + 40, no_ports(protocol=f.IPIP)),
    "sit": Super(_v4(f.IP6IN4, INNER6), 20 + 60, no_ports(protocol=f.IP6IN4)),
    "ip6tnl": Super(_v6(f.IP6IN4, INNER6), 40 + 60, no_ports6(protocol=f.IP6IN4)),
}


@pytest.mark.parametrize("segments", [SEGMENTS, 0], ids=["segments known", "segments not filled in"])
@pytest.mark.parametrize("name", CASES)
def test_super_packet_counts_its_segments(programs: Programs, name: str, segments: int) -> None:
    case = CASES[name]
    observed = programs.observe(case.frame, gso_size=SIZE, gso_segs=segments)
    assert readable(observed.records) == [_counted(case)]


def test_last_segment_may_be_full(programs: Programs) -> None:
    observed = programs.observe(_v4(f.TCP, f.tcp(f.ACK, bytes(2000))), gso_size=1000, gso_segs=2)
    expected = flow(**OF_TCP, packets=2, octets=2080, min_ip_length=1040, max_ip_length=1040)
    assert readable(observed.records) == [expected]


def test_payload_below_the_segment_size_is_one_packet(programs: Programs) -> None:
    observed = programs.observe(_v4(f.TCP, f.tcp(f.ACK, bytes(10))), gso_size=1000, gso_segs=0)
    assert readable(observed.records) == [flow(**OF_TCP, ip_length=50)]


def test_super_packet_without_payload_is_one_packet(programs: Programs) -> None:
    observed = programs.observe(_v4(f.TCP, f.tcp(f.ACK)), gso_size=1000, gso_segs=1)
    assert readable(observed.records) == [flow(**OF_TCP, ip_length=40)]


def test_segments_without_a_size_are_one_packet(programs: Programs) -> None:
    """The stack sets gso_segs to 1 on packets that are no super-packets."""
    observed = programs.observe(_v4(f.TCP, f.tcp(f.ACK, bytes(10))), gso_size=0, gso_segs=1)
    assert readable(observed.records) == [flow(**OF_TCP, ip_length=50)]


def test_segments_of_one_octet(programs: Programs) -> None:
    observed = programs.observe(_v4(f.UDP, f.udp(bytes(64))), gso_size=1, gso_segs=64)
    assert readable(observed.records) == [flow(packets=64, octets=64 * 29, min_ip_length=29, max_ip_length=29)]


def test_big_tcp_of_ipv4_has_no_length(programs: Programs) -> None:
    """Above 64 KiB the length field is 0, and the length of the frame counts."""
    packet = f.ipv4(f.TCP, TCP, total=0)
    observed = programs.observe(f.ethernet(f.IPV4, packet), gso_size=SIZE, gso_segs=SEGMENTS)
    assert readable(observed.records) == [_counted(CASES["tcp over ipv4"])]


def test_jumbo_header_of_big_tcp_is_not_on_the_wire(programs: Programs) -> None:
    protocol, payload = f.chain([f.jumbo(len(TCP))], f.TCP, TCP)
    frame = f.ethernet(f.IPV6, f.ipv6(protocol, payload, length=0))
    observed = programs.observe(frame, gso_size=SIZE, gso_segs=SEGMENTS)
    assert readable(observed.records) == [_counted(CASES["tcp over ipv6"])]


def test_length_field_of_a_super_packet_is_not_believed(programs: Programs) -> None:
    frame = f.ethernet(f.IPV6, f.ipv6(f.TCP, TCP, length=1))
    observed = programs.observe(frame, gso_size=SIZE, gso_segs=SEGMENTS)
    assert readable(observed.records) == [_counted(CASES["tcp over ipv6"])]


def test_tunnel_of_something_else_repeats_what_is_known(programs: Programs) -> None:
    frame = _v4(f.UDP, f.vxlan(f.ethernet(f.ARP, PAYLOAD)))
    (row,) = readable(programs.observe(frame, gso_size=SIZE, gso_segs=SEGMENTS).records)
    assert (row["packets"], row["octets"]) == (3, len(frame) - 14 + 2 * 28)


def test_super_packet_that_is_not_ip(programs: Programs) -> None:
    frame = f.ethernet(*f.mpls(bytes(4) + f.ethernet(f.IPV4, f.ipv4(f.TCP, TCP))))
    assert programs.observe(frame, gso_size=SIZE, gso_segs=SEGMENTS).reasons == {"not_ip": (3, len(frame))}
