"""The host's own address, route or interface changes: export goes on from the address of now, and nothing is lost."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from lab.namespaces import Lab, Link, command, in_namespace
from lab.programs import wait_until
from netobs.export.link.udp import LONGEST_PAUSE_NS
from tests.unit.export.support import (
    SECOND,
    Bench,
    Message,
    UdpCollector,
    check_sequence,
    is_up,
    numbers_of,
    tcp_config,
    udp_config,
)

pytestmark = pytest.mark.kernel

PORT = 4739
PAUSE_S = LONGEST_PAUSE_NS // SECOND
"""By then the address was looked at, and a socket was opened that could not be."""
MakeBench = Callable[..., Bench]
MakeUdp = Callable[..., UdpCollector]


@dataclass
class Network:
    """A host and a collector's host, in IPv4 or IPv6; ``sessions``: what came, by the source address and port."""

    near: Link
    far: Link
    form: str
    collector: UdpCollector
    sessions: dict[tuple[str, int], list[Message]] = field(default_factory=dict)

    def host(self, number: int) -> str:
        return self.form.format(number)

    def ip(self, *argv: str) -> None:
        command(["ip", "-n", self.near.ns, *argv])

    def add(self, number: int) -> None:
        length, more = ("64", ["nodad"]) if ":" in self.form else ("24", [])
        self.ip("address", "add", f"{self.host(number)}/{length}", "dev", self.near.name, *more)

    def remove(self, number: int) -> None:
        length = "64" if ":" in self.form else "24"
        self.ip("address", "del", f"{self.host(number)}/{length}", "dev", self.near.name)

    def flows(self) -> list[int]:
        """The numbers of all Data Records so far."""
        self.collector.sock.setblocking(False)
        while True:
            try:
                data, source = self.collector.sock.recvfrom(65_536)
            except BlockingIOError:
                return [number for session in self.sessions.values() for number in numbers_of(session)]
            self.sessions.setdefault(source[:2], []).append(Message.parse(data))

    def check(self, *hosts: int) -> None:
        """A Transport Session from each of ``hosts``, in order: Templates first, sequence from 0, one source port."""
        assert [address for address, _ in self.sessions] == [self.host(number) for number in hosts]
        assert len({port for _, port in self.sessions}) == 1
        for session in self.sessions.values():
            assert session[0].numbers == []
            check_sequence(session)


@pytest.fixture(params=["192.0.2.{}", "2001:db8::{}"], ids=["ipv4", "ipv6"])
def network(request: pytest.FixtureRequest, lab: Lab, make_udp: MakeUdp) -> Network:
    near, far = lab.pair()
    for link in (near, far):
        lab.sysctl(link.ns, f"net/ipv6/conf/{link.name}/disable_ipv6", 0)
    lab.sysctl(near.ns, f"net/ipv4/conf/{near.name}/promote_secondaries", 1)
    form: str = request.param
    lab.address(far, form.format(2) + ("/64" if ":" in form else "/24"))
    with in_namespace(far.ns):
        network = Network(near, far, form, make_udp(form.format(2), PORT))
    network.add(1)
    return network


def test_an_address_is_replaced_by_another(
    network: Network, caplog: pytest.LogCaptureFixture, make_bench: MakeBench
) -> None:
    caplog.set_level(logging.INFO, "netobs.export")
    with in_namespace(network.near.ns):
        bench = make_bench(udp_config(PORT, host=network.host(2)))
        bench.open()
        bench.send(1000)
        network.remove(1)
        bench.send(1000)
        network.add(9)
        bench.send(1000)
        bench.now_ns += PAUSE_S * SECOND
        bench.until(lambda: len(network.flows()) == 3000, "all flows at the collector")
    assert network.flows() == list(range(3000))
    network.check(1, 9)
    assert bench.stats.not_sent == {}
    assert bench.stats.reconnects == 1
    said = [line.split(": ", 1)[1] for line in caplog.messages]
    assert said[-1].startswith(f"sends from {network.host(9)} port ")
    assert any(f"no path from {network.host(1)} any more" in line for line in said)


