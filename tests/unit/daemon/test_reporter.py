"""What the daemon reports of itself: which losses count, when they are dated, and when interfaces have changed."""

from __future__ import annotations

import logging

import pytest

from netobs.base.clock import ClockPair
from netobs.daemon.reporter import REMEDIES, Reporter
from netobs.datapath.layout import LEDGER_REASONS
from netobs.datapath.ledger import NOT_LOST, Count, LedgerReading
from netobs.export import ExportStats
from netobs.export.spool import store
from netobs.flow.report import Exported, Losses, LossWatch, ReportedInterface
from netobs.flow.tally import Tally
from netobs.kernel.interfaces import Interface
from tests.unit import sources

ETHER = 1


def ledger(**reasons: tuple[int, int]) -> LedgerReading:
    return LedgerReading(Count(1000, 100_000), {name: Count(*count) for name, count in reasons.items()})


def test_a_loss_is_dated_when_it_is_seen() -> None:
    watch = LossWatch()
    assert watch.observe(0, 0, 0, 5) == Losses()
    assert watch.observe(1, 2, 300, 7) == Losses(1, 2, 300, 7, 7)
    assert watch.observe(1, 2, 300, 8) == Losses(1, 2, 300, 7, 7)
    assert watch.observe(1, 3, 300, 9) == Losses(1, 3, 300, 7, 9)


def test_only_what_should_have_been_in_a_flow_is_lost() -> None:
    reporter = Reporter(100)
    reporter.see_ledger(
        ledger(not_ip=(9, 900), not_sampled=(99, 9900), malformed=(0, 0), ring_full=(0, 0)), ClockPair(0, 3)
    )
    assert reporter.report(1, ExportStats()).ignored == Losses()
    reporter.see_ledger(ledger(not_ip=(9, 900), malformed=(2, 200), ring_full=(3, 450)), ClockPair(0, 4))
    assert reporter.report(1, ExportStats()).ignored == Losses(0, 5, 650, 4, 4)


def test_each_collector_has_its_own_counts() -> None:
    reporter = Reporter(1)
    stats = ExportStats(seen=Tally(10, 20, 2000), queued=Tally(10, 20, 2000), messages=3, template_messages=4, bytes=5)
    stats.count_sent(Tally(6, 12, 1200))
    stats.count_not_sent("queue_full", Tally(3, 6, 600))
    reporter.see_not_sent(2, stats, Tally(1, 2, 200), 77)
    report = reporter.report(2, stats)
    assert report.exporting_process == 2
    assert report.exported == Exported(messages=7, flows=6, octets=5)
    assert report.not_sent == Losses(4, 8, 800, 77, 77)
    assert reporter.report(1, ExportStats()).not_sent == Losses()


def test_interfaces_are_in_order_and_changes_are_noticed() -> None:
    reporter = Reporter(1)
    lan = Interface(3, "lan0", ETHER, "veth", "office", b"\2\0\0\0\0\3")
    wan = Interface(2, "wan0", ETHER)
    assert reporter.see_interfaces([lan, wan])
    assert reporter.report(1, ExportStats()).interfaces == (
        ReportedInterface(2, "wan0", "wan0", b""),
        ReportedInterface(3, "lan0", "office", b"\2\0\0\0\0\3"),
    )
    assert not reporter.see_interfaces([wan, lan])
    assert reporter.see_interfaces([wan])
    assert reporter.see_interfaces([wan, Interface(3, "lan0", ETHER, "veth", "store", b"\2\0\0\0\0\3")])


def test_each_reason_has_its_warning_and_its_remedy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "netobs")
    reporter, stats, second = Reporter(1), ExportStats(), 1_000_000_000
    reporter.warn_of_not_sent("main", stats, Tally(), ClockPair(second, 0))
    stats.count_not_sent("queue_full", Tally(3, 6, 600))
    stats.count_not_sent("EPERM", Tally(1, 1, 40))
    reporter.warn_of_not_sent("main", stats, Tally(2, 2, 80), ClockPair(2 * second, 0))
    assert [line.split("; ")[0] for line in caplog.messages] == [
        'collector "main": not sent, queue_full: a loss begins: 3 flows, 6 packets',
        'collector "main": not sent, EPERM: a loss begins: 1 flows, 1 packets',
        'collector "main": no template: a loss begins: 2 flows, 2 packets',
    ]
    assert all(REMEDIES[reason] in caplog.text for reason in ("queue_full", "EPERM"))
    own = sources.arguments_of("count_not_sent") | {each.replace("-", "_") for each in store.REASONS}
    assert own
    assert own <= set(REMEDIES)


def test_each_loss_in_the_kernel_has_its_warning_and_its_remedy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "netobs")
    reporter, second = Reporter(1), 1_000_000_000
    reporter.see_ledger(ledger(**dict.fromkeys(LEDGER_REASONS, (0, 0))), ClockPair(second, 0))
    assert caplog.messages == []
    counts = {reason: (10 + number, 1000) for number, reason in enumerate(LEDGER_REASONS)}
    reporter.see_ledger(ledger(**counts), ClockPair(2 * second, 0))
    reporter.see_ledger(ledger(**counts), ClockPair(3 * second, 0))
    assert caplog.messages == [
        f"not in a flow, {reason}: a loss begins: {packets} packets; {REMEDIES[reason]}"
        for reason, (packets, _) in counts.items()
        if reason not in NOT_LOST
    ]
    assert len(caplog.messages) >= 2
    reporter.see_ledger(ledger(**{**counts, "ring_full": (100, 1000)}), ClockPair(63 * second, 0))
    assert f"ring_full: the loss goes on: {100} packets in 61 s; raise capture.max_flows" in caplog.text
    reporter.see_ledger(ledger(**{**counts, "ring_full": (100, 1000)}), ClockPair(123 * second, 0))
    assert "ring_full: the loss has stopped: 100 packets" in caplog.text


def test_a_loss_without_a_remedy_is_told_nevertheless(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(1)
    reporter.see_ledger(ledger(not_thought_of=(0, 0)), ClockPair(0, 0))
    reporter.see_ledger(ledger(not_thought_of=(5, 500)), ClockPair(1, 0))
    assert caplog.messages == ["not in a flow, not_thought_of: a loss begins: 5 packets; see netobs(8)"]
