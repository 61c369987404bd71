"""The agent's own streams are never captured: over an interface that is captured each packet would make another."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lab import frames as f
from lab.namespaces import Lab, in_namespace
from lab.wire import GSO_TCPV4, Sender, Tun, virtio, wait_for
from netobs.pcap.tap.programs import PacketCount
from netobs.pcap.tap.tap import Tap
from tests.kernel.packets import Pair, exchange, seen, tagging, take, tapped

pytestmark = pytest.mark.kernel(tools=("clang",))

PORT, PEER = 9990, 40_000


def to_peer(protocol: int = f.TCP, sport: int = PORT, dport: int = PEER) -> tuple[int, bytes]:
    segment = f.tcp(f.ACK, b"x", sport=sport, dport=dport) if protocol == f.TCP else f.udp(sport=sport, dport=dport)
    return f.IPV4, f.ipv4(protocol, segment)


def from_peer(dport: int = PORT, sport: int = PEER) -> tuple[int, bytes]:
    return f.IPV4, f.ipv4(f.TCP, f.tcp(f.ACK, b"x", sport=sport, dport=dport), src=f.DST4, dst=f.SRC4)


def to_peer6(dst: str = f.DST6) -> tuple[int, bytes]:
    return f.IPV6, f.ipv6(f.TCP, f.tcp(f.ACK, b"x", sport=PORT, dport=PEER), dst=dst)


LEAVING = f.ethernet(*to_peer())
OWN = {
    "to the client": LEAVING,
    "from the client": f.ethernet(*from_peer()),
    "ipv6": f.ethernet(*to_peer6()),
    "ip options": f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(sport=PORT, dport=PEER), options=b"\x01" * 8)),
    "tag": f.ethernet(*f.tag(f.Q, 5, *to_peer())),
    "tag, ipv6": f.ethernet(*f.tag(f.AD, 5, *to_peer6())),
}
OTHERS = {
    "another port of the agent": f.ethernet(*to_peer(sport=PORT + 1)),
    "another port of the client": f.ethernet(*to_peer(dport=PEER + 1)),
    "another client": f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(sport=PORT, dport=PEER), dst="198.51.100.3")),
    "another client, ipv6": f.ethernet(*to_peer6("2001:db8:ffff::3")),
    "that connects": f.ethernet(*from_peer(sport=PEER + 1)),
    "udp": f.ethernet(*to_peer(f.UDP)),
    "later fragment": f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(sport=PORT, dport=PEER), fragment=9)),
    "not ip": f.ethernet(f.ARP, f.tcp(sport=PORT, dport=PEER)),
    "runt": LEAVING[:36],
}


def own(tap: Tap) -> None:
    """The streams of clients with an IPv4 and an IPv6 address."""
    tap.set_own_port(PORT)
    tap.own_stream(f.DST4, PEER)
    tap.own_stream(f.DST6, PEER)


@pytest.mark.parametrize("name", OWN)
def test_own_packets_are_left_out(pair: Pair, name: str) -> None:
    with tapped(*pair) as tap, Sender(pair[0]) as sender:
        own(tap)
        assert exchange(tap, lambda: sender.send(OWN[name]), 2) == []
        assert tap.count() == PacketCount(copied=0, lost=0, own=2)
        tap.forget_stream(f.DST4, PEER)
        tap.forget_stream(f.DST6, PEER)
        assert [one.octets for one in exchange(tap, lambda: sender.send(OWN[name]), 2)] == [OWN[name]] * 2


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_captured(pair: Pair, name: str) -> None:
    with tapped(*pair) as tap, Sender(pair[0]) as sender:
        own(tap)
        assert [one.octets for one in exchange(tap, lambda: sender.send(OTHERS[name]), 2)] == [OTHERS[name]] * 2


def test_tag_beside_and_super_packets(pair: Pair, tag_object: Path) -> None:
    frame = f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(f.ACK, bytes(30_000), sport=PORT, dport=PEER)))
    with tapped(*pair) as tap, tagging(pair[0], tag_object, tap, offload=True) as upper:
        own(tap)
        exchange(tap, lambda: upper.send(virtio(f.ethernet(*to_peer()), linear=14)), 2)
        exchange(tap, lambda: upper.send(virtio(frame, linear=54, gso=GSO_TCPV4, size=1448, checksum=(34, 16))), 2)
        assert tap.count() == PacketCount(copied=0, lost=0, own=4)


def test_interface_without_ethernet(lab: Lab) -> None:
    with Tun(lab, lab.namespace("l3"), "tun0") as tun, tapped(tun.link) as tap:
        own(tap)
        exchange(tap, lambda: tun.send(from_peer()[1], to_peer6()[1]), 2)
        assert tap.count().own == 2


def test_without_a_port_nothing_is_looked_up(pair: Pair) -> None:
    with tapped(*pair) as tap, Sender(pair[0]) as sender:
        tap.own_stream(f.DST4, PEER)
        assert len(exchange(tap, lambda: sender.send(LEAVING), 2)) == 2


@pytest.mark.parametrize(
    ("server", "client", "interface"),
    [("192.0.2.1", "192.0.2.2", "veth0"), ("2001:db8::1", "2001:db8::2", "veth0"), ("127.0.0.1", "127.0.0.1", "lo")],
)
def test_a_real_stream(lab: Lab, server: str, client: str, interface: str) -> None:
    """Of a connection, all after the agent knows of it is left out; a connection beside it is there."""
    near, far = lab.pair()
    if interface == "veth0":
        prefix = 64 if ":" in server else 24
        lab.address(near, f"{server}/{prefix}")
        lab.address(far, f"{client}/{prefix}")
    link = lab.link(near.ns, interface)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with in_namespace(near.ns), socket.socket(family) as listener:
        listener.bind((server, 0))
        listener.listen()
        with in_namespace(near.ns if interface == "lo" else far.ns):
            mine, other = socket.create_connection(listener.getsockname()[:2]), socket.socket(family)
        stream, (address, port, *_) = listener.accept()
        with mine, stream, other, tapped(link) as tap:
            tap.set_own_port(listener.getsockname()[1])
            tap.own_stream(address, port)
            for _ in range(20):
                stream.sendall(bytes(50_000))
                assert len(mine.recv(50_000, socket.MSG_WAITALL)) == 50_000
            mine.sendall(b"x")
            assert stream.recv(1) == b"x"
            wait_for(lambda: tap.count().own > 20, "packets of the stream")
            assert [one for batch in take(tap, 0) for one in seen(batch) if is_tcp(one.octets)] == []
            other.connect(listener.getsockname()[:2])
            wait_for(lambda: tap.count().copied >= 3, "the handshake of another")
            assert any(is_tcp(one.octets) for batch in take(tap, 0) for one in seen(batch))


def is_tcp(frame: bytes) -> bool:
    return f.TCP in (frame[23], frame[20])
