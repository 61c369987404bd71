"""Odd frames by wire, through the daemon to a collector: the right Information Elements or the right ledger counter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab import frames as f
from lab.collectors import UdpSink
from lab.daemon import KEPT, Daemon, configuration
from lab.namespaces import Lab
from lab.traffic import Traffic
from lab.wire import Sender, Tun
from netobs.collector.decode import Decoder

pytestmark = pytest.mark.e2e

MTU = 9000
OPTIONS = bytes([7, 39, 4, *bytes(37)])  # record route: the longest header that IPv4 allows
TCP_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}

Row = dict[str, Any]


def udp4(number: int, **options: Any) -> bytes:
    return f.ipv4(f.UDP, f.udp(bytes(number), sport=number), **options)


def udp6(number: int, headers: list[tuple[int, bytes]]) -> bytes:
    return f.ipv6(*f.chain(headers, f.UDP, f.udp(sport=number)))


# Frame, source port, and what else the collector must have that is not as in COMMON.
FLOWS: dict[str, tuple[bytes, int, Row]] = {
    "plain": (f.ethernet(f.IPV4, udp4(1)), 1, {"octetDeltaCount": 29}),
    "padded to the least frame": (f.ethernet(f.IPV4, udp4(2)) + bytes(18), 2, {"octetDeltaCount": 30}),
    "options": (f.ethernet(f.IPV4, udp4(3, options=OPTIONS)), 3, {"octetDeltaCount": 71}),
    "first fragment": (f.ethernet(f.IPV4, udp4(4, fragment=0x2000)), 4, {"octetDeltaCount": 32}),
    "tag": (f.ethernet(*f.tag(f.Q, 100, f.IPV4, udp4(5))), 5, {"vlanId": 100, "octetDeltaCount": 33}),
    "two tags": (
        f.ethernet(*f.tag(f.AD, 200, *f.tag(f.Q, 100, f.IPV4, udp4(6)))),
        6,
        {"vlanId": 200, "octetDeltaCount": 34},
    ),
    "jumbo": (f.ethernet(f.IPV4, udp4(MTU - 28)), MTU - 28, {"octetDeltaCount": MTU}),
    "hop-by-hop": (f.ethernet(f.IPV6, udp6(11, [f.extension(f.HOP)])), 11, {"octetDeltaCount": 56}),
    "routing": (f.ethernet(f.IPV6, udp6(12, [f.extension(f.ROUTING, 24)])), 12, {"octetDeltaCount": 72}),
    "destination": (f.ethernet(f.IPV6, udp6(13, [f.extension(f.DEST, 16)])), 13, {"octetDeltaCount": 64}),
    "first fragment of IPv6": (f.ethernet(f.IPV6, udp6(14, [f.fragment6(0, more=True)])), 14, {"octetDeltaCount": 56}),
    "all of them": (
        f.ethernet(f.IPV6, udp6(15, [f.extension(kind) for kind in (f.HOP, f.DEST, f.ROUTING, f.FRAGMENT, f.DEST)])),
        15,
        {"octetDeltaCount": 88},
    ),
    **{
        flag: (
            f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(bit, sport=100 + bit))),
            100 + bit,
            {"protocolIdentifier": f.TCP, "tcpControlBits": bit, "octetDeltaCount": 40},
        )
        for flag, bit in TCP_FLAGS.items()
    },
}
COMMON = {
    "packetDeltaCount": 1,
    "destinationTransportPort": f.DPORT,
    "protocolIdentifier": f.UDP,
    "ipClassOfService": f.TOS,
    "minimumTTL": f.TTL,
    "maximumTTL": f.TTL,
    "flowDirection": 0,
    "egressInterface": 0,
    "postVlanId": 0,
    "sourceMacAddress": f.SRC_MAC,
    "destinationMacAddress": f.DST_MAC,
}

# Without ports: told apart by their octets.
PORTLESS: dict[str, tuple[bytes, Row]] = {
    "later fragment": (
        f.ethernet(f.IPV4, f.ipv4(f.UDP, bytes([0xAB] * 80), fragment=0x0010)),
        {"octetDeltaCount": 100, "destinationTransportPort": 0},
    ),
    "later fragment of IPv6": (
        f.ethernet(f.IPV6, f.ipv6(*f.chain([f.fragment6(9, more=False)], f.UDP, bytes([0xAB] * 160)))),
        {"octetDeltaCount": 208, "destinationTransportPort": 0},
    ),
    "ICMP": (
        f.ethernet(f.IPV4, f.ipv4(f.ICMP, f.icmp(3, 4, bytes(300)))),
        {"octetDeltaCount": 328, "protocolIdentifier": f.ICMP, "destinationTransportPort": 3 << 8 | 4},
    ),
    "ICMPv6": (
        f.ethernet(f.IPV6, f.ipv6(f.ICMPV6, f.icmp(1, 3, bytes(400)))),
        {"octetDeltaCount": 448, "protocolIdentifier": f.ICMPV6, "destinationTransportPort": 1 << 8 | 3},
    ),
}

LEDGER: dict[str, list[bytes]] = {
    "not_ip": [
        f.ethernet(f.ARP, bytes(28)),
        f.ethernet(f.LLDP, bytes(46)),
        f.ethernet(f.MPLS, bytes(46)),
        f.ethernet(*f.tag(f.Q, 5, f.ARP, bytes(28))),
    ],
    "malformed": [
        f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(), ihl=4)),
        f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(), total=1000)),
        f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(), version=5)),
        f.ethernet(f.IPV4, f.ipv4(f.UDP))[:30],
        f.ethernet(f.IPV6, f.ipv6(f.UDP, f.udp(), length=1000)),
    ],
}


def received(sink: UdpSink) -> list[Row]:
    """The flows that have come, without those that the hosts send by themselves."""
    decoder = Decoder()
    flows = [flow for message in sink.drain() for flow in decoder.decode(message).flows]
    assert decoder.stats.sets_without_template == 0
    return flows


def test_odd_frames(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair(mtu=MTU)
    frames = [frame for frame, _, _ in FLOWS.values()] + [frame for frame, _ in PORTLESS.values()]
    frames += [frame for group in LEDGER.values() for frame in group]
    with UdpSink(far.ns) as sink:
        config = configuration({"direction": "ingress"}, KEPT)
        with Daemon(lab, far.ns, tmp_path, config) as daemon, Sender(near) as sender:
            sender.send(*frames)
            account = daemon.finish()
        flows = received(sink)
    assert len(flows) == len(FLOWS) + len(PORTLESS)
    by_port = {flow["sourceTransportPort"]: flow for flow in flows}
    by_octets = {flow["octetDeltaCount"]: flow for flow in flows if not flow["sourceTransportPort"]}
    pairs = [(by_port[port], row) for _, port, row in FLOWS.values()]
    pairs += [(by_octets[row["octetDeltaCount"]], row) for _, row in PORTLESS.values()]
    for flow, row in pairs:
        expected = {**COMMON, "vlanId": 0, "ingressInterface": far.ifindex, **row}
        assert {name: flow[name] for name in expected} == expected
    packets = {reason: counts.packets for reason, counts in account.ledger.items()}
    assert packets == {reason: len(group) for reason, group in LEDGER.items()}
    assert account.is_balanced()


def test_device_without_ethernet(lab: Lab, tmp_path: Path) -> None:
    ns = lab.namespace()
    packets = [f.ipv4(f.UDP, f.udp(bytes(20), sport=5)), f.ipv6(f.TCP, f.tcp(f.SYN, sport=6))]
    with Tun(lab, ns, "tun0") as tun, UdpSink(ns) as sink:
        config = configuration({"interfaces": [tun.link.name], "direction": "ingress"}, KEPT)
        with Daemon(lab, ns, tmp_path, config) as daemon:
            tun.send(*packets)
            account = daemon.finish()
        flows = {flow["sourceTransportPort"]: flow for flow in received(sink)}
    assert {port: flow["octetDeltaCount"] for port, flow in flows.items()} == {5: 48, 6: 60}
    assert {flow["sourceMacAddress"] for flow in flows.values()} == {"00:00:00:00:00:00"}
    assert account.is_balanced()
    assert account.ledger == {}


def test_jumbo_frames_at_full_speed(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair(mtu=MTU)
    plan = Traffic(flows=10, packets=5000, size=(8000, MTU + 14))
    with UdpSink(far.ns) as sink:
        with Daemon(lab, far.ns, tmp_path, configuration(metering=KEPT)) as daemon:
            plan.send(lab, near)
            account = daemon.finish()
        flows = received(sink)
    rows = plan.expected()
    assert {flow["sourceTransportPort"]: flow["octetDeltaCount"] for flow in flows} == {
        int(row["src_port"]): int(row["octets"]) for row in rows
    }
    assert {flow["maximumIpTotalLength"] for flow in flows} == set(map(int, rows["max_ip_length"]))
    assert account.is_balanced()
