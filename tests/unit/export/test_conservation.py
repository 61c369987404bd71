"""Whatever happens to a collector, every flow is sent, counted as not sent, or waits: exactly."""

from __future__ import annotations

import contextlib
import select
import socket
import tempfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netobs.flow.tally import Tally
from tests.unit.export.support import (
    ROW,
    SECOND,
    Bench,
    Message,
    TcpCollector,
    UdpCollector,
    check_sequence,
    free_port,
    numbers_of,
    tcp_config,
    udp_config,
)

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from([0, 1, 39, 500, 4000])),
        st.tuples(st.just("move"), st.sampled_from([0.1, 1.1, 11.0, 61.0])),
        st.tuples(st.just("read"), st.sampled_from([1000, 20_000, 1 << 30])),
        st.tuples(st.sampled_from(["up", "down", "hang up"]), st.just(0)),
    ),
    max_size=25,
)


class Collector:
    """A collector that comes and goes on one port; ``sessions``: what it got, by connection or by life."""

    def __init__(self, kind: type[TcpCollector] | type[UdpCollector], port: int) -> None:
        self.kind = kind
        self.port = port
        self.up: TcpCollector | UdpCollector | None = None
        self.sessions: list[list[Message]] = []

    def event(self, name: str, value: int) -> None:
        if name == "up" and self.up is None:
            self.up = (
                TcpCollector(port=self.port, receive_buffer=4096)
                if self.kind is TcpCollector
                else UdpCollector(port=self.port)
            )
        elif self.up is None:
            return
        elif name == "down":
            self.read(1 << 30)
            self.up.close()
            self.up = None
        elif name == "hang up" and isinstance(self.up, TcpCollector):
            self.up.hang_up()
        elif name == "read":
            self.read(value)

    def read(self, limit: int) -> None:
        if isinstance(self.up, TcpCollector):
            self.up.poll(limit)
            known = {id(session) for session in self.sessions}
            self.sessions += [session for session in self.up.sessions if id(session) not in known]
        elif self.up is not None:
            self.sessions.append(self.up.messages())

    def read_to_the_end(self) -> None:
        """All that is on its way; a TCP session ends with the end of the stream."""
        self.read(1 << 30)
        for _ in range(500):
            connection = self.up.connection if isinstance(self.up, TcpCollector) else None
            if connection is None or self.up is None or getattr(self.up, "ended", True):
                return
            select.select([connection], [], [], 0.01)
            self.read(1 << 30)

    def close(self) -> None:
        if self.up is not None:
            self.up.close()


def happen(bench: Bench, collector: Collector, name: str, value: float) -> None:
    """One event."""
    if name == "send":
        bench.send(int(value))
    elif name == "move":
        bench.move(value)
    else:
        collector.event(name, int(value))


def act(bench: Bench, collector: Collector, events: list[tuple[str, float]]) -> None:
    bench.open()
    for name, value in events:
        happen(bench, collector, name, value)
        bench.rounds(2)


def end(bench: Bench, collector: Collector) -> None:
    bench.session.close(bench.now_ns, bench.now_ns + SECOND)
    for _ in range(3):
        collector.read(1 << 30)
        bench.rounds()
    bench.move(1)
    assert bench.session.closed
    assert bench.stats.seen == bench.stats.sent + bench.stats.not_sent_total()
    collector.read_to_the_end()


def play(bench: Bench, collector: Collector, events: list[tuple[str, float]]) -> None:
    act(bench, collector, events)
    end(bench, collector)


@pytest.mark.parametrize("queue_flows", [50, 3000, 100_000])
@given(events=EVENTS)
@settings(max_examples=40, deadline=None)
def test_tcp(queue_flows: int, events: list[tuple[str, float]]) -> None:
    port = free_port(socket.SOCK_STREAM)
    with contextlib.ExitStack() as stack:
        collector = Collector(TcpCollector, port)
        stack.callback(collector.close)
        bench = Bench(tcp_config(port, queue_max_bytes=queue_flows * (ROW.itemsize + 16)))
        stack.callback(bench.close)
        play(bench, collector, [("up", 0), *events])
        got: list[int] = []
        for session in collector.sessions:
            check_sequence(session)
            assert not session or not session[0].numbers
            got += numbers_of(session)
        assert got == sorted(set(got)), "in order, and none twice"
        assert len(got) <= bench.stats.sent.flows
        if not {"down", "hang up"}.intersection(name for name, _ in events):
            assert len(got) == bench.stats.sent.flows


@given(events=EVENTS)
@settings(max_examples=60, deadline=None)
def test_udp(events: list[tuple[str, float]]) -> None:
    port = free_port(socket.SOCK_DGRAM)
    with contextlib.ExitStack() as stack:
        collector = Collector(UdpCollector, port)
        stack.callback(collector.close)
        bench = Bench(udp_config(port))
        stack.callback(bench.close)
        play(bench, collector, events)
        got = numbers_of([message for session in collector.sessions for message in session])
        assert got == sorted(set(got)), "in order, and none twice"
        refused = bench.stats.not_sent.get("refused", Tally())
        assert bench.stats.sent.flows <= len(got) <= bench.stats.sent.flows + refused.flows
        for session in collector.sessions:
            for before, after in zip(session, session[1:]):
                assert after.sequence >= before.sequence + len(before.numbers)
                assert after.export_time_s >= before.export_time_s


@given(events=EVENTS)
@settings(max_examples=40, deadline=None)
@example([("send", 4000)] * 3 + [("up", 0), ("move", 1.1), ("read", 1000)] + [("move", 0.1)] * 3 + [("hang up", 0)])
def test_spool(events: list[tuple[str, float]]) -> None:
    """All that is in the files, or was read ahead when a connection broke, is sent when the collector stays."""
    port = free_port(socket.SOCK_STREAM)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        collector = Collector(TcpCollector, port)
        stack.callback(collector.close)
        bench = Bench(tcp_config(port, spool=f"{folder}/spool", spool_rate_bytes=1 << 20, reconnect_max_ns=SECOND))
        stack.callback(bench.close)
        act(bench, collector, events)
        collector.event("up", 0)
        for _ in range(300):
            bench.move(0.1)
            collector.read(1 << 30)
            waiting = bench.stats.spooled.flows or bench.stats.queued.flows
            if not waiting and bench.session._waiting.release(bench.now_ns):
                break
        assert (bench.stats.sent, bench.stats.not_sent) == (bench.stats.seen, {})
        end(bench, collector)
        got = [number for session in collector.sessions for number in numbers_of(session)]
        assert len(got) == len(set(got)), "none twice"
        if not {"down", "hang up"}.intersection(name for name, _ in events):
            assert sorted(got) == list(range(bench.stats.seen.flows))
