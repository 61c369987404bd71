"""The account: the counters of all stages at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from netobs.base.histogram import Histogram
from netobs.base.loop import Silence
from netobs.datapath.ledger import LedgerReading
from netobs.export.stats import ExportStats
from netobs.flow.tally import Tally
from netobs.metering.process import Totals

REASONS = ("", "idle timeout", "active timeout", "end of flow", "forced end", "lack of resources")
"""IE 136 flowEndReason, by value."""

_ETHERTYPES = {
    0x0806: "ARP",
    0x0842: "Wake-on-LAN",
    0x22F0: "AVTP",
    0x6002: "DEC MOP",
    0x8035: "RARP",
    0x8100: "more than 4 VLAN tags",
    0x88A8: "more than 4 VLAN tags",
    0x8809: "LACP",
    0x8847: "MPLS",
    0x8848: "MPLS multicast",
    0x8863: "PPPoE discovery",
    0x8864: "PPPoE session",
    0x888E: "802.1X",
    0x8892: "PROFINET",
    0x88A2: "ATA over Ethernet",
    0x88CC: "LLDP",
    0x88E5: "MACsec",
    0x88E7: "PBB",
    0x88F7: "PTP",
    0x8902: "CFM",
    0x8906: "FCoE",
    0x8914: "FIP",
    0x8915: "RoCE",
    0x9000: "loopback test",
}
"""Names of other EtherTypes than IP (IEEE 802 EtherType registry)."""


class TableStats(NamedTuple):
    """The kernel's flow table. ``ring_packets``: packets that found no room in it and came through the ring buffer."""

    name: str
    occupancy: dict[str, int]
    """Flows that the last eviction found, by level of the table."""
    evictions: int
    emergency_evictions: int
    ring_packets: int
    took: Histogram
    """Evictions of this process, with metering and export of what they brought."""
    grace: Histogram
    """Grace periods that they waited for."""


class CollectorStats(NamedTuple):
    """One collector: ``name`` as in the log, its statistics, and flows that no Template accepts.

    ``clamped``: Flow Records sent with a substitute interface index, because the protocol has no number for theirs.
    """

    name: str
    export: ExportStats
    unencodable: Tally
    clamped: int = 0

    def lines(self) -> Iterator[str]:
        """The account of its flows, as lines of the log."""
        return _collector_lines(self)


@dataclass(eq=False, repr=False)
class FormerCollectors:
    """The collectors that reloads have removed: one account for all of them."""

    count: int = 0
    export: ExportStats = field(default_factory=ExportStats)
    unencodable: Tally = field(default_factory=Tally)
    clamped: int = 0

    def add(self, collector: CollectorStats) -> None:
        """Adds a removed ``collector``, whose numbers no longer change."""
        self.count += 1
        self.export += collector.export
        self.unencodable += collector.unencodable
        self.clamped += collector.clamped

    def stats(self) -> tuple[CollectorStats, ...]:
        """None if none was removed."""
        name = f"former collectors ({self.count})"
        return (CollectorStats(name, self.export, self.unencodable, self.clamped),) if self.count else ()


@dataclass(frozen=True, eq=False, repr=False)
class Stats:
    """``seen == in flows + ledger``; ``taken == handed_out + cached``; for each collector ``seen + taken over == sent +
    not sent + queued + spooled + moved away`` (see ``ExportStats``)."""

    ledger: LedgerReading
    table: TableStats
    taken: Totals
    handed_out: Totals
    cached_flows: int
    expired: tuple[int, ...]
    """Flow Records by flowEndReason, which is the index."""
    collectors: tuple[CollectorStats, ...]
    silence: Silence = field(default_factory=Silence)
    """The longest of the daemon's loop."""

    def account(self) -> Iterator[str]:
        """The account of every packet. At the end, the numbers add up."""
        seen = self.ledger.seen
        yield f"seen: {seen.packets} packets, {seen.octets} octets"
        for reason, count in self.ledger.reasons.items():
            if count.packets:
                yield f"not in a flow, {reason}: {count.packets} packets, {count.octets} octets"
        if self.ledger.ethertypes:
            first, *others = (f"{name} {packets}" for name, packets in ethertypes(self.ledger))
            yield f"not IP: {', '.join([f'{first} packets', *others])}"
        for collector in self.collectors:
            yield from collector.lines()

    def lines(self) -> Iterator[str]:
        """The whole account, as lines of the log."""
        yield from self.account()
        if self.silence.duration_ns:
            yield f"loop: longest silence {self.silence}"
        table = self.table
        levels = "".join(f", {flows} in {level}" for level, flows in table.occupancy.items())
        yield (
            f"flow table {table.name}: {table.evictions} evictions, {table.emergency_evictions} of them because it was "
            f"full, {table.ring_packets} packets by the ring buffer{levels}"
        )
        ends = ", ".join(f"{count} {reason}" for reason, count in zip(REASONS, self.expired) if count)
        yield f"flow cache: {self.cached_flows} flows; exported: {ends or 'none'}"


def ethertypes(ledger: LedgerReading) -> Iterator[tuple[str, int]]:
    """Packets that are not of IP by EtherType, whose name and number is the first of each pair."""
    for number, count in ledger.ethertypes.items():
        named = " ".join(filter(None, (_ETHERTYPES.get(number), f"{number:#06x}")))
        yield named if number else "802.3 without EtherType", count.packets
    if ledger.other_ethertypes.packets:
        yield "other", ledger.other_ethertypes.packets


def _collector_lines(collector: CollectorStats) -> Iterator[str]:
    stats, name = collector.export, collector.name
    yield f"{name}: {_tally(stats.sent)} sent"
    for reason, tally in stats.not_sent.items():
        yield f"{name}: not sent, {reason}: {_tally(tally)}"
    if stats.queued.flows:
        yield f"{name}: {_tally(stats.queued)} waiting"
    if stats.taken_over.flows:
        yield f"{name}: taken over from an earlier run: {_tally(stats.taken_over)}"
    if stats.spooled.flows:
        yield f"{name}: in the spool: {_tally(stats.spooled)}"
    if stats.resent.flows:
        yield f"{name}: sent again, as not acknowledged: {_tally(stats.resent)}"
    if stats.moved_away.flows:
        yield f"{name}: given to another collector: {_tally(stats.moved_away)}"
    if stats.moved_in.flows:
        yield f"{name}: taken over from another collector: {_tally(stats.moved_in)}"
    if collector.unencodable.flows:
        yield f"{name}: no template for {_tally(collector.unencodable)}"
    if collector.clamped:
        yield f"{name}: {collector.clamped} flows of interfaces whose index NetFlow v5 cannot encode"
    if stats.refused:
        yield f"{name}: {stats.refused} times nothing listened there"
    if stats.failed_attempts:
        yield f"{name}: {stats.failed_attempts} times not reached, or refused"


def _tally(tally: Tally) -> str:
    return f"{tally.flows} flows, {tally.packets} packets, {tally.octets} octets"
