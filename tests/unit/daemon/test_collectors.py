"""The collectors of a daemon over its reloads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from netobs.base import clock, words
from netobs.base.clock import ClockPair
from netobs.base.loop import POLL_NS, EventLoop
from netobs.config import CollectorConfig, from_tables
from netobs.daemon.collectors import ExportingProcess, make_exporters
from netobs.daemon.protocols import PROTOCOLS
from netobs.flow.records import FlowBatch
from netobs.flow.tally import Tally
from tests.unit.export.site import flows
from tests.unit.export.support import UdpCollector


class Process:
    """An Exporting Process on a clock that is moved by hand."""

    def __init__(self, *collectors: CollectorConfig) -> None:
        self.pair = clock.read_pair()
        self.now_ns = self.pair.monotonic_ns
        self.loop = EventLoop(lambda: self.now_ns)
        tables = {"capture": {"interfaces": ["lo"]}, "collector": [{"host": "127.0.0.1"}]}
        self.config = replace(from_tables(tables, "netobs.toml"), collectors=collectors)
        self.exporting = ExportingProcess(self.config, self.loop)
        self.exporting.open(self.pair, self.now_ns)
        self.seen = 0

    def until(self, condition: Any, what: str) -> None:
        for _ in range(1000):
            if condition():
                return
            self.now_ns += POLL_NS
            self.loop.run_once(0)
        raise AssertionError(f"never happened: {what}")

    def export(self, count: int) -> None:
        records = flows(self.seen, count)
        records["ethertype"], records["packets"], records["octets"] = 0x0800, 2, 100
        self.seen += count
        pair = ClockPair(self.now_ns, self.pair.realtime_ns + self.now_ns - self.pair.monotonic_ns)
        self.exporting.export(FlowBatch(records, pair), self.now_ns)

    def reload(self, *collectors: CollectorConfig) -> None:
        done: list[int] = []
        config = replace(self.config, collectors=collectors)
        exporters = make_exporters(config, self.exporting.boot_ns)
        self.exporting.apply(config, exporters, done.append, self.now_ns)
        self.until(lambda: done, "the end of the reload")

    def close(self) -> None:
        self.exporting.close(self.now_ns)
        self.until(lambda: self.exporting.closed, "the end")
        self.loop.close()


@pytest.fixture
def collector() -> Iterator[UdpCollector]:
    made = UdpCollector()
    yield made
    made.close()


def test_former_collectors_are_one_entry_and_nothing_of_them_is_forgotten(
    collector: UdpCollector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = CollectorConfig(host="127.0.0.1", name="main", port=collector.port, observation_domain=1)
    process = Process(config)
    for size in range(1400, 1380, -1):
        process.export(10)
        process.until(lambda: not process.exporting.stats()[-1].export.queued.flows, "the flows are sent")
        process.reload(replace(config, max_message_size=size - 1))
    process.export(10)
    process.close()
    former, present = process.exporting.stats()
    assert former.name == "former collectors (20)"
    assert (former.export.sent.flows, present.export.sent.flows) == (200, 10)
    total = former.export + present.export
    assert total.seen == total.sent == Tally(210, 420, 21_000)
    assert total.bytes == sum(map(len, collector.raw()))
    said = [line for line in caplog.messages if line.startswith("reload: collector")]
    assert len(said) == 20
    assert said[0].endswith("10 flows, 20 packets, 1000 octets sent")


def test_each_protocol_of_the_configuration_has_an_encoder_and_a_sink() -> None:
    assert tuple(PROTOCOLS) == tuple(words.PROTOCOLS)
