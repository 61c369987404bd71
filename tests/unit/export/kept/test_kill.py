"""A process that exports is killed between any two lines: the next one goes on, and no flow is lost or comes twice."""

from __future__ import annotations

import random
from collections.abc import Callable

from netobs.config import CollectorConfig
from netobs.export.kept.session import Place
from tests.unit.export.kept import dying
from tests.unit.export.kept.dying import SocketKeeper, Store
from tests.unit.export.support import Bench, Encoder, Message, UdpCollector, numbers_of, rows, udp_config

IDENTITY = {"name": "main"}
SIZES = (700, 1, 40, 3000, 0, 9, 260)
"""Data Records in each batch: the largest needs two bursts, and more than one call."""


class Life:
    """A session of one process, with what the process before has kept."""

    def __init__(self, config: CollectorConfig, store: Store, encoder: Encoder | None = None) -> None:
        self.keeper = SocketKeeper(store)
        self.bench = Bench(config, encoder, Place(self.keeper, 0, IDENTITY))

    def work(self) -> None:
        """Exports all batches that were not taken yet, as the journal of evictions gives them."""
        bench = self.bench
        bench.open()
        for number in range(bench.session.last_batch + 1, len(SIZES) + 1):
            start = sum(SIZES[: number - 1])
            bench.session.send([rows(start, SIZES[number - 1])], bench.clock, bench.now_ns, number)
            while bench._wait_for_burst():
                bench.loop.run_once(0)

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
    for _ in range(150):
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
    assert deaths > 150
