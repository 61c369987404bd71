"""Transport Sessions with a spool, on real sockets and files: nothing is lost in an outage, and nothing comes twice."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

from netobs.base.errors import ExportError
from netobs.config import CollectorConfig
from netobs.export.policies import STALL_NS
from netobs.flow.tally import Tally
from tests.unit.export.support import (
    ROW,
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
    tcp_config,
    templates_of,
    udp_config,
)
from tests.unit.export.test_conservation import EVENTS, Collector, act

MakeBench = Callable[..., Bench]
MakeTcp = Callable[..., TcpCollector]
MakeUdp = Callable[..., UdpCollector]
ROW_BYTES = ROW.itemsize + 16


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def config(spool: Path) -> CollectorConfig:
    """A TCP collector that is down."""
    return tcp_config(free_port(socket.SOCK_STREAM), spool=str(spool))


def refused(bench: Bench) -> None:
    """Open, and find nobody there."""
    bench.open()
    bench.until(lambda: bench.stats.failed_attempts == 1, "a refused connection")


def arrived(bench: Bench, collector: TcpCollector, count: int) -> list[int]:
    """Run until ``count`` Data Records of the present session are here."""

    def done() -> bool:
        collector.poll()
        return bool(collector.sessions) and len(numbers_of(collector.sessions[-1])) >= count

    bench.until(done, f"{count} Data Records at the collector")
    check_sequence(collector.sessions[-1])
    assert collector.sessions[-1][0].numbers == []
    return numbers_of(collector.sessions[-1])


def files(spool: Path) -> list[Path]:
    return sorted(spool.glob("main/*.ipfix*"))


def test_an_outage_costs_nothing(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig, spool: Path
) -> None:
    bench = make_bench(config)
    refused(bench)
    sent = [number for count in (100, 5000, 3) for number in bench.send(count)]
    assert bench.stats.queued == Tally()
    assert bench.stats.spooled.flows == 5103
    collector = make_tcp(port=config.port)
    bench.move(1)
    assert arrived(bench, collector, 5103) == sent
    live = bench.send(100)
    assert arrived(bench, collector, 5203) == sent + live
    bench.until(lambda: not files(spool), "the end of the spool")
    assert bench.stats.sent == bench.stats.seen
    assert bench.stats.spooled == Tally()
    assert bench.stats.resent == Tally()


def is_readable(messages: list[Message], known: set[int]) -> bool:
    """Whether each Message with flows came behind its Template; ``known`` takes the Templates in."""
    for message in messages:
        if message.numbers and message.template_id not in known:
            return False
        known.add(message.template_id)
    return True


def test_what_an_earlier_release_wrote_is_sent_behind_its_own_templates(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig, spool: Path
) -> None:
    before = make_bench(config)
    refused(before)
    old = before.send(40_000)
    before.close()
    collector = make_tcp(port=config.port)
    bench = make_bench(config, Encoder(data_id=4000))
    bench.open()

    def some_here() -> bool:
        return any(len(numbers_of(session)) > 500 for session in collector.poll(8192).sessions)

    bench.until(some_here, "a part of the file")
    collector.hang_up()  # in the middle of the file
    bench.until(lambda: not bench.connected, "the end of the connection")
    bench.move(60)
    bench.until(lambda: bench.connected, "another connection")
    live = bench.send(10)  # they have the numbers of the first old ones again
    bench.until(lambda: len(collector.poll().sessions) == 2 and not bench.stats.spooled.flows, "all Messages sent")
    bench.move(1)  # what has arrived is asked for once a second
    bench.until(lambda: not collector.poll().partial and not files(spool), "the end of the spool")
    got = sorted(numbers_of(collector.poll().sessions[-1]))
    assert got == [*live, *old[len(live) - len(got) :]]  # what the first connection's host has acknowledged is through
    for session in collector.sessions:
        check_sequence(session)
        assert is_readable(session, set())
        assert len([each for each in templates_of(session) if each.template_id == 256]) == 1
    assert bench.stats.not_sent == {}


def test_over_udp_each_batch_of_an_earlier_release_has_its_templates(
    make_bench: MakeBench, make_udp: MakeUdp, spool: Path
) -> None:
    config = udp_config(free_port(socket.SOCK_DGRAM), spool=str(spool))
    before = make_bench(config)
    before.open()
    before.send(10)
    before.until(lambda: is_suspect(before.session), "a refusal")
    old = before.send(20_000)
    before.close()
    assert before.stats.spooled.flows >= 20_000
    collector = make_udp(port=config.port)
    bench = make_bench(config, Encoder(data_id=4000))
    bench.open()
    messages: list[Message] = []

    def all_here() -> bool:
        messages.extend(collector.messages())
        return not files(spool)

    bench.until(all_here, "the end of the spool")
    messages += collector.messages()
    assert set(old) <= set(numbers_of(messages))
    assert is_readable(messages, set())
    assert len([each for each in templates_of(messages) if each.template_id == 256]) > 5
    assert bench.stats.not_sent == {}


def test_new_flows_come_first_and_the_spool_is_paced(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig
) -> None:
    bench = make_bench(tcp_config(config.port, spool=config.spool, spool_rate_bytes=1 << 20))
    refused(bench)
    old = bench.send(40_000)
    collector = make_tcp(port=config.port)
    bench.move(1)
    bench.until(lambda: bench.connected, "a connection")
    start_ns = bench.now_ns
    first = bench.offer(10)
    bench.rounds()
    assert bench.stats.queued == Tally()
    assert bench.stats.spooled.flows > 30_000
    got = arrived(bench, collector, 40_010)
    assert got.index(first[0]) < 10_000
    assert [number for number in got if number < 40_000] == old
    seconds = (bench.now_ns - start_ns) / SECOND
    assert 40_000 * ROW.itemsize / (1 << 20) * 0.9 <= seconds + 0.1


def test_a_break_in_the_middle_keeps_what_was_not_acknowledged(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig, caplog: pytest.LogCaptureFixture
) -> None:
    collector = make_tcp(port=config.port, receive_buffer=4096)
    bench = make_bench(config)
    bench.open()
    bench.until(lambda: bench.connected, "a connection")
    sent = bench.send(20_000)
    for _ in range(20):
        collector.poll(limit=20_000)
        bench.rounds(1)
    collector.hang_up()  # with unread data: a reset
    bench.until(lambda: not bench.connected, "the end of the connection")
    acknowledged = bench.stats.sent.flows
    assert bench.stats.resent.flows > 0
    assert bench.stats.queued == Tally()
    assert bench.stats.spooled.flows == 20_000 - acknowledged
    assert f"flows wait in the spool {config.spool}" in caplog.text
    bench.move(1)
    assert arrived(bench, collector, 20_000 - acknowledged) == sent[acknowledged:]
    assert len(numbers_of(collector.sessions[0])) <= acknowledged


def test_a_break_while_the_spool_is_sent_rewinds_it(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig
) -> None:
    bench = make_bench(config)
    refused(bench)
    sent = bench.send(60_000)
    collector = make_tcp(port=config.port, receive_buffer=4096)
    bench.move(1)

    def some_is_sent() -> bool:
        collector.poll(limit=20_000)
        return bench.stats.sent.flows > 6000

    bench.until(some_is_sent, "some of the spool")
    live = bench.offer(5000)
    collector.hang_up()
    bench.until(lambda: not bench.connected, "the end of the connection")
    read = numbers_of(collector.sessions[0])
    assert bench.stats.resent.flows > 0
    missing = bench.stats.spooled.flows
    bench.move(2)
    rest = arrived(bench, collector, missing)
    assert len(read) + missing <= 65_000
    assert not set(read).intersection(rest)
    assert len(rest) == len(set(rest))
    assert set(read) <= set(sent + live) - set(rest), "what was read is acknowledged"
    assert bench.stats.sent == bench.stats.seen


def test_the_spool_outlives_the_session(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig, spool: Path
) -> None:
    bench = make_bench(config)
    refused(bench)
    sent = bench.send(3000)
    bench.session.close(bench.now_ns, bench.now_ns + 4 * SECOND)
    bench.settle()
    assert bench.session.closed, "nobody to wait for"
    assert bench.stats.spooled == bench.stats.seen
    assert bench.stats.not_sent == {}
    collector = make_tcp(port=config.port)
    second = make_bench(config)
    second._next = 0
    second.open()
    assert arrived(second, collector, 3000) == sent
    assert second.stats.taken_over == second.stats.sent == bench.stats.seen
    second.move(1)
    assert files(spool) == []


def test_what_a_slow_collector_leaves_at_the_deadline_is_kept(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig
) -> None:
    collector = make_tcp(port=config.port, receive_buffer=4096)
    bench = make_bench(config)
    bench.open()
    bench.until(lambda: bench.connected, "a connection")
    bench.send(300_000)
    bench.session.close(bench.now_ns, bench.now_ns + SECOND)
    bench.move(1)
    assert bench.session.closed
    assert bench.stats.not_sent == {}
    kept = bench.stats.spooled.flows
    assert kept + bench.stats.sent.flows == 300_000
    bench.until(lambda: collector.poll().ended, "the end of the stream")
    assert len(numbers_of(collector.sessions[0])) == bench.stats.sent.flows
    collector.hang_up()
    second = make_bench(config)
    second.open()
    rest = arrived(second, collector, kept)
    assert numbers_of(collector.sessions[0]) + rest == list(range(300_000))


def test_a_collector_that_hangs_and_a_full_queue_cost_nothing(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig
) -> None:
    collector = make_tcp(port=config.port, receive_buffer=4096)
    bench = make_bench(tcp_config(config.port, spool=config.spool, queue_max_bytes=20_000 * ROW_BYTES))
    bench.open()
    bench.until(lambda: bench.connected, "a connection")
    for _ in range(10):
        bench.offer(10_000)
    assert bench.stats.not_sent == {}
    assert bench.stats.spooled.flows > 0
    bench.now_ns += STALL_NS
    bench.offer(1)
    assert bench.session._queue.bytes == 0
    assert sorted(arrived(bench, collector, 100_001)) == list(range(100_001))
    assert bench.stats.resent == Tally()


def test_without_a_folder_flows_wait_in_memory(
    make_bench: MakeBench, make_tcp: MakeTcp, config: CollectorConfig, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(tcp_config(config.port, spool=str(spool / "a" / "b"), queue_max_bytes=1000 * ROW_BYTES))
    refused(bench)
    for _ in range(3):
        bench.send(500)
    assert bench.stats.queued.flows == 1000
    assert bench.stats.not_sent["queue_full"].flows == 500
    (warning,) = [line for line in caplog.messages if "No such file" in line]
    assert warning == (
        f'collector "main": spool {spool}/a: No such file or directory; '
        "flows wait in memory, and the spool is tried again each minute"
    )
    (spool / "a").mkdir(parents=True)
    bench.move(61)
    bench.send(10)
    assert bench.stats.queued == Tally()
    assert bench.stats.spooled.flows == 1010


def test_two_sessions_cannot_share_a_spool(make_bench: MakeBench, config: CollectorConfig) -> None:
    make_bench(config)
    with pytest.raises(ExportError, match="is used by another process"):
        make_bench(config)


def test_udp_asks_with_templates_and_keeps_the_flows(
    make_bench: MakeBench, make_udp: MakeUdp, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port(socket.SOCK_DGRAM)
    bench = make_bench(udp_config(port, spool=str(spool)))
    bench.open()
    bench.rounds()
    failing = is_suspect(bench.session)  # by a name: mypy takes a property for constant
    assert failing, "the templates were refused"
    sent = bench.send(5000) + bench.send(10)
    assert bench.stats.spooled.flows == 5010
    assert bench.stats.sent == Tally()
    assert f"nothing listens there; flows wait in the spool {spool}" in caplog.text
    templates = bench.stats.template_messages
    for _ in range(5):
        bench.move(1)
    assert 3 <= bench.stats.template_messages - templates <= 7
    collector = make_udp(port=port)
    for _ in range(4):
        bench.move(1)
    assert not is_suspect(bench.session)
    bench.until(lambda: bench.stats.sent.flows == 5010, "the end of the spool")
    messages = collector.messages()
    assert messages[0].numbers == []
    assert numbers_of(messages) == sent
    data = [message for message in messages if message.numbers]
    assert [message.sequence for message in data] == [
        sum(len(before.numbers) for before in data[:index]) for index in range(len(data))
    ]
    assert files(spool) == []


def test_udp_collector_that_goes_away_costs_what_was_on_its_way(
    make_bench: MakeBench, make_udp: MakeUdp, spool: Path
) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port, spool=str(spool)))
    bench.open()
    bench.send(100)
    got = numbers_of(collector.messages())
    assert got == list(range(100))
    bench.move(1)
    collector.close()
    bench.send(5000)
    for _ in range(3):
        bench.move(1)
    assert bench.stats.sent.flows == 100
    lost = bench.stats.not_sent["refused"].flows
    assert 0 < lost < 5000, "the first burst went out before anybody knew"
    back = make_udp(port=collector.port)
    for _ in range(4):
        bench.move(1)
    bench.until(lambda: bench.stats.spooled == Tally(), "the end of the spool")
    messages = back.messages()
    assert numbers_of(messages) == list(range(100 + lost, 5100))
    assert len(templates_of(messages)) >= 1


def test_errors_of_the_path_count_nothing_as_lost(make_bench: MakeBench, spool: Path) -> None:
    """EACCES for a broadcast address that the socket may not send to."""
    bench = make_bench(udp_config(4739, host="127.0.0.1", spool=str(spool)))
    bench.open()
    bench.session._link._note_error(errno.ENETUNREACH, bench.now_ns)  # type: ignore[attr-defined]
    bench.send(50)
    assert bench.stats.spooled.flows == 50
    assert bench.stats.not_sent == {}


@pytest.mark.parametrize("queue_flows", [3000, 100_000])
@given(events=EVENTS)
@settings(max_examples=40, deadline=None)
def test_tcp_conservation(
    tmp_path_factory: pytest.TempPathFactory, queue_flows: int, events: list[tuple[str, float]]
) -> None:
    """Whatever happens: the next run brings all that no acknowledgement has vouched for, and none twice."""
    port = free_port(socket.SOCK_STREAM)
    spool = tmp_path_factory.mktemp("spool")
    config = tcp_config(port, queue_max_bytes=queue_flows * ROW_BYTES, spool=str(spool))
    with contextlib.ExitStack() as stack:
        collector = Collector(TcpCollector, port)
        stack.callback(collector.close)
        bench = Bench(config)
        stack.callback(bench.close)
        act(bench, collector, [("up", 0), *events])
        bench.session.close(bench.now_ns, bench.now_ns)
        bench.rounds()
        assert bench.stats.not_sent == {}
        collector.read_to_the_end()
        if collector.up is not None:
            collector.up.close()
        last = TcpCollector(port=port)
        stack.callback(last.close)
        again = Bench(config)
        stack.callback(again.close)
        again.open()
        rest = arrived(again, last, bench.stats.spooled.flows) if bench.stats.spooled.flows else []
        got = [number for session in collector.sessions for number in numbers_of(session)]
        assert len(got) == len(set(got))
        assert not set(got).intersection(rest)
        assert len(rest) == len(set(rest)) == bench.stats.seen.flows - bench.stats.sent.flows
        if not {"down", "hang up"}.intersection(name for name, _ in events):
            assert sorted(got + rest) == list(range(bench.stats.seen.flows))
