"""The state of a collector, and what follows from it: every state with every event, every policy with every state."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from netobs.base.clock import ClockPair
from netobs.export.policies import HOLD_NS, STALL_NS, Balance, Failover, Keeping, Member, Replicate
from netobs.export.queue import Part, tally_of
from netobs.export.sink import Event, Reach, SinkState
from netobs.export.stats import ExportStats
from netobs.flow.records import empty
from tests.unit.export.site import FlowEncoder
from tests.unit.export.support import Rows, rows

CONNECTING, UP, SUSPECT, DOWN = Reach
PAIRS = list(itertools.product(Reach, Reach))


@pytest.mark.parametrize(
    ("reach", "opened", "failed", "refused", "cleared", "lost"),
    [
        (CONNECTING, UP, DOWN, CONNECTING, CONNECTING, CONNECTING),
        (UP, UP, UP, SUSPECT, UP, DOWN),
        (SUSPECT, UP, SUSPECT, SUSPECT, UP, DOWN),
        (DOWN, UP, DOWN, DOWN, DOWN, DOWN),
    ],
)
def test_every_event_in_every_state(
    reach: Reach, opened: Reach, failed: Reach, refused: Reach, cleared: Reach, lost: Reach
) -> None:
    assert [reach.after(event) for event in Event] == [opened, failed, refused, cleared, lost]
    assert reach.is_open == (reach in (UP, SUSPECT))


@pytest.mark.parametrize(
    ("keeping", "held", "stored", "stored_if_stalled"),
    [
        (Keeping(spooled=False, grouped=False), set(), set(), set()),
        (Keeping(spooled=False, grouped=True), {SUSPECT}, set(), set()),
        (Keeping(spooled=True, grouped=False), {SUSPECT}, {CONNECTING, SUSPECT, DOWN}, set(Reach)),
        (Keeping(spooled=True, grouped=True), {SUSPECT}, {CONNECTING, SUSPECT, DOWN}, set(Reach)),
    ],
)
def test_what_is_held_back_and_what_is_stored(
    keeping: Keeping, held: set[Reach], stored: set[Reach], stored_if_stalled: set[Reach]
) -> None:
    assert {reach for reach in Reach if keeping.holds(reach)} == held
    assert {reach for reach in Reach if keeping.stores(reach, STALL_NS - 1)} == stored
    assert {reach for reach in Reach if keeping.stores(reach, STALL_NS)} == stored_if_stalled


class Kept:
    """A sink that keeps what it is given, whose reach is set by hand: it shows that the router needs no more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.account = ExportStats()
        self.reach = CONNECTING
        self.closed = False
        self.held = False
        self.waiting: list[Part[Rows]] = []
        self.last_batch = 0
        self.state = SinkState(None, 0, 0, 0, None, None)

    def __str__(self) -> str:
        return self.name

    def open(self, clock: ClockPair, now_ns: int) -> None:
        self.reach = UP

    def see_clock(self, clock: ClockPair) -> None:
        pass

    def hold(self, held: bool) -> None:
        self.held = held

    def send(self, data_sets: Sequence[Any], clock: ClockPair, now_ns: int, number: int = 0) -> None:
        self.waiting += [Part(each, now_ns) for each in data_sets]

    def options_changed(self, now_ns: int) -> None:
        pass

    def surrender(self, now_ns: int) -> list[Part[Any]]:
        given, self.waiting = self.waiting, []
        return given

    def hand_over(self, given: Sequence[Part[Any]]) -> None:
        pass

    @property
    def origin(self) -> tuple[int, int]:
        return 0, 0

    def take_over(self, source: Any, now_ns: int) -> None:
        self.waiting += source.surrender(now_ns)

    def close(self, now_ns: int, deadline_ns: int) -> None:
        self.closed = True

    def suspend(self, now_ns: int, deadline_ns: int) -> None:
        self.closed = True


def members(count: int = 2) -> tuple[list[Member], list[Kept]]:
    encoder, sinks = FlowEncoder(), [Kept(name) for name in "abc"[:count]]
    return [Member(sink.name, sink, encoder) for sink in sinks], sinks


def active(group: Failover, now_ns: int) -> int:
    """The number of the member that gets the flows."""
    (number,) = [at for at, share in enumerate(group.shares(empty(1), now_ns)) if share is None]
    return number


FIRST = {
    (CONNECTING, CONNECTING): 0, (CONNECTING, UP): 0, (CONNECTING, SUSPECT): 0, (CONNECTING, DOWN): 0,
    (UP, CONNECTING): 0, (UP, UP): 0, (UP, SUSPECT): 0, (UP, DOWN): 0,
    (SUSPECT, CONNECTING): 0, (SUSPECT, UP): 1, (SUSPECT, SUSPECT): 0, (SUSPECT, DOWN): 0,
    (DOWN, CONNECTING): 0, (DOWN, UP): 1, (DOWN, SUSPECT): 0, (DOWN, DOWN): 0,
}  # fmt: skip
"""Who of two gets the flows while the first got them."""
BACK = {pair: int(pair[1] in (UP, CONNECTING)) for pair in FIRST}
"""The same while the second got them, before the first has been up for long enough."""


@pytest.mark.parametrize("reaches", PAIRS)
def test_failover_in_every_pair_of_states(reaches: tuple[Reach, Reach]) -> None:
    made, sinks = members()
    group = Failover("site", made)
    for sink, reach in zip(sinks, reaches):
        sink.reach = reach
    assert active(group, 0) == FIRST[reaches]
    made, sinks = members()
    group = Failover("site", made)
    sinks[0].reach, sinks[1].reach = DOWN, UP
    assert active(group, 0) == 1
    for sink, reach in zip(sinks, reaches):
        sink.reach = reach
    assert active(group, 1) == BACK[reaches]
    if reaches == (UP, UP):
        assert active(group, 1 + HOLD_NS - 1) == 1
        assert active(group, 1 + HOLD_NS) == 0


@pytest.mark.parametrize("reaches", PAIRS)
def test_what_waits_moves_from_one_that_is_not_up_to_one_that_is(reaches: tuple[Reach, Reach]) -> None:
    made, sinks = members()
    group = Failover("site", made)
    for sink, reach in zip(sinks, reaches):
        sink.reach = reach
        sink.waiting = [Part(rows(0, 10), 0)]
    group.tick(1)
    given_away = {(SUSPECT, UP): [0, 20], (DOWN, UP): [0, 20]}
    given_away.update({(UP, reach): [20, 0] for reach in (CONNECTING, SUSPECT, DOWN)})
    held = [tally_of(sink.waiting).flows for sink in sinks]
    assert held == given_away.get(reaches, [10, 10])


@pytest.mark.parametrize("reaches", PAIRS)
def test_the_other_policies_ask_nobody(reaches: tuple[Reach, Reach]) -> None:
    for policy, held in ((Replicate, False), (Balance, True)):
        made, sinks = members()
        group = policy("site", made)
        for sink, reach in zip(sinks, reaches):
            sink.reach = reach
        shares = group.shares(empty(7), 0)
        assert [sink.held for sink in sinks] == [held, held]
        if policy is Replicate:
            assert shares == [None, None]
        else:
            assert sorted(int(row) for share in shares if share is not None for row in share) == list(range(7))
