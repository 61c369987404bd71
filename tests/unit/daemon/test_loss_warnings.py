"""A loss is said when it begins, once a minute while it goes on, and when it has stopped: never more often."""

from __future__ import annotations

import logging

import pytest

from netobs.base.clock import ClockPair
from netobs.daemon.loss_warnings import AGAIN_NS, LossWarnings, Moving

S = 1_000_000_000
WHAT, REMEDY = 'collector "main": not sent, queue_full', "raise queue_max"


class Watched:
    """A counter that is read every 5 s."""

    def __init__(self) -> None:
        self.warnings = LossWarnings()
        self.now_ns = 100 * S
        self.flows = 0

    def go_on(self, seconds: int, flows_each: int) -> None:
        for _ in range(seconds // 5):
            self.now_ns += 5 * S
            self.flows += flows_each
            self.warnings.tell(WHAT, REMEDY, self.flows, self.flows * 2, 0, ClockPair(self.now_ns, self.now_ns))


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    caplog.set_level(logging.INFO, "netobs")
    return Watched()


def test_nothing_lost_is_nothing_said(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.go_on(300, 0)
    assert caplog.messages == []


def test_one_line_when_it_begins_one_a_minute_and_one_at_the_end(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.go_on(150, 10)
    watched.go_on(600, 0)
    assert caplog.messages == [
        f"{WHAT}: a loss begins: 10 flows, 20 packets; {REMEDY}",
        f"{WHAT}: the loss goes on: 130 flows, 260 packets in 60 s; {REMEDY}",
        f"{WHAT}: the loss goes on: 250 flows, 500 packets in 120 s; {REMEDY}",
        f"{WHAT}: the loss has stopped: 300 flows, 600 packets",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3 + ["INFO"]


def test_a_pause_of_less_than_a_minute_is_no_end(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        watched.go_on(5, 1)
        watched.go_on(AGAIN_NS // S - 10, 0)
    assert [line.split(": ")[2] for line in caplog.messages] == ["a loss begins", *["the loss goes on"] * 2]


def test_the_next_loss_is_counted_from_where_it_begins(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.go_on(5, 10)
    watched.go_on(60, 0)
    watched.go_on(5, 3)
    assert caplog.messages[-1] == f"{WHAT}: a loss begins: 3 flows, 6 packets; {REMEDY}"


def test_counters_do_not_wait_for_each_other(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.go_on(5, 1)
    watched.warnings.tell("not in a flow, ring_full", "raise max_flows", 0, 7, 700, ClockPair(watched.now_ns, 0))
    assert caplog.messages[-1] == "not in a flow, ring_full: a loss begins: 7 packets; raise max_flows"


def test_what_a_former_process_has_warned_of_is_no_news(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.warnings.is_old = True
    watched.go_on(5, 100)
    watched.warnings.is_old = False
    watched.go_on(100, 0)
    assert caplog.messages == []
    watched.go_on(5, 3)
    assert caplog.messages == [f"{WHAT}: a loss begins: 3 flows, 6 packets; {REMEDY}"]


def test_a_counter_has_its_rate_and_its_times(watched: Watched) -> None:
    assert watched.warnings.of(WHAT) is None
    watched.go_on(10, 0)
    watched.go_on(5, 10)
    moving = watched.warnings.of(WHAT)
    assert moving is not None
    assert [moving.packets_per_s] == [None]
    began_ns = watched.now_ns
    watched.go_on(5, 10)
    assert moving.packets_per_s == 4.0
    ended_ns = watched.now_ns
    watched.now_ns += S // 2  # somebody asks in between: too early for another rate
    watched.warnings.tell(WHAT, REMEDY, 20, 40, 0, ClockPair(watched.now_ns, watched.now_ns))
    assert moving.packets_per_s == 4.0
    watched.go_on(10, 0)
    assert moving.packets_per_s == 0.0
    assert (moving.losses.first_ns, moving.losses.last_ns) == (began_ns, ended_ns)


def test_a_rate_does_not_go_by_the_wall_clock() -> None:
    moving = Moving()
    for seconds, wall_s in ((0, 1000), (10, 5)):
        moving.see(0, 100 * seconds, 0, ClockPair(seconds * S, wall_s * S))
    assert moving.packets_per_s == 100.0
