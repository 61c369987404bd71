"""An orderly restart, the socket and the place of a collector, and batches that come again."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from netobs.config import CollectorConfig, GroupConfig
from netobs.export.kept.places import Places
from netobs.export.kept.session import Place
from netobs.export.policies import Member
from netobs.export.router import Router
from netobs.export.session import TransportSession
from netobs.flow.records import FlowBatch
from netobs.flow.tally import Tally
from tests.unit.export.kept import dying
from tests.unit.export.kept.dying import SocketKeeper, Store
from tests.unit.export.site import FlowEncoder, flows
from tests.unit.export.support import (
    SECOND,
    Bench,
    Encoder,
    Header,
    TcpCollector,
    UdpCollector,
    free_port,
    numbers_of,
    rows,
    tcp_config,
    udp_config,
)

IDENTITY = {"encoder": "test"}


@pytest.fixture
def store() -> Iterator[Store]:
    with dying.store() as made:
        yield made


class Process:
    """One process of a daemon with one session; ``bench`` has it."""

    def __init__(self, config: CollectorConfig, store: Store, encoder: Encoder | None = None) -> None:
        self.keeper = SocketKeeper(store.read())
        self.places = Places(self.keeper)
        place = self.places.of(config.name, {"encoder": (encoder or Encoder()).fingerprint})
        self.bench = Bench(config, encoder, place)
        self.bench._next = self.bench.stats.seen.flows

    def suspend(self, within_ns: int = SECOND) -> None:
        bench = self.bench
        bench.session.suspend(bench.now_ns, bench.now_ns + within_ns)
        for _ in range(200):
            if bench.session.closed:
                break
            bench.loop.run_once(5_000_000)
        self.kill()

    @property
    def ended(self) -> bool:
        return self.bench.session.closed

    def kill(self) -> None:
        """Frees what the kernel frees at the end of a process."""
        sock = self.bench.session._link._sock
        if sock is not None:
            self.bench.loop.remove(sock.fileno())
            sock.close()
        self.bench.loop.close()
        self.keeper.close()


def test_a_restart_leaves_what_waits_and_sends_nothing_more(
    store: Store, make_udp: Callable[..., UdpCollector]
) -> None:
    collector = make_udp()
    first = Process(udp_config(collector.port), store)
    first.bench.open()
    numbers = first.bench.offer(5000)
    sent = first.bench.stats.sent.flows
    assert 0 < sent < 5000
    before = collector.messages()
    first.suspend()
    assert first.bench.session.closed
    assert collector.messages() == []
    second = Process(udp_config(collector.port), store)
    assert second.bench.stats.queued.flows == 5000 - sent
    second.bench.open()
    second.bench.until(lambda: not second.bench.stats.queued.flows, "the rest is sent")
    messages = [*before, *collector.messages()]
    assert numbers_of(messages) == numbers
    assert len(collector.sources) == 1
    expected = 0
    for message in messages:
        assert message.sequence == expected
        expected += len(message.numbers)
    assert second.bench.stats.resent == Tally()
    second.bench.close()
    assert store.read().fds == {}, "a stop leaves nothing"
    second.keeper.close()


def test_at_a_restart_over_tcp_nothing_comes_twice(store: Store, make_tcp: Callable[..., TcpCollector]) -> None:
    collector = make_tcp()
    first = Process(tcp_config(collector.port), store)
    first.bench.open()
    first.bench.until(lambda: first.bench.connected, "it is connected")
    numbers = first.bench.send(2000)
    first.bench.until(lambda: numbers_of(collector.poll().sessions[0]) == numbers, "all has arrived")
    first.suspend()
    second = Process(tcp_config(collector.port), store)
    assert second.bench.stats.resent == second.bench.stats.queued == Tally()
    second.bench.open()
    second.bench.until(lambda: second.bench.connected, "it is connected")
    while not collector.poll().ended:
        pass
    assert numbers_of(collector.sessions[0]) == numbers
    second.bench.close()
    second.keeper.close()


def test_a_collector_that_does_not_read_does_not_hold_a_restart(
    store: Store, make_tcp: Callable[..., TcpCollector]
) -> None:
    collector = make_tcp(receive_buffer=4096)
    first = Process(tcp_config(collector.port), store)
    first.bench.open()
    first.bench.until(lambda: first.bench.connected, "it is connected")
    first.bench.offer(60_000)
    assert first.bench.stats.queued.flows
    first.bench.session.suspend(first.bench.now_ns, first.bench.now_ns + SECOND)
    first.bench.rounds()
    assert not first.ended
    first.bench.now_ns += SECOND
    first.bench.until(lambda: first.ended, "the time is up")
    first.kill()
    second = Process(tcp_config(free_port(socket.SOCK_STREAM)), store)
    assert second.bench.stats.queued == Tally.of(rows(0, 60_000)) - second.bench.stats.sent
    assert second.bench.stats.resent.flows
    second.bench.close()
    second.keeper.close()


def test_the_port_goes_on_without_the_socket(store: Store, make_udp: Callable[..., UdpCollector]) -> None:
    """As with pins, which keep no sockets."""
    collector = make_udp()
    first = Process(udp_config(collector.port), store)
    first.bench.open()
    first.bench.send(100)
    first.suspend()
    store.read().drop("u-1")
    second = Process(udp_config(collector.port), store)
    second.bench.open()
    second.bench.send(10)
    messages = collector.messages()
    assert len(collector.sources) == 1
    assert messages[-1].sequence == 100
    second.bench.close()
    second.keeper.close()


def test_another_address_begins_another_session(store: Store, make_udp: Callable[..., UdpCollector]) -> None:
    one, other = make_udp(), make_udp()
    first = Process(udp_config(one.port), store)
    first.bench.open()
    first.bench.offer(5000)
    sent = first.bench.stats.sent.flows
    first.suspend()
    second = Process(udp_config(other.port), store)
    second.bench.open()
    second.bench.until(lambda: not second.bench.stats.queued.flows, "the rest is sent there")
    messages = other.messages()
    assert messages[0].sequence == 0
    assert numbers_of(messages) == list(range(sent, 5000))
    second.bench.close()
    second.keeper.close()


def test_rows_of_other_templates_are_counted_and_said(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    config = tcp_config(free_port(socket.SOCK_STREAM))
    first = Process(config, store)
    first.bench.open()
    first.bench.send(500)
    first.suspend()
    second = Process(config, store, Encoder(element=4))
    assert second.bench.stats.not_sent == {"other_template": Tally.of(rows(0, 500))}
    second.bench.check()
    second.suspend()
    third = Process(replace(config, name="another"), store, Encoder(element=4))
    with caplog.at_level(logging.WARNING):
        third.places.give_up_rest()
    assert set(store.read().fds) == {"q-2-s", "q-2-r"}
    assert caplog.text == ""
    third.bench.close()
    third.keeper.close()


def test_flows_of_a_collector_that_is_not_configured_any_more_are_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    first = Process(tcp_config(free_port(socket.SOCK_STREAM)), store)
    first.bench.open()
    first.bench.send(500)
    first.suspend()
    with contextlib.closing(SocketKeeper(store.read())) as keeper, caplog.at_level(logging.WARNING):
        Places(keeper).give_up_rest()
    assert 'collector "main" is not in the configuration any more: 500 flows that waited for it are lost' in caplog.text
    assert store.read().fds == {}


def test_the_start_of_the_exporter_goes_on(store: Store) -> None:
    with contextlib.closing(SocketKeeper(store)) as keeper:
        assert Places(keeper).boot_ns(17) == 17
    with contextlib.closing(SocketKeeper(store.read())) as keeper:
        assert Places(keeper).boot_ns(99) == 17


@pytest.mark.parametrize("policy", ["", "balance", "failover"])
def test_a_batch_that_comes_again_is_taken_once(store: Store, policy: str) -> None:
    """Killed between the last sink and the end of the batch, the next process exports the batch again."""
    configs = [tcp_config(free_port(socket.SOCK_STREAM), name=name) for name in ("a", "b")]
    groups = [GroupConfig(name="both", policy=policy, collectors=("a", "b"))] if policy else []

    def site(keeper: SocketKeeper) -> tuple[Bench, list[Member], Router]:
        bench = Bench(udp_config(9))
        encoder = FlowEncoder()
        members = []
        for number, config in enumerate(configs):
            session: TransportSession[Any, Any] = TransportSession(
                config, encoder, Header, bench.loop, place=Place(keeper, number, IDENTITY)
            )
            members.append(Member(config.name, session, encoder))
        return bench, members, Router(members, groups, bench.loop)

    keeper = SocketKeeper(store)
    bench, members, router = site(keeper)
    router.export(FlowBatch(flows(0, 100), bench.clock, number=1), bench.now_ns)
    seen = [member.sink.account.seen for member in members]
    router.export(FlowBatch(flows(0, 100), bench.clock, number=1), bench.now_ns)
    assert [member.sink.account.seen for member in members] == seen
    after = SocketKeeper(store.read())
    bench, members, router = site(after)
    router.export(FlowBatch(flows(0, 100), bench.clock, number=1), bench.now_ns)
    assert [member.sink.account.seen for member in members] == seen
    router.export(FlowBatch(flows(100, 100), bench.clock, number=2), bench.now_ns)
    total = sum((member.sink.account.seen for member in members), Tally())
    assert total.flows == 2 * sum((tally for tally in seen), Tally()).flows
    for each in (keeper, after):
        each.close()
