"""Gathers what the daemon tells its collectors about itself (``netobs.report``)."""

from __future__ import annotations

from collections.abc import Iterable

from netobs.capture.interfaces import Interface
from netobs.capture.ledger import LedgerReading
from netobs.export.stats import ExportStats, Tally
from netobs.report import Exported, LossWatch, Report, ReportedInterface


class Reporter:
    """One for the daemon: interfaces, sampling and the ledger are the same for all collectors."""

    def __init__(self, sampling: int) -> None:
        self._sampling = sampling
        self._interfaces: tuple[ReportedInterface, ...] = ()
        self._ignored = LossWatch()
        self._not_sent: dict[int, LossWatch] = {}

    def see_interfaces(self, interfaces: Iterable[Interface]) -> bool:
        """Take in the observed interfaces; whether any is new, changed in what is reported, or gone."""
        found = tuple(
            ReportedInterface(each.index, each.name, each.alias or each.name, each.mac)
            for each in sorted(interfaces, key=lambda each: each.index)
        )
        changed = found != self._interfaces
        self._interfaces = found
        return changed

    def see_ledger(self, ledger: LedgerReading, realtime_ns: int) -> None:
        """Take in the ledger of now."""
        self._ignored.observe(0, ledger.lost.packets, ledger.lost.octets, realtime_ns)

    def see_not_sent(self, number: int, stats: ExportStats, unencodable: Tally, realtime_ns: int) -> None:
        """Take in what the collector ``number`` did not get: not sent, or without a Template for it."""
        lost = stats.not_sent_total() + unencodable
        watch = self._not_sent.setdefault(number, LossWatch())
        watch.observe(lost.flows, lost.packets, lost.octets, realtime_ns)

    def report(self, number: int, stats: ExportStats) -> Report:
        """What the collector ``number`` is told."""
        return Report(
            interfaces=self._interfaces,
            sampling=self._sampling,
            exporting_process=number,
            exported=Exported(
                stats.messages + stats.template_messages, stats.sent.flows + stats.resent.flows, stats.bytes
            ),
            ignored=self._ignored.losses,
            not_sent=self._not_sent.setdefault(number, LossWatch()).losses,
        )
