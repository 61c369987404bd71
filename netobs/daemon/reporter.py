"""Collects the reports about the daemon for its collectors (``netobs.flow.report``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netobs.base.clock import ClockPair
from netobs.daemon.loss_warnings import LossWarnings, Moving
from netobs.datapath.ledger import NOT_LOST, LedgerReading
from netobs.export.stats import ExportStats
from netobs.flow.report import Exported, LossWatch, Report, ReportedInterface
from netobs.flow.tally import Tally
from netobs.kernel.interfaces import Interface

REMEDIES = {
    "malformed": "a sender's packets are truncated, or have lengths that contradict each other; find it",
    "ext_headers": "a sender's packets have more than 64 IPv6 extension headers, which may be an attack; find it",
    "ring_full": "raise capture.max_flows, or shorten eviction_interval; if both are generous, give netobs more CPU",
    "queue_full": "the collector is down or too slow; check it, raise queue_max, or set a spool",
    "queue_age": "the collector is down or too slow; check it, raise queue_max_age, or set a spool",
    "refused": "its host refuses them; start the collector, or check host, port and its firewall",
    "closed": "the time to send ran out; a spool keeps flows for the next run",
    "spool_full": "the collector was down for too long; check it, or raise spool_max",
    "other_template": "the spool was written with another template; see netobs(8)",
    "too_large": "Messages in the spool exceed max_message_size; see netobs(8)",
    "damaged": "a file of the spool is damaged, and is kept; check the disk, see netobs(8)",
    "removed": "somebody removed files of the spool while netobs used them; find out who, and do not remove them",
    "EMSGSIZE": "the path MTU is too small; set a smaller max_message_size",
    "EPERM": "a firewall rule of this host forbids it; allow it",
}
"""What an operator can do, by the reason in the ledger or in ``ExportStats.not_sent``."""
NOT_IN_A_FLOW, NOT_SENT = "not in a flow, {}", 'collector "{}": not sent, {}'
NO_TEMPLATE = 'collector "{}": no template'
_ANY_REMEDY = "the system refused to send; check the routes and firewall rules of this host"
_NO_REMEDY = "see netobs(8)"
NO_TEMPLATE_REMEDY = "the template file, or the protocol, has none for such flows; see netobs-templates(5)"


def remedy_of(reason: str) -> str:
    """What to do about packets in no flow for ``reason``."""
    return REMEDIES.get(reason, _NO_REMEDY)


def remedy_of_unsent(reason: str) -> str:
    """What to do about flows not sent for ``reason``."""
    return REMEDIES.get(reason, _ANY_REMEDY)


class Reporter:
    """One for the daemon: interfaces, sampling and the ledger are the same for all collectors."""

    def __init__(self, sampling: int) -> None:
        self.sampling = sampling
        self._seen: list[Interface] = []
        self._interfaces: tuple[ReportedInterface, ...] | None = ()  # as reported; None: not yet made of those
        self._namespaces: dict[int, str] | None = None
        self._ignored = LossWatch()
        self._not_sent: dict[int, LossWatch] = {}
        self.warnings = LossWarnings()
        self._left_out: dict[str, Moving] = {}  # by reason, of those that are no loss

    def see_interfaces(self, interfaces: Iterable[Interface], namespaces: Mapping[int, str] | None = None) -> bool:
        """Read the observed interfaces, and the names of network namespaces by number if any are followed; returns
        whether they have changed."""
        seen = sorted(interfaces, key=lambda each: (each.netns, each.index))
        if (seen, namespaces) == (self._seen, self._namespaces):
            return False
        self._seen, self._interfaces = seen, None
        self._namespaces = None if namespaces is None else dict(namespaces)
        return True

    def see_ledger(self, ledger: LedgerReading, clock: ClockPair) -> None:
        """Read the present ledger, and warn the operator about losses, by reason."""
        self._ignored.observe(0, ledger.lost.packets, ledger.lost.octets, clock.realtime_ns)
        for reason, count in ledger.reasons.items():
            if reason in NOT_LOST:
                self._left_out.setdefault(reason, Moving()).see(0, count.packets, count.octets, clock)
                continue
            what, remedy = NOT_IN_A_FLOW.format(reason), remedy_of(reason)
            self.warnings.tell(what, remedy, 0, count.packets, count.octets, clock)

    def moving(self, reason: str) -> Moving | None:
        """How a ``reason`` of the ledger moves; None if it never did."""
        return self._left_out.get(reason) or self.warnings.of(NOT_IN_A_FLOW.format(reason))

    def moving_of(self, name: str, reason: str) -> Moving | None:
        """How the flows move that the collector ``name`` did not get for ``reason``, or had no template: ""."""
        return self.warnings.of((NOT_SENT if reason else NO_TEMPLATE).format(name, reason))

    def see_not_sent(self, number: int, stats: ExportStats, unencodable: Tally, realtime_ns: int) -> None:
        """Read the losses of collector ``number``: flows not sent, and flows without a Template.

        Refused flows were exported: notSentFlowTotalCount (IE 166) counts flows that were dropped instead of sent.
        """
        lost = stats.not_sent_total() - stats.refused_flows + unencodable
        watch = self._not_sent.setdefault(number, LossWatch())
        watch.observe(lost.flows, lost.packets, lost.octets, realtime_ns)

    def forget(self, number: int) -> None:
        """Forget the removed collector ``number``."""
        self._not_sent.pop(number, None)

    def warn_of_not_sent(self, name: str, stats: ExportStats, unencodable: Tally, clock: ClockPair) -> None:
        """Warn the operator about flows that the collector ``name`` does not get, by reason."""
        for reason, lost in stats.not_sent.items():
            what = NOT_SENT.format(name, reason)
            self.warnings.tell(what, remedy_of_unsent(reason), lost.flows, lost.packets, lost.octets, clock)
        what, lost = NO_TEMPLATE.format(name), unencodable
        self.warnings.tell(what, NO_TEMPLATE_REMEDY, lost.flows, lost.packets, lost.octets, clock)

    def report(self, number: int, stats: ExportStats) -> Report:
        """The report for collector ``number``."""
        if self._interfaces is None:
            self._interfaces = tuple(
                ReportedInterface(each.index, each.name, each.alias or each.name, each.mac, each.netns)
                for each in self._seen
            )
        return Report(
            interfaces=self._interfaces,
            sampling=self.sampling,
            exporting_process=number,
            exported=Exported(stats.messages + stats.template_messages, stats.exported.flows, stats.bytes),
            ignored=self._ignored.losses,
            not_sent=self._not_sent.setdefault(number, LossWatch()).losses,
            namespaces=self._namespaces,
        )
