"""What is below IP: EtherTypes, VLAN tags in the frame, LLC/SNAP, PPPoE, MPLS, interfaces without Ethernet.

Tags that the kernel has moved to the metadata of a packet are in test_wire.py: a test run cannot set them."""

from __future__ import annotations

import pytest

from lab import frames as f
from lab.prog_run import Programs
from netobs.datapath.layout import NOT_IP_ETHERTYPES
from netobs.datapath.ledger import Count
from tests.kernel.flows import flow, flow6, no_ports, readable

pytestmark = pytest.mark.kernel

IP4, IP6 = f.ipv4(f.UDP, f.udp()), f.ipv6(f.UDP, f.udp())


def _tags(*tags: tuple[int, int], ethertype: int = f.IPV4, payload: bytes = IP4) -> bytes:
    """A frame with (TPID, VLAN id) tags, outer first; the outer has priority 5, the others 2."""
    for i, (tpid, vid) in reversed(list(enumerate(tags))):
        ethertype, payload = f.tag(tpid, vid, ethertype, payload, priority=2 if i else 5)
    return f.ethernet(ethertype, payload)


NOT_IP = {
    "arp": f.ethernet(f.ARP, bytes(28)),
    "lldp": f.ethernet(f.LLDP, bytes(46)),
    "802.3 length": f.ethernet(38, b"\x42\x42\x03" + bytes(35)),
    "802.3 length in a vlan": f.ethernet(*f.tag(f.Q, 7, 38, b"\x42\x42\x03" + bytes(35))),
    "arp in a vlan": f.ethernet(*f.tag(f.Q, 7, f.ARP, bytes(28))),
    "header only": f.ethernet(f.ARP),
    "EtherType 0xffff": f.ethernet(0xFFFF, IP4),
    "EtherType 0": f.ethernet(0, b"\x42\x42\x03" + bytes(43)),
    "EtherType 0 in a vlan": f.ethernet(*f.tag(f.Q, 7, 0, bytes(46))),
    "ip behind EtherType 0": f.ethernet(0, IP4),
    "five tags": _tags((f.AD, 1), (f.Q, 2), (f.Q, 3), (f.Q, 4), (f.Q, 5)),
    "pppoe of another version": f.ethernet(f.PPPOE, bytes(6) + b"\x00\x21" + IP4),
    "pppoe with a code": f.ethernet(*f.pppoe(f.PPP_IPV4, IP4, code=9)),
    "pppoe with lcp": f.ethernet(*f.pppoe(f.PPP_LCP, bytes(20))),
    "pppoe cut short": f.ethernet(*f.pppoe(f.PPP_IPV4, IP4))[:21],
    "pppoe discovery": f.ethernet(f.PPPOE_DISCOVERY, b"\x11\x09" + bytes(44)),
    "mpls with a control word": f.ethernet(*f.mpls(bytes(4) + f.ethernet(f.IPV4, IP4))),
    "mpls without an end": f.ethernet(f.MPLS, b"\x00\x01\x00\x40" * 12),
    "mpls with one label too many": f.ethernet(*f.mpls(IP4, labels=17)),
    "mpls and nothing": f.ethernet(*f.mpls()),
    "mpls, and what looks like ip but is none": f.ethernet(*f.mpls(b"\x48\xdf\x37" + bytes(60))),
    "mpls with ip cut short": f.ethernet(*f.mpls(IP4[:19])),
    "snap of another kind": f.ethernet(*f.snap(f.IPV4, IP4, oui=0x00000C)),
    "snap with arp": f.ethernet(*f.snap(f.ARP, bytes(28))),
    "snap cut short": f.ethernet(*f.snap(f.IPV4))[:21],
    "llc that is not snap": f.ethernet(11, b"\xaa\xab\x03" + bytes(3) + b"\x08\x00" + IP4),
    "llc with control of two octets": f.ethernet(11, b"\xaa\xaa\x00" + bytes(3) + b"\x08\x00" + IP4),
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
    "priority tag around a vlan": (_tags((f.Q, 0), (f.Q, 7)), flow(vlan_id=7, dot1q_priority=5)),
    "priority tags around a vlan": (_tags((f.AD, 0), (f.Q, 0), (f.Q, 7), (f.Q, 8)), flow(vlan_id=7, dot1q_priority=5)),
    "priority tag inside": (_tags((f.AD, 100), (f.Q, 0)), flow(vlan_id=100, dot1q_priority=5)),
    "four tags": (_tags((f.AD, 1), (f.Q, 2), (f.Q, 3), (f.Q, 4)), flow(vlan_id=1, dot1q_priority=5)),
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


BEHIND = {
    "pppoe": (f.ethernet(*f.pppoe(f.PPP_IPV4, IP4)), flow()),
    "pppoe with ipv6": (f.ethernet(*f.pppoe(f.PPP_IPV6, IP6)), flow6()),
    "pppoe, protocol in one octet": (f.ethernet(*f.pppoe(f.PPP_IPV4, IP4, compressed=True)), flow()),
    "pppoe, ipv6 in one octet": (f.ethernet(*f.pppoe(f.PPP_IPV6, IP6, compressed=True)), flow6()),
    "pppoe with padding": (f.ethernet(f.PPPOE, f.pppoe(f.PPP_IPV4, IP4)[1] + bytes(18)), flow()),
    "pppoe with padding of ppp": (f.ethernet(*f.pppoe(f.PPP_IPV4, IP4 + bytes(9))), flow()),
    "pppoe in a vlan": (
        f.ethernet(*f.tag(f.Q, 7, *f.pppoe(f.PPP_IPV4, IP4), priority=5)),
        flow(vlan_id=7, dot1q_priority=5),
    ),
    "pppoe in two vlans": (
        f.ethernet(*f.tag(f.AD, 9, *f.tag(f.Q, 7, *f.pppoe(f.PPP_IPV6, IP6)), priority=5)),
        flow6(vlan_id=9, dot1q_priority=5),
    ),
    "mpls in pppoe": (f.ethernet(*f.pppoe(f.PPP_MPLS, f.mpls(IP4, labels=2)[1])), flow()),
    "mpls": (f.ethernet(*f.mpls(IP4)), flow()),
    "mpls with ipv6": (f.ethernet(*f.mpls(IP6)), flow6()),
    "mpls multicast": (f.ethernet(*f.mpls(IP4, multicast=True)), flow()),
    "mpls, three labels": (f.ethernet(*f.mpls(IP4, labels=3)), flow()),
    "mpls, sixteen labels": (f.ethernet(*f.mpls(IP6, labels=16)), flow6()),
    "mpls with padding": (f.ethernet(f.MPLS, f.mpls(IP4)[1] + bytes(20)), flow()),
    "mpls in a vlan": (f.ethernet(*f.tag(f.Q, 7, *f.mpls(IP4), priority=5)), flow(vlan_id=7, dot1q_priority=5)),
    "snap": (f.ethernet(*f.snap(f.IPV4, IP4)), flow()),
    "snap with ipv6": (f.ethernet(*f.snap(f.IPV6, IP6)), flow6()),
    "snap with padding": (f.ethernet(f.snap(f.IPV4, IP4)[0], f.snap(f.IPV4, IP4)[1] + bytes(10)), flow()),
    "snap in a vlan": (f.ethernet(*f.tag(f.Q, 7, *f.snap(f.IPV4, IP4), priority=5)), flow(vlan_id=7, dot1q_priority=5)),
    "mpls in snap": (f.ethernet(*f.snap(*f.mpls(IP4, labels=2))), flow()),
    "tcp in pppoe": (
        f.ethernet(*f.pppoe(f.PPP_IPV4, f.ipv4(f.TCP, f.tcp(f.SYN)))),
        flow(protocol=f.TCP, tcp_flags=f.SYN, ip_length=40),
    ),
    "extension header in mpls": (
        f.ethernet(*f.mpls(f.ipv6(*f.chain([f.extension(f.DEST)], f.UDP, f.udp())))),
        flow6(ip_length=56),
    ),
}


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize(("program", "direction"), [("netobs_ingress", 0), ("netobs_egress", 1)])
def test_ip_behind_another_header(programs: Programs, name: str, program: str, direction: int) -> None:
    """The EtherType is that of IP, and the octets are its."""
    frame, expected = BEHIND[name]
    observed = programs.observe(frame, program=program)
    assert readable(observed.records) == [{**expected, "direction": direction}]
    assert observed.reasons == {}


CONTRADICTORY = {
    "ip beyond the end of pppoe": f.ethernet(*f.pppoe(f.PPP_IPV4, IP4, length=2 + len(IP4) - 1)),
    "pppoe of no length": f.ethernet(*f.pppoe(f.PPP_IPV6, IP6, length=0)),
    "ip beyond the length of 802.3": f.ethernet(*f.snap(f.IPV4, IP4, length=8 + len(IP4) - 1)),
    "ip beyond the frame in pppoe": f.ethernet(*f.pppoe(f.PPP_IPV4, IP4))[:-1],
    "version 6 as ipv4 in pppoe": f.ethernet(*f.pppoe(f.PPP_IPV4, IP6)),
}


@pytest.mark.parametrize("name", CONTRADICTORY)
def test_ip_that_contradicts_the_header_before_it_is_malformed(programs: Programs, name: str) -> None:
    observed = programs.observe(CONTRADICTORY[name])
    assert observed.reasons == {"malformed": (1, len(CONTRADICTORY[name]))}


def test_what_is_not_ip_is_counted_by_ethertype() -> None:
    frames = [NOT_IP[name] for name in ("arp", "arp in a vlan", "snap with arp", "lldp", "802.3 length", "EtherType 0")]
    frames += [NOT_IP[name] for name in ("pppoe with lcp", "mpls with a control word", "five tags")]
    with Programs(max_flows=1024) as programs:
        programs.observe(*frames)
        ledger = programs.ledger()
    found = {number: (count.packets, count.octets) for number, count in ledger.ethertypes.items()}
    length = len(NOT_IP["802.3 length"]) + len(NOT_IP["EtherType 0"])
    assert found[f.ARP] == (3, sum(len(frame) for frame in frames[:3]))
    assert found[0] == (2, length)
    assert {number: packets for number, (packets, _) in found.items()} == {
        f.ARP: 3, 0: 2, f.LLDP: 1, f.PPPOE: 1, f.MPLS: 1, f.Q: 1
    }  # fmt: skip
    assert list(found)[:2] == [f.ARP, 0]
    assert ledger.other_ethertypes == Count(0, 0)


def test_sixteen_ethertypes_are_counted_and_the_others_together() -> None:
    with Programs(max_flows=1024) as programs:
        run = programs.run()
        for number in range(20):
            run(f.ethernet(0x9900 + number, bytes(46)), repeat=number + 1)
        ledger = programs.ledger()
    assert len(ledger.ethertypes) == NOT_IP_ETHERTYPES
    counted = sum(count.packets for count in ledger.ethertypes.values())
    assert counted + ledger.other_ethertypes.packets == ledger.reasons["not_ip"].packets == 20 * 21 // 2
    octets = sum(count.octets for count in ledger.ethertypes.values())
    assert octets + ledger.other_ethertypes.octets == ledger.reasons["not_ip"].octets == 60 * 20 * 21 // 2


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


def test_mpls_without_ethernet(programs: Programs) -> None:
    """As a tunnel carries it (RFC 4023). Bytes 12 and 13 are the packet's TTL and protocol."""
    packet = f.mpls(f.ipv4(f.MPLS & 0xFF, ttl=f.MPLS >> 8))[1]
    observed = programs.observe(packet, program="netobs_l3_ingress")
    no_macs = {"src_mac": "00:00:00:00:00:00", "dst_mac": "00:00:00:00:00:00"}
    expected = no_ports(protocol=f.MPLS & 0xFF, ip_length=20, min_ttl=f.MPLS >> 8, max_ttl=f.MPLS >> 8, **no_macs)
    assert readable(observed.records) == [expected]


def test_without_ethernet_not_ip(programs: Programs) -> None:
    frame = f.ipv4(f.UDP, f.udp(), src="8.6.0.1")  # bytes 12 and 13 say ARP
    assert programs.observe(frame, program="netobs_l3_ingress").reasons == {"not_ip": (1, len(frame))}
