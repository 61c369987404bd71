"""Evictions in processes that are killed: what came in comes out once, to the packet, for all tables."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from lab.keeping import DictKeeper
from lab.killing import killed_after, killed_at, lines_of
from lab.prog_run import Programs
from netobs.datapath.halves import Halves
from netobs.flow.journal import KeptJournal
from netobs.flow.records import RECORD
from netobs.metering.process import Metering
from tests.kernel.numbered import fill, packet

pytestmark = pytest.mark.kernel

TABLES = ("percpu_array", "percpu_hash", "ringbuf")
FLOWS = 1500
"""More than the slots of one CPU, less than the hash has room for."""
HOUR_NS = 3_600_000_000_000
WHOLE_S = 60
"""Longer than the evictions take."""


class Host:
    """Programs whose maps outlive the processes that evict from them. The files are new for each ``Host``."""

    def __init__(self, programs: Programs) -> None:
        keeper = DictKeeper()
        Metering(HOUR_NS, HOUR_NS, journal=KeptJournal(RECORD, keeper), keeper=keeper)
        self.keeper, self.datapath, self._programs = keeper.succeed(), programs.datapath, programs

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exc: object) -> None:
        self.keeper.close()

    def start(self) -> Metering:
        """A new process, as far as what it knows goes."""
        journal = self.datapath.journal = KeptJournal(RECORD, self.keeper)
        self.datapath.halves = Halves(self.datapath.state, self.datapath.grace)
        self.datapath.go_on()
        return Metering(HOUR_NS, HOUR_NS, journal=journal, keeper=self.keeper)

    def live(self) -> Metering:
        """Evictions with traffic before and in between."""
        metering = self.start()
        for _ in range(2):
            self._programs.send(packet(), repeat=7)
            self.datapath.read_ring()
            self.datapath.evict(time.monotonic_ns())
            metering.update(self.datapath.journal.rows([]), time.monotonic_ns())
        return metering

    def check(self) -> None:
        """The next process: all that was seen and is in no ledger is in its flow cache."""
        metering = self.live()
        ledger = self.datapath.read_ledger()
        assert metering.taken.packets == ledger.seen.packets - ledger.not_in_flows.packets - self._before
        cached = metering.expire_all()
        assert int(cached["packets"].sum()) == metering.taken.packets
        assert int(cached["octets"].sum()) == metering.taken.octets
        assert len(cached) == FLOWS

    def load(self) -> None:
        """Puts packets into both halves of the table, its overflow and the ring."""
        ledger = self.datapath.read_ledger()
        self._before = ledger.seen.packets - ledger.not_in_flows.packets
        fill(self._programs, FLOWS)
        self.datapath.halves.flip(time.monotonic_ns())
        self.datapath.halves.settle()
        fill(self._programs, FLOWS)


@pytest.fixture(scope="module", params=TABLES)
def programs(request: pytest.FixtureRequest) -> Iterator[Programs]:
    with Programs(max_flows=2 * FLOWS, flow_table=request.param) as loaded:
        yield loaded


def test_killed_at_any_line(programs: Programs) -> None:
    with Host(programs) as host:
        host.load()
        lines = lines_of(host.live)
        host.check()
    step, kills = lines // 12, 0
    for line in range(random.Random(14).randrange(step), lines, step):
        with Host(programs) as host:
            host.load()
            kills += killed_at(line + 1, host.live)
            host.check()
    assert kills >= 10


def test_killed_at_any_moment(programs: Programs) -> None:
    rng, kills = random.Random(16), 0
    for _ in range(5):
        with Host(programs) as host:
            host.load()
            began_s = time.monotonic()
            assert not killed_after(WHOLE_S, host.live)
            whole_s = time.monotonic() - began_s
            kills += sum(killed_after(rng.uniform(0.0001, whole_s / 2), host.live) for _ in range(3))
            host.check()
    assert kills > 3
