"""What is below IP: EtherTypes, VLAN tags in the frame, interfaces without Ethernet. Tags that the kernel has moved to
the metadata of a packet are in test_wire.py: a test run cannot set them."""

from __future__ import annotations

import pytest

from tests.kernel import frames as f
from tests.kernel.flows import flow, flow6, readable
from tests.kernel.programs import Programs

pytestmark = pytest.mark.kernel

IP4, IP6 = f.ipv4(f.UDP, f.udp()), f.ipv6(f.UDP, f.udp())


def _tags(*tags: tuple[int, int], ethertype: int = f.IPV4, payload: bytes = IP4) -> bytes:
    """A frame with (TPID, VLAN id) tags, outer first; the outer has priority 5, the others 2."""
    for i, (tpid, vid) in reversed(list(enumerate(tags))):
        ethertype, payload = f.tag(tpid, vid, ethertype, payload, priority=2 if i else 5)
    return f.ethernet(ethertype, payload)


NOT_IP = {
    "arp": f.ethernet(f.ARP, bytes(28)),
    "mpls": f.ethernet(f.MPLS, b"\x00\x01\x01\x40" + IP4),
    "lldp": f.ethernet(f.LLDP, bytes(46)),
    "802.3 length": f.ethernet(38, b"\x42\x42\x03" + bytes(35)),
    "802.3 length in a vlan": f.ethernet(*f.tag(f.Q, 7, 38, b"\x42\x42\x03" + bytes(35))),
    "arp in a vlan": f.ethernet(*f.tag(f.Q, 7, f.ARP, bytes(28))),
    "header only": f.ethernet(f.ARP),
    "EtherType 0xffff": f.ethernet(0xFFFF, IP4),
    "pppoe session": f.ethernet(0x8864, bytes(6) + IP4),
    "four tags": _tags((f.AD, 1), (f.Q, 2), (f.Q, 3), (f.Q, 4)),
}


@pytest.mark.parametrize("name", NOT_IP)
def test_frame_is_not_ip(programs: Programs, name: str) -> None:
    observed = programs.observe(NOT_IP[name])
    assert len(observed.records) == 0
    assert observed.reasons == {"not_ip": (1, len(NOT_IP[name]))}


TAGGED = {
    "802.1Q": (_tags((f.Q, 100)), flow(vlan_id=100, dot1q_priority=5)),
    "802.1ad": (_tags((f.AD, 100)), flow(vlan_id=100, dot1q_priority=5)),
    "0x9100": (_tags((f.QINQ_OLD, 100)), flow(vlan_id=100, dot1q_priority=5)),
    "largest id": (_tags((f.Q, 4095)), flow(vlan_id=4095, dot1q_priority=5)),
    "priority tag": (_tags((f.Q, 0)), flow(dot1q_priority=5)),
    "priority tag around a vlan": (_tags((f.Q, 0), (f.Q, 7)), flow(dot1q_priority=5)),
    "QinQ": (_tags((f.AD, 100), (f.Q, 200)), flow(vlan_id=100, dot1q_priority=5)),
    "802.1Q twice": (_tags((f.Q, 100), (f.Q, 200)), flow(vlan_id=100, dot1q_priority=5)),
    "three tags": (_tags((f.AD, 1), (f.Q, 2), (f.QINQ_OLD, 3)), flow(vlan_id=1, dot1q_priority=5)),
    "ipv6": (_tags((f.Q, 100), ethertype=f.IPV6, payload=IP6), flow6(vlan_id=100, dot1q_priority=5)),
    "padding": (_tags((f.Q, 100), payload=IP4 + bytes(14)), flow(vlan_id=100, dot1q_priority=5)),
    "drop eligible": (
        f.ethernet(f.Q, b"\xf0\x64\x08\x00" + IP4),
        flow(vlan_id=100, dot1q_priority=7),
    ),
}


@pytest.mark.parametrize("name", TAGGED)
def test_outer_tag_counts(programs: Programs, name: str) -> None:
    frame, expected = TAGGED[name]
    observed = programs.observe(frame)
    assert readable(observed.records) == [expected]
    assert observed.reasons == {}


@pytest.mark.parametrize("size", range(4))
def test_tag_cut_short_is_malformed(programs: Programs, size: int) -> None:
    frame = _tags((f.Q, 100))[: 14 + size]
    assert programs.observe(frame).reasons == {"malformed": (1, 14 + size)}


@pytest.mark.parametrize("size", range(4))
def test_inner_tag_cut_short_is_malformed(programs: Programs, size: int) -> None:
    frame = _tags((f.AD, 100), (f.Q, 200))[: 18 + size]
    assert programs.observe(frame).reasons == {"malformed": (1, 18 + size)}


@pytest.mark.parametrize(("program", "direction"), [("netobs_l3_ingress", 0), ("netobs_l3_egress", 1)])
def test_without_ethernet(programs: Programs, program: str, direction: int) -> None:
    """A test run takes the EtherType from bytes 12 and 13 whatever the program: here they are in the source address."""
    packets = (
        f.ipv4(f.UDP, f.udp(bytes(6)), src="8.0.0.1"),
        f.ipv6(f.UDP, f.udp(bytes(6)), src="2001:db8:86dd::1"),
    )
    observed = programs.observe(*packets, program=program)
    fields = {"direction": direction, "src_mac": "00:00:00:00:00:00", "dst_mac": "00:00:00:00:00:00"}
    expected = [
        flow(src_addr="8.0.0.1", ip_length=34, **fields),
        flow6(src_addr="2001:db8:86dd::1", ip_length=54, **fields),
    ]
    assert sorted(readable(observed.records), key=lambda row: row["ethertype"]) == expected


def test_without_ethernet_not_ip(programs: Programs) -> None:
    frame = f.ipv4(f.UDP, f.udp(), src="8.6.0.1")  # bytes 12 and 13 say ARP
    assert programs.observe(frame, program="netobs_l3_ingress").reasons == {"not_ip": (1, len(frame))}
