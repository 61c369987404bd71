"""What was sent over UDP and refused is counted as not sent: which Messages, by which rule."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from lab.namespaces import Lab, command, in_namespace
from netobs.export import ExportStats
from netobs.export.link.refusals import ANSWER_NS, Refusals
from netobs.flow.tally import Tally
from tests.unit.export.support import SECOND, Bench, UdpCollector, free_port, is_suspect, numbers_of, rows, udp_config

ONE = Tally(1, 2, 300)
MakeBench = Callable[..., Bench]
MakeUdp = Callable[..., UdpCollector]


class Sender:
    """Sends a flow at a time."""

    def __init__(self) -> None:
        self.stats = ExportStats()
        self.refusals = Refusals(self.stats)

    def send(self, now_ns: int) -> None:
        self.stats.see(ONE)
        self.refusals.sent(ONE, now_ns)
        self.stats.count_sent(ONE)

    def refused(self) -> int:
        found = self.stats.not_sent.get("refused", Tally())
        assert self.stats.seen == self.stats.sent + found
        assert self.stats.queued == Tally()
        return found.flows


def test_the_first_answer_is_of_what_was_sent_just_before() -> None:
    sender = Sender()
    for now_ns in (0, 10 * SECOND, 10 * SECOND + ANSWER_NS):
        sender.send(now_ns)
    sender.refusals.answered(10 * SECOND + ANSWER_NS)
    assert sender.refused() == 2


def test_each_further_answer_is_of_all_since_the_one_before() -> None:
    sender = Sender()
    sender.send(0)
    sender.refusals.answered(0)
    for second in range(1, 6):
        sender.send(second * SECOND)
    assert sender.refused() == 1
    sender.refusals.answered(6 * SECOND)
    assert sender.refused() == 6


def test_what_no_answer_follows_has_arrived() -> None:
    sender = Sender()
    sender.send(0)
    sender.refusals.answered(0)
    sender.send(SECOND)
    sender.refusals.cleared()
    sender.refusals.answered(10 * SECOND)
    assert sender.refused() == 1


def test_what_a_collector_that_refuses_was_sent_last_is_refused() -> None:
    sender = Sender()
    sender.send(0)
    sender.refusals.answered(0)
    sender.send(SECOND)
    sender.refusals.closed()
    assert sender.refused() == 2
    sender.send(2 * SECOND)
    sender.refusals.closed()
    assert sender.refused() == 2


def test_a_healthy_collector_costs_bounded_memory() -> None:
    sender = Sender()
    for number in range(1000):
        sender.send(number * SECOND)
    assert len(sender.refusals._in_doubt) == 1


def test_collector_that_is_down_comes_up_and_goes(make_bench: MakeBench, make_udp: MakeUdp) -> None:
    """On loopback each refusal comes back: what counts as sent is what the collector got."""
    port, got = free_port(socket.SOCK_DGRAM), 0
    bench = make_bench(udp_config(port))
    bench.open()
    for _ in range(2):
        for _ in range(3):
            bench.send(3000)
            bench.move(5)
        collector = make_udp(port=port)
        for _ in range(3):
            bench.send(3000)
            bench.move(5)
        got += len(numbers_of(collector.messages()))
        collector.close()
    bench.send(3000)
    bench.close()
    assert got == bench.stats.sent.flows == 18_000
    assert bench.stats.not_sent == {"refused": bench.stats.seen - bench.stats.sent}
    assert bench.stats.refused > 0


@pytest.mark.kernel
def test_a_firewall_that_refuses(lab: Lab, make_bench: MakeBench, make_udp: MakeUdp) -> None:
    """ICMP says that it is prohibited. That comes back as EHOSTUNREACH, and the socket stays good."""
    near, far = lab.pair()
    lab.address(near, "192.0.2.1/24")
    lab.address(far, "192.0.2.2/24")
    with in_namespace(far.ns):
        collector = make_udp("192.0.2.2", 4739)
    lab.sysctl(far.ns, "net/ipv4/icmp_ratelimit", 0)
    lab.sysctl(far.ns, f"net/ipv4/conf/{far.name}/forwarding", 1)  # else the kernel does not say why (ip_error)
    with in_namespace(near.ns):
        bench = make_bench(udp_config(4739, host="192.0.2.2"))
        bench.open()
        first = bench.send(1000)
        got: list[int] = []
        bench.until(lambda: _has(collector, got, 1000), "flows arrive")
        command(["ip", "-n", far.ns, "rule", "add", "pref", "0", "from", "192.0.2.1", "iif", far.name, "prohibit"])
        command(["ip", "-n", far.ns, "rule", "add", "pref", "1", "lookup", "local"])
        command(["ip", "-n", far.ns, "rule", "del", "pref", "0", "lookup", "local"])
        bench.now_ns += SECOND
        bench.send(1000)
        bench.until(lambda: is_suspect(bench.session), "it is refused")
        bench.move(5)
        bench.send(1000)
        bench.close()
    assert got == first
    assert bench.stats.reconnects == 0
    assert bench.stats.not_sent["refused"] == Tally.of(rows(1000, 2000))


def _has(collector: UdpCollector, got: list[int], count: int) -> bool:
    got.extend(numbers_of(collector.messages()))
    return len(got) >= count
