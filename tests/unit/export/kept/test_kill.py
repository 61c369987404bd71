"""A process that exports is killed between any two lines: the next one goes on, and no flow is lost or comes twice."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import select
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netobs.collector.decode import Decoder
from netobs.config import CollectorConfig
from netobs.encode.protocols import exporter
from netobs.export.kept.places import Places
from netobs.export.kept.session import Place
from netobs.flow.records import FlowBatch
from tests.unit.export.kept import dying
from tests.unit.export.kept.dying import SocketKeeper, Store
from tests.unit.export.site import flows
from tests.unit.export.support import (
    Bench,
    Encoder,
    Header,
    Message,
    TcpCollector,
    UdpCollector,
    check_sequence,
    free_port,
    numbers_of,
    rows,
    tcp_config,
    udp_config,
)

IDENTITY = {"name": "main"}
SIZES = (700, 1, 40, 3000, 0, 9, 260)
"""Data Records in each batch: the largest needs two bursts, and more than one call."""


class Life:
    """A session of one process, with what the process before has kept."""

    def __init__(
        self, config: CollectorConfig, store: Store, encoder: Any = None, header: Callable[..., Any] = Header
    ) -> None:
        self.keeper = SocketKeeper(store)
        self.bench = Bench(config, encoder, Place(self.keeper, 0, IDENTITY), header)

    def work(self) -> None:
        """Exports all batches that were not taken yet, as the journal of evictions gives them."""
        bench = self.bench
        bench.open()
        self.ready()
        for number in range(bench.session.last_batch + 1, len(SIZES) + 1):
            start = sum(SIZES[: number - 1])
            bench.session.send(self.data_sets(start, SIZES[number - 1]), bench.clock, bench.now_ns, number)
            while bench._wait_for_burst():
                bench.loop.run_once(0)

    def ready(self) -> None:
        """It may begin."""

    def data_sets(self, start: int, count: int) -> list[Any]:
        return [rows(start, count)]

    def finish(self) -> None:
        self.work()
        self.bench.until(lambda: not self.bench.stats.queued.flows, "all is sent")


def check_goes_on(messages: list[Message]) -> None:
    """Each Sequence Number is what was sent before, over all processes; only Templates and options come between."""
    expected = 0
    for message in messages:
        assert message.sequence == expected, (message.sequence, expected)
        expected += len(message.numbers) + bool(message.options)


def lives(
    config: CollectorConfig, store: Store, kills: list[int], make: Callable[[], Encoder] = Encoder
) -> tuple[Life, int]:
    """One process after another, each killed at a line of ``kills``; then the last, which comes to its end."""
    died = 0
    for at in kills:
        died += dying.run(lambda: Life(config, store, make()).work(), at)
        store.read()
    last = Life(config, store, make())
    last.finish()
    return last, died


def test_over_udp_nothing_is_lost_doubled_or_out_of_sequence() -> None:
    chance = random.Random(14)
    with dying.store() as unused:
        probe = UdpCollector()
        lines = dying.lines_of(lambda: Life(udp_config(probe.port), unused, Encoder(options=1)).work())
        probe.close()
    deaths = 0
    for _ in range(15):
        collector = UdpCollector()
        with dying.store() as store:
            kills = [chance.randint(1, lines) for _ in range(chance.randint(1, 3))]
            last, died = lives(udp_config(collector.port), store, kills, lambda: Encoder(options=1))
            messages = collector.messages()
            assert numbers_of(messages) == list(range(sum(SIZES))), kills
            check_goes_on(messages)
            stats = last.bench.stats
            assert stats.sent.flows == stats.seen.flows == sum(SIZES), kills
            assert stats.messages == sum(bool(message.numbers) for message in messages)
            assert not stats.resent.flows
            assert len(collector.sources) == 1
            deaths += died
            last.bench.close()
            last.keeper.close()
        collector.close()
    assert deaths > 15


class TcpLife(Life):
    """The same with a connection for each process."""

    def ready(self) -> None:
        self.bench.until(lambda: self.bench.connected, "it is connected")

    def work(self) -> None:
        super().work()
        self.bench.until(lambda: not self.bench.stats.queued.flows, "the kernel has all of it")


def test_over_tcp_nothing_is_lost_and_what_comes_twice_is_counted() -> None:
    chance = random.Random(15)
    doubled = [_tcp_lives([chance.randint(1, 3000) for _ in range(2)]) for _ in range(12)]
    assert any(doubled)


def _tcp_lives(kills: list[int]) -> int:
    """Processes that die at these lines, and the last one; returns how many Data Records came twice."""
    collector = TcpCollector()
    config = tcp_config(collector.port)
    with contextlib.closing(collector), dying.store() as store:
        for at in kills:
            dying.run(lambda: TcpLife(config, store).work(), at)
            store.read()
            _take_all(collector)
        last = TcpLife(config, store)
        last.work()
        return _check_streams(last, collector)


def _check_streams(last: Life, collector: TcpCollector) -> int:
    stats = last.bench.stats
    last.bench.until(lambda: _arrived(collector) == stats.sent.flows == sum(SIZES), "all has arrived")
    for session in collector.sessions:
        check_sequence(session)
    found = [number for session in collector.sessions for number in numbers_of(session)]
    assert set(found) == set(range(sum(SIZES)))
    assert len(found) - sum(SIZES) <= stats.resent.flows
    assert stats.sent == stats.seen
    last.bench.close()
    last.keeper.close()
    return len(found) - sum(SIZES)


def _take_all(collector: TcpCollector) -> None:
    """Reads the connection of a dead process to its end, and waits for the next one."""
    while (connection := collector.poll().connection) is not None and not collector.ended:
        select.select([connection], [], [], 1)
    collector.hang_up()


def _arrived(collector: TcpCollector) -> int:
    return len({number for session in collector.poll().sessions for number in numbers_of(session)})


class ProtocolLife(Life):
    """The same with the encoder of a protocol."""

    def __init__(self, config: CollectorConfig, store: Store) -> None:
        self.exporter = exporter(config.protocol, config.template, 0, 1)
        super().__init__(config, store, self.exporter.encoder, self.exporter.header)

    def data_sets(self, start: int, count: int) -> list[Any]:
        records = flows(start, count)
        records["src_port"] = records["ifindex"]
        records["ifindex"], records["packets"], records["octets"] = 2, 1, 100
        if self.bench.session._config.protocol != "netflow5":
            records["ethertype"] = np.where(np.arange(count) % 3 == 2, 0x86DD, 0x0800)
        else:
            records["ethertype"] = 0x0800
        return list(self.exporter.encoder.encode(FlowBatch(records, self.bench.clock)).data_sets)


def _run_protocol(config: CollectorConfig, store: Store, at: int) -> bool:
    died = dying.run(lambda: ProtocolLife(config, store).work(), at)
    store.read()
    return died


@pytest.mark.parametrize("protocol", ["ipfix", "netflow9", "netflow5"])
def test_every_protocol_goes_on_where_it_was_killed(protocol: str) -> None:
    chance = random.Random(16)
    deaths = 0
    for _ in range(3):
        collector = UdpCollector()
        config = replace(udp_config(collector.port), protocol=protocol)
        with dying.store() as store:
            for at in (chance.randint(1, 2500), chance.randint(1, 2500)):
                deaths += _run_protocol(config, store, at)
            last = ProtocolLife(config, store)
            last.finish()
            decoder = Decoder()
            found = [decoder.decode(raw, "exporter") for raw in collector.raw()]
            ports = [each["sourceTransportPort"] for message in found for each in message.flows]
            assert sorted(ports) == list(range(sum(SIZES)))
            stats = decoder.stats
            assert (stats.sequence_errors, stats.lost_messages, stats.lost_records) == (0, 0, 0)
            assert stats.sets_without_template == 0
            assert last.bench.stats.sent.flows == sum(SIZES)
            last.bench.close()
            last.keeper.close()
        collector.close()
    assert deaths > 1


class SpoolLife(TcpLife):
    """The same with a spool; while nobody listens, all of it goes there."""

    def ready(self) -> None:
        self.bench.until(lambda: self.bench.stats.attempts > 0, "the first attempt has ended")

    def work(self) -> None:
        Life.work(self)
        bench = self.bench
        if not bench.connected:
            bench.until(lambda: not bench.stats.queued.flows, "all of it is on the disk")
        else:
            bench.until(lambda: not (bench.stats.queued + bench.stats.spooled).flows, "all of it is sent")


def _run_spool(config: CollectorConfig, store: Store, at: int) -> None:
    dying.run(lambda: SpoolLife(config, store).work(), at)
    store.read()


def test_a_spool_is_written_and_sent_once(tmp_path: Path) -> None:
    chance = random.Random(17)
    for number in range(6):
        _spool_lives(
            str(tmp_path / str(number)),
            [chance.randint(1, 2500) for _ in range(2)],
            [chance.randint(1, 3500) for _ in range(2)],
        )


def _spool_lives(spool: str, down: list[int], up: list[int]) -> None:
    """Processes that die while nobody listens, then some that die while the spool is being sent, then the last one."""
    port = free_port(socket.SOCK_STREAM)
    config = tcp_config(port, spool=spool, spool_rate_bytes=1 << 30)
    with dying.store() as store:
        for at in down:
            _run_spool(config, store, at)
        with contextlib.closing(TcpCollector(port=port)) as collector:
            for at in up:
                _run_spool(config, store, at)
                _take_all(collector)
            last = SpoolLife(config, store)
            last.work()
            _check_streams(last, collector)
            assert not last.bench.stats.taken_over.flows
            assert not last.bench.stats.not_sent


def test_over_udp_a_spool_is_sent_exactly_once(tmp_path: Path) -> None:
    chance = random.Random(18)
    for number in range(5):
        kills = [chance.randint(1, 2500) for _ in range(2)], [chance.randint(1, 4000) for _ in range(2)]
        _udp_spool_lives(str(tmp_path / str(number)), *kills)


def _udp_spool_lives(spool: str, down: list[int], up: list[int]) -> None:
    """As ``_spool_lives``; at first the host has no address to send from."""
    with contextlib.closing(UdpCollector()) as collector, dying.store() as store:
        config = udp_config(collector.port, spool=spool, spool_rate_bytes=1 << 30)
        for at, source in [(at, "192.0.2.1") for at in down] + [(at, "") for at in up]:
            _run_spool(replace(config, source=source), store, at)
        last = SpoolLife(config, store)
        last.work()
        messages, stats = collector.messages(), last.bench.stats
        assert sorted(numbers_of(messages)) == list(range(sum(SIZES)))
        check_goes_on(messages)
        assert stats.sent == stats.seen
        assert stats.sent.flows == sum(SIZES)
        assert not (stats.taken_over + stats.resent).flows
        assert not stats.not_sent
        last.bench.close()
        last.keeper.close()


def test_rows_that_move_to_another_collector_are_with_one_of_the_two() -> None:
    chance = random.Random(19)
    configs = [tcp_config(free_port(socket.SOCK_STREAM), name=name) for name in ("a", "b")]

    def benches(keeper: SocketKeeper) -> list[Bench]:
        places = Places(keeper)
        return [Bench(config, None, places.of(config.name, IDENTITY)) for config in configs]

    with dying.store() as unused:
        lines = dying.lines_of(functools.partial(_move, benches, unused))
    moved = set()
    for _ in range(20):
        with dying.store() as store:
            died = dying.run(functools.partial(_move, benches, store), chance.randint(lines // 2, lines))
            keeper = SocketKeeper(store.read())
            found = benches(keeper)
            waiting = [
                part.data_set.rows["number"].tolist() for bench in found for part in bench.session._queue.give_away()
            ]
            seen = found[0].stats.seen.flows
            assert sorted(itertools.chain(*waiting)) == list(range(seen)), died
            moved.add(found[1].stats.queued.flows > 0)
            for bench in found:
                bench.check()
                bench.session._waiting.leave()
                bench.loop.close()
            keeper.close()
    assert moved == {False, True}


def _move(benches: Callable[[SocketKeeper], list[Bench]], store: Store) -> None:
    one, other = benches(SocketKeeper(store))
    for start in (0, 3000, 40_000):
        count = {0: 3000, 3000: 37_000, 40_000: 5}[start]
        one.session.send([rows(start, count)], one.clock, one.now_ns)
    other.session.take_over(one.session, other.now_ns)
