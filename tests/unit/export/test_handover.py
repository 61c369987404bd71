"""A session gives what waits to another one, holds it for a collector that refuses, and drops what waits too long."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from netobs.flow.tally import Tally
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
    is_up,
    numbers_of,
    rows,
    tcp_config,
    templates_of,
    udp_config,
)

MakeBench = Callable[..., Bench]
MakeTcp = Callable[..., TcpCollector]
MakeUdp = Callable[..., UdpCollector]


def down(make_bench: MakeBench, **changes: object) -> Bench:
    """A session whose collector is down, over TCP."""
    bench = make_bench(tcp_config(free_port(socket.SOCK_STREAM), **changes))
    bench.open()
    bench.until(lambda: bench.stats.failed_attempts > 0, "the connection is refused")
    assert not is_up(bench.session)
    return bench


def refusing(make_bench: MakeBench, encoder: Encoder | None = None) -> tuple[Bench, int]:
    """A session that holds flows, for a collector that refuses them over UDP; and its port."""
    port = free_port(socket.SOCK_DGRAM)
    bench = make_bench(udp_config(port), encoder)
    bench.session.hold(True)
    collector = UdpCollector(port=port)
    bench.open()
    collector.close()
    bench.send(1)
    bench.until(lambda: is_suspect(bench.session), "a Message is refused")
    assert not is_up(bench.session)
    return bench, port


def test_what_waits_is_given_to_another_session(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    collector = make_tcp()
    first, second = down(make_bench), make_bench(tcp_config(collector.port))
    second.open()
    second.until(lambda: is_up(second.session), "it is connected")
    numbers = first.send(500)
    second.session.take_over(first.session, second.now_ns)
    first.check()
    assert first.stats.queued == Tally()
    assert first.stats.moved_away == Tally.of(rows(0, 500))
    assert first.session.surrender(first.now_ns) == []
    second.check()
    assert second.stats.moved_in == second.stats.seen == second.stats.sent == Tally.of(rows(0, 500))
    second.until(lambda: numbers_of(collector.poll().sessions[0]) == numbers, "all arrives")
    check_sequence(collector.sessions[0])


def test_what_is_taken_over_keeps_to_the_limits(make_bench: MakeBench) -> None:
    first, second = down(make_bench), down(make_bench, queue_max_bytes=100 * 52)
    first.send(500)
    second.session.take_over(first.session, second.now_ns)
    second.check()
    assert second.stats.queued.flows == 100
    assert second.stats.not_sent == {"queue_full": Tally.of(rows(0, 400))}


def test_what_waits_too_long_is_dropped_and_counted(make_bench: MakeBench) -> None:
    bench = down(make_bench, queue_max_age_ns=60 * SECOND)
    bench.send(10)
    bench.now_ns += 40 * SECOND
    bench.send(10)
    assert bench.stats.not_sent == {}
    bench.now_ns += 21 * SECOND
    bench.send(1)
    assert bench.stats.not_sent == {"queue_age": Tally.of(rows(0, 10))}
    assert bench.stats.queued == Tally.of(rows(10, 11))


def test_what_waits_too_long_is_not_sent_when_the_collector_is_back(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    bench = down(make_bench, queue_max_age_ns=60 * SECOND, reconnect_max_ns=SECOND)
    collector = make_tcp(port=bench.session._config.port)
    bench.send(10)
    bench.move(61)
    bench.until(lambda: is_up(bench.session), "it is connected")
    assert bench.stats.not_sent == {"queue_age": Tally.of(rows(0, 10))}
    numbers = bench.send(5)
    bench.until(lambda: numbers_of(collector.poll().sessions[0]) == numbers, "the new ones arrive")


@pytest.mark.parametrize("templates", [1, 0], ids=["templates", "no templates"])
def test_a_collector_that_refuses_is_probed_and_gets_what_was_held(
    make_bench: MakeBench, make_udp: MakeUdp, templates: int
) -> None:
    bench, port = refusing(make_bench, Encoder(templates))
    refused = bench.stats.sent.flows
    numbers = bench.send(5000)
    bench.move(2)
    assert (bench.stats.sent.flows, bench.stats.queued.flows) == (refused, 5000)
    for _ in range(3):  # nobody is there yet: no probe is taken for an answer
        bench.move(1.1)
    assert is_suspect(bench.session)
    collector = make_udp(port=port)
    bench.move(1.1)
    probes = collector.raw()
    assert len(probes) == 1
    assert bool(probes[0]) == bool(templates)
    for _ in range(2):  # a second without a refusal
        bench.move(1.1)
    assert is_up(bench.session)
    bench.until(lambda: not bench.stats.queued.flows, "what was held is sent")
    messages = [Message.parse(data) for data in collector.raw() if data]
    assert numbers_of(messages) == numbers
    assert len(templates_of(messages)) in ((1, 2, 3) if templates else (0,))  # probes, and one before the flows


def test_a_burst_that_is_refused_stops(make_bench: MakeBench, make_udp: MakeUdp) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port))
    bench.session.hold(True)
    bench.open()
    bench.until(lambda: is_up(bench.session), "the address is known")
    collector.close()
    bench.send(20_000)
    assert is_suspect(bench.session)
    refused = bench.stats.not_sent["refused"].flows
    assert 0 < refused < 10_000
    assert bench.stats.sent.flows == 0
    given = bench.session.surrender(bench.now_ns)
    bench.check()
    assert sum(map(len, given)) == 20_000 - refused


def test_a_session_that_holds_ends_at_once(make_bench: MakeBench) -> None:
    bench, _ = refusing(make_bench)
    bench.send(100)
    bench.session.close(bench.now_ns, bench.now_ns + 4 * SECOND)
    assert bench.session.closed
    assert bench.stats.not_sent == {"refused": Tally.of(rows(0, 1)), "closed": Tally.of(rows(1, 100))}


def test_templates_are_sent_again_after_so_many_messages(make_bench: MakeBench, make_udp: MakeUdp) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port, template_refresh_messages=20))
    bench.open()
    bench.until(lambda: is_up(bench.session), "the address is known")
    numbers = bench.send(10_000) + bench.send(1) + bench.send(5000)
    messages = collector.messages()
    assert numbers_of(messages) == numbers
    check_sequence(messages)
    at = [index for index, message in enumerate(messages) if not message.numbers]
    assert at == list(range(0, len(messages), 21))
    assert len(at) > 10


def test_over_tcp_templates_are_sent_once(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    collector = make_tcp()
    bench = make_bench(tcp_config(collector.port, template_refresh_messages=1))
    bench.open()
    bench.until(lambda: is_up(bench.session), "it is connected")
    numbers = bench.send(10_000)
    bench.until(lambda: numbers_of(collector.poll().sessions[0]) == numbers, "all arrives")
    assert len(templates_of(collector.sessions[0])) == 1
