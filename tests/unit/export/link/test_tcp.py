"""Transport Sessions over TCP, on real sockets on loopback."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable

import pytest

from netobs.export import Address
from tests.unit.export.support import (
    ROW,
    SECOND,
    Bench,
    TcpCollector,
    check_sequence,
    free_port,
    numbers_of,
    rows,
    tcp_config,
    templates_of,
)

MakeBench = Callable[..., Bench]
MakeTcp = Callable[..., TcpCollector]
ROW_BYTES = ROW.itemsize + 16


@pytest.fixture
def collector(make_tcp: MakeTcp) -> TcpCollector:
    return make_tcp()


@pytest.fixture
def bench(make_bench: MakeBench, collector: TcpCollector) -> Bench:
    return make_bench(tcp_config(collector.port))


def connect(bench: Bench, collector: TcpCollector) -> None:
    """Run until the collector has the templates of one more session."""
    sessions = len(collector.sessions)

    def done() -> bool:
        collector.poll()
        return len(collector.sessions) > sessions and bool(collector.sessions[-1])

    bench.until(done, "a connection with templates")


def arrive(bench: Bench, collector: TcpCollector, count: int) -> list[int]:
    """Run until ``count`` Data Records of the present session are here."""

    def done() -> bool:
        collector.poll()
        return bool(collector.sessions) and len(numbers_of(collector.sessions[-1])) >= count

    bench.until(done, f"{count} Data Records at the collector")
    assert collector.partial == b""
    return numbers_of(collector.sessions[-1])


def down(bench: Bench) -> None:
    bench.until(lambda: not bench.connected, "the end of the connection")


def test_templates_first_then_data_in_long_messages(bench: Bench, collector: TcpCollector) -> None:
    bench.open()
    assert bool(bench.session.account.attempts)
    early = bench.send(100)  # before the connection is there
    connect(bench, collector)
    late = bench.send(10_000)
    assert arrive(bench, collector, 10_100) == early + late
    messages = collector.sessions[0]
    assert messages[0].numbers == []
    check_sequence(messages)
    assert len(messages) < 50
    assert len(templates_of(messages)) == 1
    assert bench.stats.sent == bench.stats.seen
    assert bench.stats.messages == len(messages) - 1


def test_templates_are_not_refreshed_within_a_session(bench: Bench, collector: TcpCollector) -> None:
    bench.open()
    connect(bench, collector)
    for _ in range(5):
        bench.move(60)
    bench.send(10)
    arrive(bench, collector, 10)
    assert len(templates_of(collector.sessions[0])) == 1


def test_slow_reader_gets_whole_messages_in_order(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    """Small buffers on both sides: every write is partial."""
    collector = make_tcp(receive_buffer=4096)
    bench = make_bench(tcp_config(collector.port))
    bench.open()
    connect(bench, collector)
    bench.session._link._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[union-attr]
    sent = bench.send(10_000)
    assert bench.stats.queued.flows > 5000
    bench.send(5)

    def done() -> bool:
        collector.poll(limit=3000)
        return len(numbers_of(collector.sessions[-1])) >= 10_005

    bench.until(done, "all Data Records")
    assert numbers_of(collector.sessions[-1])[:10_000] == sent
    check_sequence(collector.sessions[-1])
    assert bench.stats.queued.flows == 0


def test_collector_down_at_start_does_not_matter(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    port = free_port(socket.SOCK_STREAM)
    bench = make_bench(tcp_config(port))
    bench.open()
    assert bool(bench.session.account.attempts)
    sent = bench.send(100)
    bench.until(lambda: bench.stats.failed_attempts == 1, "a refused connection")
    collector = make_tcp(port=port)
    bench.move(0.4)
    bench.rounds()
    assert collector.sessions == []
    bench.move(0.7)
    connect(bench, collector)
    assert arrive(bench, collector, 100) == sent


def test_pauses_grow_with_jitter_to_the_configured_maximum(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(tcp_config(free_port(socket.SOCK_STREAM), reconnect_max_ns=8 * SECOND))
    bench.open()
    pauses = []
    for attempt in range(1, 9):
        bench.until(lambda attempt=attempt: bench.stats.failed_attempts == attempt, "a refused connection")  # type: ignore[misc]
        timer = bench.session._link._retry_timer
        assert timer is not None
        pauses.append((timer.when_ns - bench.now_ns) / SECOND)
        bench.now_ns = timer.when_ns
    for pause, longest in zip(pauses, [1, 2, 4, 8, 8, 8, 8, 8]):
        assert longest / 2 <= pause <= longest
    assert len({pause % 1 for pause in pauses}) > 1
    assert len(caplog.messages) == 1
    assert "not reachable" in caplog.messages[0]


def test_collector_that_comes_back_gets_templates_and_a_new_sequence(
    bench: Bench, collector: TcpCollector, make_tcp: MakeTcp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "netobs.export")
    bench.open()
    connect(bench, collector)
    first = bench.send(1000)
    assert arrive(bench, collector, 1000) == first
    collector.close()
    down(bench)  # noticed while idle
    waiting = bench.send(500)
    assert bench.stats.queued.flows == 500
    again = make_tcp(port=collector.port)
    bench.move(1)
    connect(bench, again)
    assert arrive(bench, again, 500) == waiting
    check_sequence(again.sessions[0])
    assert again.sessions[0][0].numbers == []
    assert bench.stats.reconnects == 1
    states = [line.split(": ", 1)[1].split()[0] for line in caplog.messages]
    assert states == ["connected", "connection", "connected"]


def test_close_by_the_peer_is_seen_before_more_is_sent(bench: Bench, collector: TcpCollector) -> None:
    """Even when the loop had no round since: what is sent into a closed connection would be lost."""
    bench.open()
    connect(bench, collector)
    collector.hang_up()
    sent = bench.send(100)
    assert bench.stats.queued.flows == 100
    bench.move(1)
    connect(bench, collector)
    assert arrive(bench, collector, 100) == sent
    assert bench.stats.uncertain_bytes == 0


def test_break_in_the_middle_sends_again_what_was_not_acknowledged(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    collector = make_tcp(receive_buffer=4096)
    bench = make_bench(tcp_config(collector.port))
    bench.open()
    connect(bench, collector)
    bench.session._link._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[union-attr]
    sent = bench.send(20_000)
    for _ in range(20):
        collector.poll(limit=20_000)
        bench.rounds(1)
    kernel_has = bench.stats.sent.flows
    assert 0 < kernel_has < 20_000
    collector.hang_up()  # with unread data: a reset
    down(bench)
    acknowledged = bench.stats.sent.flows
    assert bench.stats.uncertain_bytes > 0
    assert bench.stats.resent.flows == kernel_has - acknowledged > 0
    assert acknowledged >= len(numbers_of(collector.sessions[0])), "what was read is acknowledged"
    bench.move(1)
    connect(bench, collector)
    assert arrive(bench, collector, 20_000 - acknowledged) == sent[acknowledged:]
    check_sequence(collector.sessions[-1])
    assert bench.stats.sent.flows == 20_000


def test_full_queue_drops_the_oldest_and_counts_them_exactly(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    port = free_port(socket.SOCK_STREAM)
    bench = make_bench(tcp_config(port, queue_max_bytes=1000 * ROW_BYTES + ROW_BYTES - 1))
    bench.open()
    bench.send(600)
    assert bench.stats.not_sent == {}
    bench.send(500)
    dropped = rows(0, 100)
    lost = bench.stats.not_sent["queue_full"]
    assert (lost.flows, lost.packets, lost.octets) == (100, dropped.packets.sum(), dropped.octets.sum())
    bench.send(5000)
    assert bench.stats.queued.flows == 1000
    collector = make_tcp(port=port)
    bench.until(lambda: bench.stats.failed_attempts == 1, "a refused connection")
    bench.move(1)
    connect(bench, collector)
    assert arrive(bench, collector, 1000) == list(range(5100, 6100))
    assert bench.stats.sent.flows == 1000


def test_queue_bound_holds_while_the_collector_reads_nothing(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    collector = make_tcp(receive_buffer=4096)
    limit = 1 << 20
    bench = make_bench(tcp_config(collector.port, queue_max_bytes=limit))
    bench.open()
    connect(bench, collector)
    for _ in range(30):
        bench.send(5000)
        bench.rounds(1)
        assert bench.stats.queued.flows * ROW_BYTES <= limit
    assert bench.stats.not_sent["queue_full"].flows > 50_000

    def done() -> bool:
        collector.poll()
        return bench.stats.queued.flows == 0

    bench.until(done, "an empty queue")
    arrive(bench, collector, bench.stats.sent.flows)
    check_sequence(collector.sessions[0])


def test_collector_that_accepts_and_drops_does_not_reset_the_pauses(bench: Bench, collector: TcpCollector) -> None:
    bench.open()
    pauses = []
    for _ in range(4):
        connect(bench, collector)
        collector.hang_up()
        down(bench)
        timer = bench.session._link._retry_timer
        assert timer is not None
        pauses.append(timer.when_ns - bench.now_ns)
        bench.now_ns = timer.when_ns
    assert pauses[-1] >= 4 * SECOND
    connect(bench, collector)
    bench.move(11)
    collector.hang_up()
    down(bench)
    timer = bench.session._link._retry_timer
    assert timer is not None
    assert timer.when_ns - bench.now_ns <= SECOND


def test_connect_without_answer_ends(make_bench: MakeBench) -> None:
    """A listener whose backlog is full does not answer a SYN."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        bench = make_bench(tcp_config(listener.getsockname()[1]))
        bench.open()
        bench.rounds()
        assert bool(bench.session.account.attempts)
        assert not bench.connected
        assert bench.stats.failed_attempts == 0
        bench.move(10.1)
        assert bench.stats.failed_attempts == 1
        assert bench.session._link._retry_timer is not None


