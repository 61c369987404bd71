"""Counting rules that need a real interface: tags in the metadata, runts, non-linear frames, GSO, no Ethernet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import frames as f
from lab.namespaces import Lab, Link
from lab.prog_run import Programs
from lab.wire import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, Sender, Tun, exchange, measured, virtio
from tests.kernel.flows import Flow, flow, flow6, readable

pytestmark = pytest.mark.kernel

MTU = 9000
UDP4 = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp()))
PAYLOAD = bytes(30_500)  # with 1000 octets in each: 30 full segments and one of 500

Pair = tuple[Link, Link]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Lab() as lab:
        yield lab.pair(mtu=MTU)


@pytest.fixture(scope="module", params=["tcx", "tc"])
def arriving(request: pytest.FixtureRequest, pair: Pair) -> Iterator[Programs]:
    """The ingress program on the second end of ``pair``."""
    with measured(pair[1], direction="ingress", attach=request.param) as programs:
        yield programs


@pytest.fixture
def sender(pair: Pair) -> Iterator[Sender]:
    with Sender(pair[0]) as opened:
        yield opened


@pytest.fixture
def offload(pair: Pair) -> Iterator[Sender]:
    with Sender(pair[0], offload=True) as opened:
        yield opened


def on(link: Link, expected: Flow) -> Flow:
    return {**expected, "ifindex": link.ifindex}


def test_interface_is_in_the_key(pair: Pair, arriving: Programs, sender: Sender) -> None:
    observed = exchange(arriving, sender, [UDP4] * 3)
    assert readable(observed.records) == [on(pair[1], flow(packets=3, octets=84, min_ip_length=28, max_ip_length=28))]


@pytest.mark.parametrize("tpid", [f.Q, f.AD])
def test_tag_in_the_metadata(pair: Pair, arriving: Programs, sender: Sender, tpid: int) -> None:
    """The kernel takes the outer tag out of a frame before the programs see it."""
    inner = f.tag(f.Q, 8, f.IPV4, f.ipv4(f.UDP, f.udp()), priority=1)
    both = f.ethernet(*f.tag(tpid, 100, *inner, priority=6))
    one = f.ethernet(*f.tag(tpid, 101, f.IPV6, f.ipv6(f.UDP, f.udp()), priority=7))
    observed = exchange(arriving, sender, [both, one])
    rows = sorted(readable(observed.records), key=lambda row: row["vlan_id"])
    assert rows == [
        on(pair[1], flow(vlan_id=100, dot1q_priority=6)),
        on(pair[1], flow6(vlan_id=101, dot1q_priority=7)),
    ]


def test_priority_tag_in_the_metadata_does_not_hide_the_inner_tag(
    pair: Pair, arriving: Programs, sender: Sender
) -> None:
    inner = f.tag(f.Q, 8, f.IPV4, f.ipv4(f.UDP, f.udp()))
    observed = exchange(arriving, sender, [f.ethernet(*f.tag(f.Q, 0, *inner, priority=5))])
    assert readable(observed.records) == [on(pair[1], flow(vlan_id=8, dot1q_priority=5))]


@pytest.mark.parametrize("size", [15, 20, 33])
@pytest.mark.parametrize("frame", [UDP4, f.ethernet(f.IPV6, f.ipv6(f.UDP))], ids=["ipv4", "ipv6"])
def test_runt_is_malformed(arriving: Programs, sender: Sender, frame: bytes, size: int) -> None:
    observed = exchange(arriving, sender, [frame[:size]])
    assert observed.reasons == {"malformed": (1, size)}


def test_jumbo_frame(pair: Pair, arriving: Programs, sender: Sender) -> None:
    frame = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(MTU - 28))))
    assert readable(exchange(arriving, sender, [frame]).records) == [on(pair[1], flow(ip_length=MTU))]


NON_LINEAR = {
    "ipv4": (f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(8000)))), flow(ip_length=8028)),
    "tcp": (
        f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(f.PSH, bytes(8000)))),
        flow(protocol=f.TCP, tcp_flags=f.PSH, ip_length=8040),
    ),
    "icmp": (
        f.ethernet(f.IPV4, f.ipv4(f.ICMP, f.icmp(0, 0, bytes(8000)))),
        flow(protocol=f.ICMP, src_port=0, dst_port=0, ip_length=8028),
    ),
    "ipv6": (f.ethernet(f.IPV6, f.ipv6(f.UDP, f.udp(bytes(8000)))), flow6(ip_length=8048)),
    "extension headers": (
        f.ethernet(f.IPV6, f.ipv6(*f.chain([f.extension(f.HOP), f.extension(f.DEST, 64)], f.UDP, f.udp(bytes(8000))))),
        flow6(ip_length=8120),
    ),
    "tag": (
        f.ethernet(*f.tag(f.AD, 5, *f.tag(f.Q, 6, f.IPV4, f.ipv4(f.UDP, f.udp(bytes(8000)))))),
        flow(vlan_id=5, ip_length=8028),
    ),
}


@pytest.mark.parametrize("linear", [14, 20, 34, 40])
@pytest.mark.parametrize("name", NON_LINEAR)
def test_headers_that_are_not_linear(pair: Pair, arriving: Programs, offload: Sender, name: str, linear: int) -> None:
    frame, expected = NON_LINEAR[name]
    observed = exchange(arriving, offload, [virtio(frame, linear=linear)])
    assert readable(observed.records) == [on(pair[1], expected)]


@pytest.mark.parametrize("linear", [14, 80])
def test_longest_packet_of_the_loopback(lab: Lab, linear: int) -> None:
    """65,536 octets of IPv6: one more than fits the fields of the record, which say 65,535."""
    link = lab.link(lab.namespace("loopback"), "lo")
    frame = f.ethernet(f.IPV6, f.ipv6(f.UDP, f.udp()[:4] + bytes(65536 - 44)))
    with measured(link, exclude=(), direction="egress") as programs, Sender(link, offload=True) as sender:
        observed = exchange(programs, sender, [virtio(frame, linear=linear)])
    expected = flow6(direction=1, octets=65536, min_ip_length=65535, max_ip_length=65535)
    assert readable(observed.records) == [expected]


TCP4 = f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(f.ACK, PAYLOAD)))
TCP6 = f.ethernet(f.IPV6, f.ipv6(f.TCP, f.tcp(f.ACK, PAYLOAD)))
UDPS = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(PAYLOAD)))
OF_TCP = {"protocol": f.TCP, "tcp_flags": f.ACK}
SUPER_PACKETS = {
    "tcp over ipv4": (virtio(TCP4, linear=54, gso=GSO_TCPV4, size=1000, checksum=(34, 16)), 40, flow(**OF_TCP)),
    "tcp over ipv6": (virtio(TCP6, linear=74, gso=GSO_TCPV6, size=1000, checksum=(54, 16)), 60, flow6(**OF_TCP)),
    "udp": (virtio(UDPS, linear=42, gso=GSO_UDP_L4, size=1000, checksum=(34, 6)), 28, flow()),
}


def _as_segments(expected: Flow, headers: int) -> Flow:
    counts = {"packets": 31, "octets": len(PAYLOAD) + 31 * headers}
    return {**expected, **counts, "min_ip_length": headers + 500, "max_ip_length": headers + 1000}


@pytest.mark.parametrize("name", SUPER_PACKETS)
def test_super_packet_that_arrives(pair: Pair, arriving: Programs, offload: Sender, name: str) -> None:
    frame, headers, expected = SUPER_PACKETS[name]
    observed = exchange(arriving, offload, [frame], packets=31)
    (row,) = readable(observed.records)
    assert row == on(pair[1], _as_segments(expected, headers))


@pytest.mark.parametrize("name", SUPER_PACKETS)
def test_super_packet_that_leaves(pair: Pair, offload: Sender, name: str) -> None:
    """From a packet socket, as from a guest, the kernel has not filled in gso_segs yet."""
    frame, headers, expected = SUPER_PACKETS[name]
    with measured(pair[0], direction="egress") as programs:
        observed = exchange(programs, offload, [frame], packets=31)
    assert readable(observed.records) == [on(pair[0], {**_as_segments(expected, headers), "direction": 1})]


def test_both_directions_of_one_interface(pair: Pair, sender: Sender) -> None:
    with measured(pair[0], direction="both") as programs, Sender(pair[1]) as other:
        leaving = exchange(programs, sender, [UDP4])
        coming = exchange(programs, other, [UDP4])
    assert readable(leaving.records) == [on(pair[0], flow(direction=1))]
    assert readable(coming.records) == [on(pair[0], flow(direction=0))]


@pytest.mark.parametrize("method", ["tcx", "tc"])
def test_interface_without_ethernet(lab: Lab, method: str) -> None:
    packets = [f.ipv4(f.UDP, f.udp(bytes(6))), f.ipv6(f.TCP, f.tcp(f.SYN))]
    no_macs = {"src_mac": "00:00:00:00:00:00", "dst_mac": "00:00:00:00:00:00"}
    with Tun(lab, lab.namespace("l3"), "tun0") as tun, measured(tun.link, attach=method) as programs:
        coming = exchange(programs, tun, packets)
        expected = [
            on(tun.link, flow(ip_length=34, **no_macs)),
            on(tun.link, flow6(protocol=f.TCP, tcp_flags=f.SYN, ip_length=60, **no_macs)),
        ]
        assert sorted(readable(coming.records), key=lambda row: row["ethertype"]) == expected
        with Sender(tun.link) as sender:
            leaving = exchange(programs, sender, [packets[0]])
        assert readable(leaving.records) == [{**expected[0], "direction": 1}]
