"""Options records in a Transport Session: after templates, before flows, on time, on change, and in sequence."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest

from netobs.export.announcer import CHANGES_SPACING_NS
from tests.unit.export.support import (
    SECOND,
    Bench,
    Encoder,
    Message,
    TcpCollector,
    UdpCollector,
    check_sequence,
    free_port,
    is_suspect,
    numbers_of,
    options_of,
    tcp_config,
    udp_config,
)

MakeBench = Callable[..., Bench]
MakeUdp = Callable[..., UdpCollector]
MakeTcp = Callable[..., TcpCollector]
WRAP = 1 << 32


def kinds(messages: list[Message]) -> str:
    """A letter for each Message: T templates, O options, D data."""
    return "".join("O" if message.options else "D" if message.numbers else "T" for message in messages)


@pytest.fixture
def collector(make_udp: MakeUdp) -> UdpCollector:
    return make_udp()


def opened(bench: Bench) -> Bench:
    bench.open()
    bench.rounds()
    return bench


def test_order_and_sequence(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = opened(make_bench(udp_config(collector.port), Encoder(templates=2, options=3)))
    bench.send(30)
    messages = collector.messages()
    assert kinds(messages) == "TTOOOD"
    check_sequence(messages)
    assert bench.stats.template_messages == 5
    assert bench.stats.sent.flows == 30


def test_options_are_refreshed_over_udp_with_and_without_templates(
    collector: UdpCollector, make_bench: MakeBench
) -> None:
    config = udp_config(collector.port, template_refresh_ns=60 * SECOND, options_refresh_ns=25 * SECOND)
    bench = opened(make_bench(config, Encoder(options=1)))
    bench.send(5)
    messages = collector.messages()
    assert kinds(messages) == "TOD"
    for at, expected in ((25, "O"), (50, "O"), (60, "TO"), (85, "O"), (110, "O"), (120, "TO")):
        bench.move(at - (bench.now_ns / SECOND - 5))
        found = collector.messages()
        assert kinds(found) == expected
        messages += found
    check_sequence(messages)


def test_both_refreshes_at_once_are_one(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = opened(make_bench(udp_config(collector.port), Encoder(options=1)))
    assert kinds(collector.messages()) == "TO"
    for _ in range(3):
        bench.move(60.0)
        assert kinds(collector.messages()) == "TO"


def test_over_tcp_only_options_are_refreshed(make_tcp: MakeTcp, make_bench: MakeBench) -> None:
    collector = make_tcp()
    bench = make_bench(tcp_config(collector.port), Encoder(options=2))
    bench.open()
    bench.until(lambda: bench.stats.template_messages == 3, "the session begins")
    bench.send(10)
    bench.move(60.0)
    bench.send(10)
    bench.move(60.0)
    bench.until(lambda: len(collector.poll().sessions[0]) == 9, "all arrives")
    (session,) = collector.sessions
    assert kinds(session) == "TOODOODOO"
    check_sequence(session)


def test_a_change_is_reported_at_once_and_at_most_once_a_second(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = opened(make_bench(udp_config(collector.port), Encoder(options=1)))
    assert options_of(collector.messages())[0].options == (0, 0)
    bench.move(5.0)
    for count in range(1, 6):
        bench.interfaces = count
        bench.session.options_changed(bench.now_ns)
        bench.rounds()
    assert [message.options for message in collector.messages()] == [(0, 1)]
    bench.move(CHANGES_SPACING_NS / SECOND - 0.1)
    assert collector.messages() == []
    bench.move(0.1)
    assert [message.options for message in collector.messages()] == [(0, 5)]
    bench.move(58.0)
    assert kinds(collector.messages()) == "TO"


def test_a_change_within_the_last_second_is_reported_at_the_end(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = opened(make_bench(udp_config(collector.port), Encoder(options=1)))
    for bench.interfaces in (1, 2):
        bench.session.options_changed(bench.now_ns)
        bench.rounds()
    bench.send(5)
    messages = collector.messages()
    assert kinds(messages) == "TOOD"
    bench.session.close(bench.now_ns, bench.now_ns + SECOND)
    bench.until(lambda: bench.session.closed, "the session ends")
    messages += collector.messages()
    assert [message.options and message.options[1] for message in options_of(messages)] == [0, 1, 2]
    check_sequence(messages)


def test_a_change_while_nobody_is_connected(make_tcp: MakeTcp, make_bench: MakeBench) -> None:
    port = free_port(socket.SOCK_STREAM)
    bench = make_bench(tcp_config(port), Encoder(options=1))
    bench.open()
    bench.until(lambda: bench.stats.failed_attempts > 0, "nobody is there")
    bench.interfaces = 7
    bench.session.options_changed(bench.now_ns)
    bench.rounds()
    collector = make_tcp(port=port)
    bench.move(60.0)
    bench.until(lambda: [len(session) for session in collector.poll().sessions[:1]] == [2], "it connects")
    assert [message.options for message in options_of(collector.sessions[0])] == [(0, 7)]


def test_the_report_counts_what_was_sent_before(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = opened(make_bench(udp_config(collector.port), Encoder(options=1)))
    bench.send(10)
    bench.move(60.0)
    assert [message.options[0] for message in options_of(collector.messages())] == [0, 1]


def test_a_restarted_collector_gets_options_too(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    port = free_port(socket.SOCK_DGRAM)
    bench = opened(make_bench(udp_config(port), Encoder(options=1)))
    bench.send(10)
    bench.rounds()
    failing = is_suspect(bench.session)  # by a name: mypy takes a property for constant
    assert failing
    bench.send(10)
    collector = make_udp(port=port)
    while is_suspect(bench.session):
        bench.send(10)
        bench.move(1.1)
    bench.send(10)
    messages = collector.messages()
    assert kinds(messages).startswith("TD")  # while it is not known to be there: what its first flows need
    assert kinds(messages).endswith("TOD")
    assert len(options_of(messages)) == 1
    first = messages[0].sequence
    for before, after in zip(messages, messages[1:]):
        assert after.sequence == (before.sequence + len(before.numbers) + bool(before.options)) % WRAP
    assert first == messages[1].sequence


def test_a_session_that_breaks_in_the_options_begins_anew(
    make_tcp: MakeTcp, make_bench: MakeBench, cleanup: contextlib.ExitStack
) -> None:
    """More options than the collector's buffer and ours hold: the connection breaks before they are out."""
    collector = make_tcp(receive_buffer=4096)
    encoder = Encoder(options=200_000)
    bench = make_bench(tcp_config(collector.port), encoder)
    bench.open()
    bench.until(lambda: bench.stats.template_messages > 100, "the first are out")
    sent = bench.offer(10)
    bench.rounds(20)
    before = bench.stats.template_messages
    assert before < 200_000
    assert bench.stats.sent.flows == 0
    encoder.options = 3
    collector.poll(1)
    collector.hang_up()
    bench.until(lambda: not bench.connected, "the loss is noticed")
    bench.move(60.0)
    bench.until(lambda: numbers_of(collector.poll().sessions[-1]) == sent, "the flows arrive")
    assert len(collector.sessions) == 2
    assert kinds(collector.sessions[-1]) == "TOOOD"
    check_sequence(collector.sessions[-1])
