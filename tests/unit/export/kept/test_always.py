"""Whatever happens to a collector: what the next process would find at any time is what this one has."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from hypothesis import example, given, settings

from netobs.config import CollectorConfig
from netobs.export.kept.session import Kept, Place
from netobs.export.stats import ExportStats
from tests.unit.export.kept import dying
from tests.unit.export.kept.dying import SocketKeeper, Store
from tests.unit.export.support import (
    ROW,
    Bench,
    Encoder,
    Header,
    Rows,
    TcpCollector,
    UdpCollector,
    free_port,
    tcp_config,
    udp_config,
)
from tests.unit.export.test_conservation import EVENTS, Collector, happen

IDENTITY = {"name": "main"}


class Copy:
    """A keeper with copies of what ``store`` has: to read it changes nothing."""

    keeps = True

    def __init__(self, store: Store) -> None:
        self._fds = {name: _copied(fd) for name, fd in store.read().fds.items() if name.startswith("q-")}

    def former(self, name: str) -> int | None:
        return self._fds.get(name)

    def names(self) -> frozenset[str]:
        return frozenset(self._fds)

    def memory(self, name: str) -> int:
        raise AssertionError(f"{name} was kept")

    def keep(self, name: str, fd: int) -> None: ...

    def drop(self, name: str) -> None: ...

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)


def _copied(fd: int) -> int:
    copy, size = os.memfd_create("copy"), os.fstat(fd).st_size
    os.ftruncate(copy, size)
    os.pwrite(copy, os.pread(fd, size, 0), 0)
    return copy


def waiting(bench: Bench) -> list[int]:
    """The numbers of the Data Records that have not arrived, as the session knows them."""
    session = bench.session
    parts = list(session._queue._waiting)
    if session._shipment is not None and session._shipment.part is not None:
        parts.append(session._shipment.part.slice(session._shipment.rows_before(session._shipment.index), 1 << 40))
    for sent in session._waiting._unacknowledged._sent:
        if sent.shipment.part is not None:
            rows_before = sent.shipment.rows_before
            parts.append(sent.shipment.part.slice(rows_before(sent.start), rows_before(sent.stop)))
    return sorted(number for part in parts for number in part.data_set.rows["number"].tolist())


def check_next(bench: Bench, store: Store, reliable: bool) -> None:
    """A next process finds the same rows, and an account in which every flow stands once."""
    with contextlib.closing(Copy(store)) as keeper:
        stats = ExportStats()
        kept: Kept[Header, Rows] = Kept(Place(keeper, 0, IDENTITY), Encoder(), stats, reliable, Header)
        found = sorted(number for part in kept.found for number in part.data_set.rows["number"].tolist())
        assert found == waiting(bench)
        assert stats.queued.flows == len(found)
        total = stats.sent + stats.not_sent_total() + stats.queued + stats.spooled + stats.moved_away
        assert stats.seen + stats.taken_over == total
        assert stats.seen == bench.stats.seen
        kept.close()


@pytest.mark.parametrize(("kind", "queue_flows"), [("tcp", 3000), ("tcp", 100_000), ("udp", 3000)])
@given(events=EVENTS)
@example(events=[("down", 0), ("send", 4000), ("send", 500), ("move", 61.0), ("up", 0), ("move", 1.1), ("send", 39)])
@example(events=[("read", 1000), ("send", 4000), ("send", 4000), ("read", 20_000), ("hang up", 0), ("move", 1.1)])
@settings(max_examples=12, deadline=None)
def test_the_next_process_finds_what_this_one_has(kind: str, queue_flows: int, events: list[tuple[str, float]]) -> None:
    port = free_port(socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    limit = queue_flows * (ROW.itemsize + 16)
    config: CollectorConfig = (tcp_config if kind == "tcp" else udp_config)(port, queue_max_bytes=limit)
    with dying.store() as store, contextlib.ExitStack() as stack:
        collector = Collector(TcpCollector if kind == "tcp" else UdpCollector, port)
        stack.callback(collector.close)
        keeper = SocketKeeper(store)
        stack.callback(keeper.close)
        bench = Bench(config, None, Place(keeper, 0, IDENTITY))
        stack.callback(bench.close)
        bench.open()
        for name, value in [("up", 0), *events]:
            happen(bench, collector, name, value)
            check_next(bench, store, kind == "tcp")
            bench.rounds(2)
            check_next(bench, store, kind == "tcp")
