"""Over UDP the Templates of a new session go ahead of the data: a collector's workers need a moment for them."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from netobs.base.clock import ClockPair, monotonic_ns
from netobs.base.loop import EventLoop
from netobs.export import TransportSession
from netobs.export.announcer import LEAD_NS
from tests.unit.export.support import (
    REALTIME_NS,
    SECOND,
    Bench,
    Encoder,
    Header,
    Message,
    UdpCollector,
    check_sequence,
    free_port,
    is_up,
    numbers_of,
    rows,
    tcp_config,
    udp_config,
)

SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("qq")
MakeBench = Callable[..., Bench]
MakeUdp = Callable[..., UdpCollector]


class Arrival(NamedTuple):
    """A Message, and when the kernel got it, ns."""

    message: Message
    at_ns: int


def arrivals(collector: UdpCollector) -> list[Arrival]:
    found: list[Arrival] = []
    while True:
        try:
            data, ancillary, _, _ = collector.sock.recvmsg(65_536, 64)
        except BlockingIOError:
            return found
        ((_, _, stamp),) = ancillary
        seconds, nanoseconds = TIMESPEC.unpack(stamp)
        found.append(Arrival(Message.parse(data), seconds * SECOND + nanoseconds))


def ask_for_stamps(collector: UdpCollector) -> None:
    """Until the kernel stamps what arrives, and not what is read: a worker switches that on (net_enable_timestamp)."""
    collector.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        stamp_ns = read_from_ns = 0
        while stamp_ns >= read_from_ns:
            sender.sendto(b"?", ("127.0.0.1", collector.port))
            select.select([collector.sock], [], [])
            read_from_ns = time.time_ns()
            _, ((_, _, stamp),), _, _ = collector.sock.recvmsg(1, 64)
            seconds, nanoseconds = TIMESPEC.unpack(stamp)
            stamp_ns = seconds * SECOND + nanoseconds


@pytest.mark.parametrize("options", [0, 2])
def test_the_kernel_sees_the_templates_before_the_data(make_udp: MakeUdp, options: int) -> None:
    """With the clock of the daemon and the kernel's own time stamps: the gap is what the design guarantees."""
    collector = make_udp()
    ask_for_stamps(collector)
    loop = EventLoop()
    session = TransportSession(udp_config(collector.port), Encoder(2, options), Header, loop)
    now_ns = monotonic_ns()
    session.open(ClockPair(now_ns, REALTIME_NS), now_ns)
    session.send([rows(0, 2000)], ClockPair(now_ns, REALTIME_NS), now_ns)
    while session.account.queued.flows:
        loop.run_once(SECOND)
    session.close(monotonic_ns(), monotonic_ns() + SECOND)
    assert session.closed
    loop.close()
    found = arrivals(collector)
    templates = [each.at_ns for each in found if not each.message.numbers and not each.message.options]
    data = [each.at_ns for each in found if each.message.numbers or each.message.options]
    assert len(templates) == 2
    assert min(data) - max(templates) >= LEAD_NS
    assert [each.at_ns for each in found] == sorted(each.at_ns for each in found)
    check_sequence([each.message for each in found])
    assert numbers_of([each.message for each in found]) == list(range(2000))


def began(bench: Bench) -> list[int]:
    """The Templates of ``bench`` are out and lead; flows wait for that."""
    bench.session.open(bench.clock, bench.now_ns)
    return bench.offer(100)


def test_data_wait_for_the_lead(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port), Encoder(options=1))
    sent = began(bench)
    bench.rounds()
    (template,) = collector.messages()
    assert (template.numbers, template.options) == ([], ())
    bench.now_ns += LEAD_NS  # as if the round with the Templates had taken so long: the lead begins only now
    bench.rounds()
    assert collector.messages() == []
    bench.now_ns += LEAD_NS - 1
    bench.rounds()
    assert collector.messages() == []
    bench.now_ns += 1
    bench.rounds()
    messages = collector.messages()
    assert [bool(message.options) for message in messages[:2]] == [True, False]
    assert numbers_of(messages) == sent


def test_a_refresh_does_not_hold_data_back(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port))
    bench.open()
    collector.raw()
    bench.now_ns += 60 * SECOND
    bench.loop.run_once(0)
    sent = bench.offer(100)
    assert numbers_of(collector.messages()) == sent


def test_a_new_session_leads_again(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port))
    bench.open()
    collector.raw()
    bench.session._link.disconnect("the address has changed", bench.now_ns)
    bench.offer(100)
    bench.rounds()
    assert numbers_of(collector.messages()) == []
    bench.until(lambda: bench.stats.sent.flows == 100, "the lead is over")


def test_closing_waits_for_the_lead_and_no_longer(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port))
    sent = began(bench)
    bench.session.close(bench.now_ns, bench.now_ns + 4 * SECOND)
    closed = bench.session.closed  # by a name: mypy takes a property for constant
    assert not closed
    for _ in range(3):
        bench.now_ns += LEAD_NS
        bench.rounds()
    assert bench.session.closed
    assert numbers_of(collector.messages()) == sent
    assert bench.stats.not_sent == {}


def test_closing_in_the_lead_with_nothing_to_send_is_at_once(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    bench = make_bench(udp_config(make_udp().port))
    bench.session.open(bench.clock, bench.now_ns)
    bench.session.close(bench.now_ns, bench.now_ns + 4 * SECOND)
    assert bench.session.closed


def test_tcp_needs_no_lead(make_bench: MakeBench, make_tcp: Callable[..., object]) -> None:
    port = free_port(socket.SOCK_STREAM)
    collector = make_tcp(port=port)
    bench = make_bench(tcp_config(port))
    bench.session.open(bench.clock, bench.now_ns)
    bench.until(lambda: is_up(bench.session), "a connection")
    bench.offer(100)
    assert bench.stats.sent.flows == 100
    assert collector is not None
