"""Super-packets count as what goes over the wire: the exported counts equal a capture of the segmented traffic.

Host a sends through router r to host b. The link from a to r carries super-packets (TSO, GSO, tunnels, UDP_SEGMENT), as
real cards let the kernel make them; r cuts them, and there tcpdump sees what a wire would carry. The link to b
carries single packets, which b puts together again if GRO is on.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import Nfcapd
from lab.daemon import KEPT, Daemon, configuration
from lab.namespaces import Lab, Link, in_namespace
from lab.programs import Capture, sockets_at, wait_until

pytestmark = pytest.mark.e2e(tools=("ethtool", "nfcapd", "nfdump", "tcpdump"))

MIB = 1 << 20
PORT = 5001
MTU = 1500
WINDOW_BYTES = 128 << 10  # fewer packets on their way than any queue between a and b holds: none is lost
UDP_SEGMENT = 103
SNAP_BYTES = 96
ETHERNET_BYTES = 14
TCPI_BYTES_SENT = 200  # struct tcp_info (include/uapi/linux/tcp.h)

FlowCounts = dict[tuple[Any, ...], tuple[int, int]]


class Headers(Capture):
    """tcpdump that keeps only the headers, for traffic of hundreds of megabytes."""

    def _run(self, argv: list[str], **options: Any) -> Any:
        return super()._run([*argv[:-1], "-s", str(SNAP_BYTES), argv[-1]], **options)

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """Length on the wire and first bytes of each packet: the pcap format, little-endian."""
        self.stop()
        data = self.pcap.read_bytes()
        offset = 24
        while offset < len(data):
            kept, length = struct.unpack_from("<II", data, offset + 8)
            yield length, data[offset + 16 : offset + 16 + kept]
            offset += 16 + kept

    def longest(self) -> int:
        """Octets of the longest IP packet."""
        return max(length for length, _ in self.packets()) - ETHERNET_BYTES

    def flows(self) -> FlowCounts:
        """Packets and IP octets by addresses, protocol and ports, TCP and UDP only."""
        counts: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        for length, frame in self.packets():
            is_ipv6 = frame[12:14] == b"\x86\xdd"
            addresses, protocol, ports = (slice(22, 54), 20, 54) if is_ipv6 else (slice(26, 34), 23, 34)
            if frame[protocol] in (6, 17):
                source, destination = struct.unpack_from("!HH", frame, ports)
                flow = counts[frame[addresses], frame[protocol], source, destination]
                flow[0] += 1
                flow[1] += length - ETHERNET_BYTES
        return {key: (packets, octets) for key, (packets, octets) in counts.items()}


@dataclass
class Route:
    """Hosts a and b by their interfaces and addresses, and the interface of the router where packets are single."""

    lab: Lab
    a: Link
    b: Link
    wire: Link
    addresses: dict[int, tuple[str, str]]  # of a and b, by address family


@pytest.fixture
def route(lab: Lab) -> Route:
    ns_a, ns_r, ns_b = (lab.namespace(label) for label in "arb")
    a, r_a = lab.veth(ns_a, ns_r)
    r_b, b = lab.veth(ns_r, ns_b)
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        lab.sysctl(ns_r, f"net/{key}", 1)
    for host, router, net in ((a, r_a, 1), (b, r_b, 2)):
        for link, number in ((host, 1), (router, 2)):
            lab.address(link, f"10.0.{net}.{number}/24")
            lab.address(link, f"2001:db8:{net}::{number}/64")
        for link, other, number in ((host, router, 2), (router, host, 1)):
            for address in (f"10.0.{net}.{number}", f"2001:db8:{net}::{number}"):
                neighbour = ["ip", "neighbour", "add", address, "lladdr", other.mac, "dev", link.name]
                lab.run(link.ns, neighbour)
        lab.run(host.ns, ["ip", "route", "add", "default", "via", f"10.0.{net}.2"])
        lab.run(host.ns, ["ip", "-6", "route", "add", "default", "via", f"2001:db8:{net}::2"])
    lab.offload(r_b, False, "tso", "gso", "tx-udp-segmentation")
    lab.offload(b, False, "tso", "gso", "gro")
    addresses: dict[int, tuple[str, str]] = {
        socket.AF_INET: ("10.0.1.1", "10.0.2.1"),
        socket.AF_INET6: ("2001:db8:1::1", "2001:db8:2::1"),
    }
    return Route(lab, a, b, r_b, addresses)


def send_tcp(route: Route, size: int, family: int = socket.AF_INET, address: str = "") -> int:
    """Send ``size`` bytes by TCP from a to b, and read them all; how many bytes it took, with those sent again."""
    with contextlib.ExitStack() as stack:
        with in_namespace(route.b.ns):
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
        listener.bind(("", PORT))
        listener.listen()
        with in_namespace(route.a.ns):
            client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        client.connect((address or route.addresses[family][1], PORT))
        server = stack.enter_context(listener.accept()[0])
        sender = threading.Thread(target=_send_all, args=(client, size))
        sender.start()
        buffer, received = bytearray(MIB), 0
        while count := server.recv_into(buffer):
            received += count
        sender.join()
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_BYTES_SENT + 8)
        sent = int.from_bytes(info[TCPI_BYTES_SENT:], sys.byteorder)
    assert received == size
    # Else b's last packet may be sent again while nobody measures any more, but the wire is still captured.
    wait_until(lambda: not sockets_at(route.b.ns, PORT, "tcp"), "a acknowledges that b has closed")
    return sent


def _send_all(client: socket.socket, size: int) -> None:
    block = bytes(MIB)
    for _ in range(size // MIB):
        client.sendall(block)
    client.shutdown(socket.SHUT_WR)


def send_udp(route: Route, batches: int, family: int = socket.AF_INET) -> None:
    """Send batches of 33 datagrams, the last one shorter, in one call each."""
    with contextlib.ExitStack() as stack:
        with in_namespace(route.b.ns):
            receiver = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        receiver.bind(("", PORT))
        with in_namespace(route.a.ns):
            sender = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
        sender.connect((route.addresses[family][1], PORT))
        for _ in range(batches):
            sender.send(bytes(32 * 1200 + 77))


def exported(collector: Nfcapd) -> FlowCounts:
    """What ``Headers.flows`` gives, from a collector."""
    flows: FlowCounts = {}
    for flow in collector.flows():
        is_ipv6 = "src6_addr" in flow
        names = ("src6_addr", "dst6_addr") if is_ipv6 else ("src4_addr", "dst4_addr")
        addresses = b"".join(socket.inet_pton(socket.AF_INET6 if is_ipv6 else socket.AF_INET, flow[x]) for x in names)
        if flow["proto"] in (6, 17):
            key = (addresses, flow["proto"], flow["src_port"], flow["dst_port"])
            assert key not in flows
            flows[key] = (flow["in_packets"], flow["in_bytes"])
    return flows


@dataclass
class Result:
    """Flows as a and b exported them and as they passed the wire; the longest IP packet that each interface saw."""

    a: FlowCounts
    b: FlowCounts
    wire: FlowCounts
    longest: tuple[int, int, int]  # at a, on the wire, at b

    def data(self, port: int = PORT) -> tuple[int, int]:
        """Packets and octets of the one flow from a to ``port`` of b."""
        (counts,) = (counts for key, counts in self.wire.items() if key[3] == port)
        return counts


@contextlib.contextmanager
def measured(route: Route, tmp_path: Path) -> Iterator[Result]:
    """Everything that is sent inside is measured at a and b, and captured on the wire."""
    result = Result({}, {}, {}, (0, 0, 0))
    lab, config = route.lab, configuration(metering=KEPT)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        seen = [enter(Headers(lab, x.ns, tmp_path, x.name, "", x.ns)) for x in (route.a, route.wire, route.b)]
        collectors = [enter(Nfcapd(lab, x.ns, tmp_path / x.ns)) for x in (route.a, route.b)]
        daemons = [enter(Daemon(lab, x.ns, tmp_path / x.ns, config)) for x in (route.a, route.b)]
        yield result
        assert all(daemon.finish().is_balanced() for daemon in daemons)
        result.a, result.b = map(exported, collectors)
        result.wire = seen[1].flows()
        result.longest = (seen[0].longest(), seen[1].longest(), seen[2].longest())


@pytest.mark.parametrize("gro", [False, True], ids=["gro off", "gro on"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_tcp(route: Route, tmp_path: Path, family: int, gro: bool) -> None:
    size = 200 * MIB if family == socket.AF_INET and gro else 20 * MIB
    route.lab.offload(route.b, gro, "gro")
    with measured(route, tmp_path) as result:
        sent = send_tcp(route, size, family)
    assert result.a == result.b == result.wire
    assert len(result.wire) == 2
    packets, octets = result.data()
    headers = (40 if family == socket.AF_INET6 else 20) + 32  # TCP with the time stamp option
    # The SYN has 8 bytes more of options; when the window closes, TCP sends some octets again.
    assert size <= octets - packets * headers - 8 == sent
    assert size // (MTU - headers) <= packets <= 1.02 * size // (MTU - headers)
    at_a, on_wire, at_b = result.longest
    assert at_a > MTU
    assert on_wire == MTU
    assert (at_b > MTU) == gro


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_udp_segmentation(route: Route, tmp_path: Path, family: int) -> None:
    with measured(route, tmp_path) as result:
        send_udp(route, 300, family)
    assert result.a == result.b == result.wire
    headers = (40 if family == socket.AF_INET6 else 20) + 8
    assert result.data() == (300 * 33, 300 * (33 * headers + 32 * 1200 + 77))
    assert result.longest[0] > MTU


def test_vxlan(route: Route, tmp_path: Path) -> None:
    for host, near, far, inner in (("a", 0, 1, 1), ("b", 1, 0, 2)):
        link: Link = getattr(route, host)
        local, remote = (route.addresses[socket.AF_INET][end] for end in (near, far))
        tunnel = ["type", "vxlan", "id", "7", "dstport", "4789", "local", local, "remote", remote, "dev", link.name]
        route.lab.run(link.ns, ["ip", "link", "add", "vx0", *tunnel])
        route.lab.sysctl(link.ns, "net/ipv6/conf/vx0/disable_ipv6", 1)
        route.lab.run(link.ns, ["ip", "link", "set", "vx0", "up"])
        route.lab.address(route.lab.link(link.ns, "vx0"), f"172.16.0.{inner}/24")
    # Neighbours are known: no question comes seconds later, when one daemon has ended and the other has not.
    for link, other, inner in ((route.a, route.b, 2), (route.b, route.a, 1)):
        mac = route.lab.link(other.ns, "vx0").mac
        route.lab.run(link.ns, ["ip", "neighbour", "replace", f"172.16.0.{inner}", "lladdr", mac, "dev", "vx0"])
    with measured(route, tmp_path) as result:
        send_tcp(route, 20 * MIB, address="172.16.0.2")
    assert result.a == result.b == result.wire
    assert {key[3] for key in result.wire} == {4789}
    assert sum(octets for _, octets in result.wire.values()) > 20 * MIB
    assert result.longest[0] > MTU