def test_options_that_notice_a_dead_peer(bench: Bench, collector: TcpCollector) -> None:
    bench.open()
    connect(bench, collector)
    sock = bench.session._link._sock
    assert sock is not None
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    assert not os.get_inheritable(sock.fileno())


def test_ipv6_and_source(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    six, four = make_tcp("::1"), make_tcp()
    for host, source, collector in (("::1", "::1", six), ("127.0.0.1", "127.0.0.9", four)):
        bench = make_bench(tcp_config(collector.port, host=host, source=source))
        bench.open()
        connect(bench, collector)
        sent = bench.send(100)
        assert arrive(bench, collector, 100) == sent
        assert collector.connection is not None
        assert collector.connection.getpeername()[0] == source


def test_name_is_resolved_again_at_each_reconnect(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    collector = make_tcp()
    bench = make_bench(tcp_config(collector.port, host="localhost"))
    bench.open()
    connect(bench, collector)  # also where localhost is ::1 first, on which nothing listens
    collector.hang_up()
    down(bench)
    bench.move(1)
    connect(bench, collector)
    assert bench.stats.reconnects == 1


def test_addresses_are_tried_in_order(bench: Bench, collector: TcpCollector) -> None:
    bench.session._link._on_resolved(
        [
            Address(socket.AF_INET, ("127.0.0.1", free_port(socket.SOCK_STREAM))),
            Address(socket.AF_INET6, ("::1", free_port(socket.SOCK_STREAM, "::1"), 0, 0)),
            Address(socket.AF_INET, ("127.0.0.1", collector.port)),
        ],
        bench.now_ns,
    )
    connect(bench, collector)
    assert bench.stats.failed_attempts == 2


def test_close_flushes(bench: Bench, collector: TcpCollector) -> None:
    bench.open()
    connect(bench, collector)
    sent = bench.send(3000)
    bench.session.close(bench.now_ns, bench.now_ns + 5 * SECOND)
    bench.until(lambda: bench.session.closed, "the end of the session")
    assert arrive(bench, collector, 3000) == sent
    bench.until(lambda: collector.poll().ended, "the end of the stream")
    assert bench.stats.not_sent == {}
    bench.session.close(bench.now_ns, bench.now_ns)
    bench.send(10)
    assert bench.stats.not_sent["closed"].flows == 10


def test_close_counts_what_the_deadline_leaves(make_bench: MakeBench, make_tcp: MakeTcp) -> None:
    collector = make_tcp(receive_buffer=4096)
    bench = make_bench(tcp_config(collector.port))
    bench.open()
    connect(bench, collector)
    bench.send(300_000)
    bench.session.close(bench.now_ns, bench.now_ns + 5 * SECOND)
    bench.rounds()
    at_once = bench.session.closed  # by a name: mypy takes a property for constant
    assert not at_once
    waiting = bench.stats.queued
    bench.move(5)
    assert bench.session.closed
    assert bench.stats.not_sent == {"closed": waiting}


def test_close_tries_once_more_and_does_not_wait_for_a_collector_that_is_down(
    make_bench: MakeBench, make_tcp: MakeTcp
) -> None:
    port = free_port(socket.SOCK_STREAM)
    bench = make_bench(tcp_config(port))
    bench.open()
    bench.until(lambda: bench.stats.failed_attempts == 1, "a refused connection")
    sent = bench.send(50)
    collector = make_tcp(port=port)
    bench.session.close(bench.now_ns, bench.now_ns + 5 * SECOND)
    assert arrive(bench, collector, 50) == sent
    assert bench.session.closed

    second = make_bench(tcp_config(free_port(socket.SOCK_STREAM)))
    second.open()
    second.until(lambda: second.stats.failed_attempts == 1, "a refused connection")
    second.send(50)
    second.session.close(second.now_ns, second.now_ns + 5 * SECOND)
    second.until(lambda: second.session.closed, "an early end")
    assert second.stats.not_sent["closed"].flows == 50


def test_reset_is_a_broken_connection(bench: Bench, collector: TcpCollector, caplog: pytest.LogCaptureFixture) -> None:
    bench.open()
    connect(bench, collector)
    assert collector.connection is not None
    collector.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    collector.hang_up()
    down(bench)
    assert "Connection reset by peer" in caplog.text


def test_unread_answers_do_not_reset_the_connection_at_close(bench: Bench, collector: TcpCollector) -> None:
    bench.open()
    connect(bench, collector)
    sent = bench.send(3000)
    assert collector.connection is not None
    collector.connection.send(b"x" * 1000)
    bench.close()
    assert arrive(bench, collector, 3000) == sent