def test_an_address_that_is_lost_while_another_is_there(network: Network, make_bench: MakeBench) -> None:
    """IPv6 would go on with the lost one; nothing that the collector's host answers could come back."""
    with in_namespace(network.near.ns):
        bench = make_bench(udp_config(PORT, host=network.host(2)))
        bench.open()
        bench.send(1000)
        network.add(9)
        network.remove(1)
        bench.move(PAUSE_S)
        bench.rounds()
        bench.send(1000)
        bench.until(lambda: len(network.flows()) == 2000, "all flows at the collector")
    network.check(1, 9)
    assert bench.stats.not_sent == {}


@pytest.mark.parametrize("network", ["2001:db8::{}"], indirect=True)  # only IPv6 deprecates addresses
def test_a_deprecated_address_is_given_up(network: Network, make_bench: MakeBench) -> None:
    with in_namespace(network.near.ns):
        bench = make_bench(udp_config(PORT, host=network.host(2)))
        bench.open()
        bench.send(10)
        network.add(9)
        network.ip("address", "change", f"{network.host(1)}/64", "dev", network.near.name, "preferred_lft", "0")
        bench.move(PAUSE_S)
        bench.rounds()
        bench.send(10)
        bench.until(lambda: len(network.flows()) == 20, "all flows at the collector")
    network.check(1, 9)


def test_one_more_address_changes_nothing(network: Network, make_bench: MakeBench) -> None:
    with in_namespace(network.near.ns):
        bench = make_bench(udp_config(PORT, host=network.host(2), source=network.host(1)))
        bench.open()
        network.add(9)
        for _ in range(3):
            bench.send(100)
            bench.move(PAUSE_S)
        bench.until(lambda: len(network.flows()) == 300, "all flows at the collector")
    network.check(1)
    assert bench.stats.reconnects == 0


def test_a_source_that_is_lost_and_comes_back(network: Network, make_bench: MakeBench) -> None:
    with in_namespace(network.near.ns):
        network.add(9)
        bench = make_bench(udp_config(PORT, host=network.host(2), source=network.host(9)))
        bench.open()
        bench.send(1000)
        network.remove(9)
        bench.move(PAUSE_S)
        bench.send(1000)
        bench.move(PAUSE_S)
        assert bench.stats.queued.flows == 1000, "no other address may be used"
        network.add(9)
        bench.move(PAUSE_S)
        bench.until(lambda: len(network.flows()) == 2000, "all flows at the collector")
    assert [address for address, _ in network.sessions] == [network.host(9)]
    assert bench.stats.reconnects == 1
    assert bench.stats.not_sent == {}


def test_an_interface_that_goes_down_and_comes_up(network: Network, make_bench: MakeBench) -> None:
    with in_namespace(network.near.ns):
        bench = make_bench(udp_config(PORT, host=network.host(2)))
        bench.open()
        bench.send(1000)
        network.ip("link", "set", network.near.name, "down")
        bench.send(1000)
        bench.move(PAUSE_S)
        assert bench.stats.queued.flows == 1000
        network.ip("link", "set", network.near.name, "up")
        wait_until(lambda: _is_up(network.near), "the link has a carrier")  # until then what is sent goes nowhere
        if ":" in network.form:
            network.add(1)  # IPv6 gives an address up with its interface
        bench.until(lambda: _moved(bench) and len(network.flows()) == 2000, "all flows at the collector")
    assert bench.stats.not_sent == {}


def _is_up(link: Link) -> bool:
    return " state UP " in command(["ip", "-n", link.ns, "link", "show", link.name]).stdout


