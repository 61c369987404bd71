"""Evictions beside the loop: it goes on while a grace period passes, and nothing is taken twice or left."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.prog_run import Programs
from netobs.base.loop import EventLoop
from netobs.daemon.evictions import Evictions
from netobs.flow.records import Records
from tests.kernel.numbered import packet

pytestmark = pytest.mark.kernel

INTERVAL_NS = 20_000_000
WITHIN_S = 20


class Evicting:
    """Evictions of real programs in a real loop. ``packets``: of all rows that were metered; ``ended``: what came after
    the regular evictions."""

    def __init__(self, programs: Programs, loop: EventLoop) -> None:
        self.packets, self.loop, self.programs = 0, loop, programs
        self.ended: list[bool] = []
        self.evictions = Evictions(programs.datapath, loop, self._meter, self._after)

    def _meter(self, rows: Records) -> None:
        self.packets += int(rows["packets"].sum())

    def _after(self, succeeded: bool, began_ns: int) -> None:
        assert began_ns <= time.monotonic_ns()
        self.ended.append(succeeded)

    def until_begun(self) -> None:
        """Rounds of the loop until an eviction has begun and not ended."""
        before, give_up = self.count, time.monotonic() + WITHIN_S
        while self.count == before and time.monotonic() < give_up:
            self.loop.run_once()
        assert self.count == before + 1

    def until_ended(self, times: int) -> None:
        """Rounds of the loop until so many regular evictions have ended."""
        give_up = time.monotonic() + WITHIN_S
        while len(self.ended) < times and time.monotonic() < give_up:
            self.loop.run_once(INTERVAL_NS)
        assert len(self.ended) >= times

    @property
    def count(self) -> int:
        return self.evictions.stats("").evictions

    @property
    def seen(self) -> int:
        return self.programs.ledger().seen.packets


@pytest.fixture(params=["percpu_array", "percpu_hash"])
def evicting(request: pytest.FixtureRequest) -> Iterator[Evicting]:
    with Programs(max_flows=64, flow_table=request.param) as programs, EventLoop() as loop:
        evicting = Evicting(programs, loop)
        evicting.evictions.start(INTERVAL_NS, loop.read_clock())
        yield evicting


def test_loop_goes_on_while_the_grace_period_passes(evicting: Evicting) -> None:
    evicting.programs.send(packet(), repeat=7)
    evicting.until_begun()
    assert (evicting.packets, evicting.ended) == (0, [])
    evicting.programs.send(packet(), repeat=5)  # these go to the other half
    evicting.until_ended(1)
    assert evicting.packets == 7
    evicting.until_ended(2)
    assert evicting.packets == 12 == evicting.seen
    assert all(evicting.ended)


def test_one_at_once_takes_what_the_begun_one_has_turned_away_too(evicting: Evicting) -> None:
    evicting.programs.send(packet(), repeat=7)
    evicting.until_begun()
    evicting.programs.send(packet(), repeat=5)
    evicting.evictions.evict()
    assert evicting.packets == 12
    assert evicting.count == 2
    evicting.until_ended(3)  # what comes after the begun one comes once
    assert evicting.count - len(evicting.ended) in (1, 2)  # the one at once; perhaps another has begun
    assert evicting.packets == 12 == evicting.seen


def test_other_interval_while_one_is_begun(evicting: Evicting) -> None:
    evicting.until_begun()
    evicting.evictions.set_interval(INTERVAL_NS, evicting.loop.read_clock())
    evicting.until_ended(4)
    assert evicting.count - len(evicting.ended) <= 1  # there is one rhythm


def test_finish_takes_everything(evicting: Evicting) -> None:
    evicting.programs.send(packet(), repeat=7)
    evicting.until_begun()
    evicting.programs.send(packet(), repeat=5)
    evicting.evictions.finish()
    assert evicting.packets == 12 == evicting.seen
    evicting.loop.run_once(INTERVAL_NS)
    assert evicting.packets == 12
