"""The collectors of a daemon over its reloads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.keeping import DictKeeper
from netobs.base import clock, words
from netobs.base.clock import ClockPair
from netobs.base.keeper import Keeper, KeepsNothing
from netobs.base.loop import POLL_NS, EventLoop
from netobs.collector.decode import Decoder
from netobs.config import CollectorConfig, from_tables
from netobs.daemon.collectors import ExportingProcess, make_exporters
from netobs.daemon.protocols import PROTOCOLS
from netobs.flow.records import FlowBatch
from netobs.flow.tally import Tally
from tests.unit.export.site import flows
from tests.unit.export.support import UdpCollector


class Process:
    """An Exporting Process on a clock that is moved by hand."""

    def __init__(self, *collectors: CollectorConfig, keeper: Keeper | None = None) -> None:
        self.pair = clock.read_pair()
        self.now_ns = self.pair.monotonic_ns
        self.loop = EventLoop(lambda: self.now_ns)
        tables = {"capture": {"interfaces": ["lo"]}, "collector": [{"host": "127.0.0.1"}]}
        self.config = replace(from_tables(tables, "netobs.toml"), collectors=collectors)
        self.exporting = ExportingProcess(self.config, self.loop, keeper or KeepsNothing())
        self.exporting.open(self.pair, self.now_ns)
        self.seen = 0

    def until(self, condition: Any, what: str) -> None:
        for _ in range(1000):
            if condition():
                return
            self.now_ns += POLL_NS
            self.loop.run_once(0)
        raise AssertionError(f"never happened: {what}")

    def export(self, count: int, ethertype: int = 0x0800) -> None:
        records = flows(self.seen, count)
        records["ethertype"], records["packets"], records["octets"] = ethertype, 2, 100
        self.seen += count
        pair = ClockPair(self.now_ns, self.pair.realtime_ns + self.now_ns - self.pair.monotonic_ns)
        self.exporting.export(FlowBatch(records, pair), self.now_ns)

    def reload(self, *collectors: CollectorConfig) -> None:
        done: list[int] = []
        config = replace(self.config, collectors=collectors)
        exporters = make_exporters(config, self.exporting.boot_ns)
        self.exporting.apply(config, exporters, done.append, self.now_ns)
        self.until(lambda: done, "the end of the reload")

    def suspend(self) -> None:
        self.exporting.suspend(self.now_ns)
        self.until(lambda: self.exporting.closed, "the end")
        self.loop.close()

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


def test_a_restart_goes_on_with_every_collector(collector: UdpCollector) -> None:
    configs = [
        CollectorConfig(host="127.0.0.1", name=name, port=collector.port, protocol=name, observation_domain=domain)
        for domain, name in enumerate(words.PROTOCOLS, 1)
    ]
    keeper = DictKeeper()
    boots, sent = set(), 0
    for _ in range(3):
        process = Process(*configs, keeper=keeper)
        process.seen = sent
        for _ in range(2):
            process.export(40)
            sent += 40
        process.export(5, ethertype=0x0806)
        boots.add(process.exporting.boot_ns)
        if not keeper.former("q-boot"):  # the first leaves its flows to the second
            assert any(each.export.queued.flows for each in process.exporting.stats())
        process.suspend()
        keeper = keeper.succeed()
    last = Process(*configs, keeper=keeper)
    last.until(lambda: all(not each.export.queued.flows for each in last.exporting.stats()), "all is sent")
    stats = last.exporting.stats()
    assert [each.export.sent for each in stats] == [Tally(sent, 2 * sent, 100 * sent)] * 3
    assert [each.unencodable.flows for each in stats] == [15] * 3
    decoder = Decoder()
    found = [decoder.decode(raw, "exporter") for raw in collector.raw()]
    assert sum(len(message.flows) for message in found) == 3 * sent
    assert (decoder.stats.sequence_errors, decoder.stats.lost_records, decoder.stats.lost_messages) == (0, 0, 0)
    assert len(boots) == 1
    assert len(collector.sources) == 3
    last.close()
    assert keeper.kept == {"q-boot"}
    keeper.close()