def test_the_default_route_is_replaced(lab: Lab, network: Network, make_bench: MakeBench) -> None:
    """Two ways to the collector, each with its own address of this host: the other way takes the other address."""
    _, other = lab.veth(network.far.ns, network.near.ns)
    distant = "2001:db8:ffff::1" if ":" in network.form else "203.0.113.1"
    second = "2001:db8:1::{}" if ":" in network.form else "198.51.100.{}"
    length = "64" if ":" in network.form else "24"
    for link in (other, *[lab.link(network.far.ns, "veth1")]):
        lab.address(link, f"{second.format(1 if link is other else 2)}/{length}")
    for ns, name in ((network.far.ns, "lo"), (network.near.ns, "lo")):
        lab.sysctl(ns, f"net/ipv6/conf/{name}/disable_ipv6", 0)
    nodad = ["nodad"] if ":" in distant else []
    command(["ip", "-n", network.far.ns, "address", "add", distant, "dev", "lo", *nodad])
    with in_namespace(network.far.ns):
        network.collector.sock.close()
        network.collector.sock = socket.socket(
            socket.AF_INET6 if ":" in network.form else socket.AF_INET, socket.SOCK_DGRAM
        )
        network.collector.sock.bind((distant, PORT))
    with in_namespace(network.near.ns):
        network.ip("route", "add", "default", "via", network.host(2))
        bench = make_bench(udp_config(PORT, host=distant))
        bench.open()
        bench.send(100)
        network.ip("route", "replace", "default", "via", second.format(2))
        bench.move(PAUSE_S)
        bench.rounds()
        bench.send(100)
        bench.until(lambda: len(network.flows()) == 200, "all flows at the collector")
    assert [address for address, _ in network.sessions] == [network.host(1), second.format(1)]


def _moved(bench: Bench) -> bool:
    bench.now_ns += PAUSE_S * SECOND
    return True


@pytest.mark.parametrize("network", ["192.0.2.{}"], indirect=True)  # by IPv6, the send fails only without a route
def test_a_closing_session_loses_only_what_it_cannot_send(network: Network, make_bench: MakeBench) -> None:
    with in_namespace(network.near.ns):
        bench = make_bench(udp_config(PORT, host=network.host(2)))
        bench.open()
        network.remove(1)
        network.add(9)
        bench.send(100)
        bench.session.close(bench.now_ns, bench.now_ns + SECOND)
        bench.until(lambda: bench.session.closed, "the end of the session")
        assert len(network.flows()) == bench.stats.sent.flows == 100


def test_tcp_comes_back_by_itself(lab: Lab, cleanup: contextlib.ExitStack, make_bench: MakeBench) -> None:
    """Without an acknowledgement the kernel ends the connection (TCP_USER_TIMEOUT); the next has the new address."""
    near, far = lab.pair()
    lab.address(near, "192.0.2.1/24")
    lab.address(far, "192.0.2.2/24")
    with in_namespace(far.ns), socket.create_server(("192.0.2.2", PORT)) as listener, in_namespace(near.ns):
        bench = make_bench(tcp_config(PORT, host="192.0.2.2", reconnect_max_ns=SECOND))
        bench.open()
        bench.until(lambda: is_up(bench.session), "the connection")
        assert bench.session._link._sock is not None
        bench.session._link._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
        listener.settimeout(5)
        first, (host, _) = listener.accept()
        cleanup.callback(first.close)
        assert host == "192.0.2.1"
        command(["ip", "-n", near.ns, "address", "del", "192.0.2.1/24", "dev", near.name])
        command(["ip", "-n", near.ns, "address", "add", "192.0.2.9/24", "dev", near.name])
        bench.send(10)
        bench.until(lambda: not is_up(bench.session), "the end of the connection")
        bench.now_ns += SECOND
        bench.until(lambda: is_up(bench.session), "the next connection")
        second, (host, _) = listener.accept()
        cleanup.callback(second.close)
        assert host == "192.0.2.9"
        bench.until(lambda: bench.stats.sent.flows == 10, "the flows go there")
    assert bench.stats.not_sent == {}
