"""What a session finds when it begins where a killed or restarted process ended."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Callable, Generic, NamedTuple

from netobs.base.keeper import Keeper, file_of
from netobs.export.in_flight import Shipment
from netobs.export.keeping import Amount, Spooling
from netobs.export.kept import rows as kept_rows
from netobs.export.kept.account import KeptAccount
from netobs.export.kept.rows import GONE, WAITS, KeptRows
from netobs.export.kept.send import SendRecord
from netobs.export.kept.state import SEND_AT, Hot, KeptState
from netobs.export.protocol import D, Encoder, H
from netobs.export.queue import Part, tally_of
from netobs.export.stats import ExportStats
from netobs.flow.tally import Tally

NOTHING, ROWS, ANNOUNCEMENT, SPOOLED = range(4)
"""``Hot.shipped``."""


class Place(NamedTuple):
    """Where a session keeps its state: under names with this ``number``."""

    keeper: Keeper
    number: int
    identity: dict[str, str]
    """Whose state it is. The waiting rows of another one are not for this session."""
    given_end: int = 0
    """If this was the end of its rows, another session has taken over all of them."""

    @property
    def names(self) -> tuple[str, str, str]:
        """Of the state, of the rows, of the UDP socket."""
        return f"q-{self.number}-s", f"q-{self.number}-r", f"u-{self.number}"


class Recovered(Generic[H, D]):
    """The state of one session as its former process has left it, or a new one.

    ``found``: the rows that wait, the oldest first. ``doubtful``: those of them (left out of ``found``) that the disk
    was being given, and where.
    """

    def __init__(
        self, place: Place, encoder: Encoder[H, D], stats: ExportStats, reliable: bool, new_header: Callable[..., H]
    ) -> None:
        """``stats`` become those of the former process. ``reliable``: whether data are acknowledged."""
        self.found: list[Part[D]] = []
        self.doubtful: tuple[Part[D], Spooling] | None = None
        self._keeper, self._names, self._place = place.keeper, place.names, place
        self._stats, self._reliable = stats, reliable
        self._sent_state = kept_rows.SENT
        self._session_found = False
        self._behind: tuple[Shipment[H, D], int] | None = None
        self._state = KeptState(file_of(self._keeper, self._names[0]))
        self._account = KeptAccount(stats, self._state)
        hot, known = Hot(kept_rows.FIRST_ROW), False
        if self._state.is_known:
            identity, hot, cold = self._state.read()
            self._account.restore(cold)
            known = identity == place.identity
        if known:
            rows_fd = file_of(self._keeper, self._names[1])
            self._recover(hot, KeptRows(rows_fd, encoder, hot.end), new_header)
        else:
            rows_fd = self._keeper.memory(self._names[1])
            self._begin(place.identity, hot, KeptRows(rows_fd, encoder))

    def _begin(self, identity: dict[str, str], hot: Hot, rows: KeptRows[D]) -> None:
        """Nothing waits. What another session has left in this place was not for this collector as it is now."""
        self._rows = rows
        self._count(hot)
        self._stats.queued = self._missing()
        self._stats.count_not_sent("other_template", self._stats.queued)
        self._stats.unseen = self._stats.spooled
        self._state.clear()
        self._record = SendRecord(self._state.map, SEND_AT)
        self._hot, self._cold = self._counted(Hot(rows.end)), self._account.numbers()
        self._state.begin(identity, self._hot, self._cold)

    def _recover(self, hot: Hot, rows: KeptRows[D], new_header: Callable[..., H]) -> None:
        self._rows, self._hot = rows, hot
        self._record = SendRecord(self._state.map, SEND_AT)
        before = kept_rows.SENT if hot.sent_state == kept_rows.SENT else kept_rows.SENT_TOO
        self._sent_state = kept_rows.SENT_TOO if before == kept_rows.SENT else kept_rows.SENT
        self._count(hot)
        if hot.mark_rows:
            rows.mark_again(hot.mark_at, hot.mark_rows, hot.mark_state)
        hot = self._count_last_send(hot, new_header)
        runs = [run for run in rows.found() if run[1] != GONE]
        for part, state in runs:
            if state == self._sent_state:  # of two processes ago: this is in the account already
                rows.mark(part.at, len(part), WAITS)
        if hot.end == self._place.given_end:
            runs = self._give_away(runs)
        resent = [part for part, state in runs if state == before]
        self._stats.queued = tally_of(part for part, state in runs if state != before)
        self._stats.count_resent(tally_of(resent))
        self._stats.count_resent(self._account.unacknowledged, spooled=True)
        self._account.unacknowledged = Tally()
        self._stats.unseen = self._stats.spooled
        if self._reliable and hot.shipped == SPOOLED:  # the kernel may have accepted a part of it
            self._stats.resent += Tally(hot.rows, hot.packets, hot.octets)
        if self._reliable and hot.shipped == ROWS:
            self._stats.resent += _tally_between([run[0] for run in runs], hot.at, hot.at + hot.rows)
        self._cold = self._account.numbers()
        self._hot = self._counted(hot._replace(shipped=NOTHING, end=rows.end, sent_state=self._sent_state))
        self._state.change(self._hot, self._cold)
        if hot.mark_rows:
            rows.mark_again(hot.mark_at, hot.mark_rows, hot.mark_state)
        for part in resent:
            rows.mark(part.at, len(part), WAITS)
        self.found = sorted((run[0] for run in runs), key=lambda part: (part.since_ns, part.at))
        self._set_apart(self._state.spooling)

    def _give_away(self, runs: list[tuple[Part[D], int]]) -> list[tuple[Part[D], int]]:
        """Another session has the rows that wait; this one was killed before all of them were forgotten here."""
        for part, state in runs:
            if state == WAITS:
                self._rows.mark(part.at, len(part), GONE)
        left = [(part, state) for part, state in runs if state != WAITS]
        self._stats.queued = Tally()
        self._stats.moved_away += self._missing()
        return left

    def _count(self, hot: Hot) -> None:
        stats = self._stats
        stats.sent = Tally(hot.sent_flows, hot.sent_packets, hot.sent_octets)
        stats.messages, stats.template_messages, stats.bytes = hot.messages, hot.template_messages, hot.bytes

    def _missing(self) -> Tally:
        """What waits, as the rest of the account says it."""
        stats = self._stats
        return stats.seen + stats.taken_over - stats.sent - stats.not_sent_total() - stats.spooled - stats.moved_away

    def _count_last_send(self, hot: Hot, new_header: Callable[..., H]) -> Hot:
        """The former process was perhaps killed after a send, before that was in its account."""
        sums = self._record.sums
        news = Amount(*map(operator.sub, sums, _accounted(hot)))
        if not news.messages or hot.shipped == NOTHING:
            return hot
        stats, tally = self._stats, Tally(news.rows, news.packets, news.octets)
        records = hot.rows if hot.shipped == ANNOUNCEMENT else news.rows
        header = new_header(0, hot.sequence, 0, 0).advance(records, news.messages)
        stats.bytes += news.bytes
        if hot.shipped == ANNOUNCEMENT:
            stats.template_messages += news.messages
        else:
            stats.count_sent(tally, spooled=hot.shipped == SPOOLED)
            stats.messages += news.messages
        marks = {}
        if hot.shipped == ROWS:
            marks = {"mark_at": hot.at, "mark_rows": news.rows, "mark_state": GONE}
            self._rows.mark_again(hot.at, news.rows, GONE)
        message = hot.message + (news.messages if hot.shipped == SPOOLED else 0)
        return hot._replace(sequence=header.sequence, message=message, **marks)

    def _set_apart(self, spooling: Spooling | None) -> None:
        """Rows that the disk was being given are perhaps there."""
        if spooling is None:
            return
        start, stop = spooling.at, spooling.at + spooling.rows
        for number, part in enumerate(self.found):
            first, last = max(start, part.at), min(stop, part.at + len(part))
            if first < last:
                pieces = [part.slice(0, first - part.at), part.slice(last - part.at, len(part))]
                self.found[number : number + 1] = [piece for piece in pieces if len(piece)]
                self.doubtful = part.slice(first - part.at, last - part.at), spooling
                return
        self._state.spooling = None

    def _counted(self, hot: Hot) -> Hot:
        """``hot`` with the present account."""
        stats, sums = self._stats, self._record.sums
        return hot._replace(
            accounted_rows=sums.rows, accounted_messages=sums.messages, accounted_packets=sums.packets,
            accounted_octets=sums.octets, accounted_bytes=sums.bytes, sent_flows=stats.sent.flows,
            sent_packets=stats.sent.packets, sent_octets=stats.sent.octets, messages=stats.messages,
            template_messages=stats.template_messages, bytes=stats.bytes,
        )  # fmt: skip


def _accounted(hot: Hot) -> Amount:
    return Amount(hot.accounted_rows, hot.accounted_messages, hot.accounted_packets, hot.accounted_octets,
                hot.accounted_bytes)  # fmt: skip


def _tally_between(parts: Sequence[Part[Any]], start: int, stop: int) -> Tally:
    """What the rows with the numbers ``start`` to ``stop`` carry."""
    pieces = [part.slice(max(start, part.at) - part.at, min(stop, part.at + len(part)) - part.at)
              for part in parts if part.at < stop and start < part.at + len(part)]  # fmt: skip
    return tally_of(pieces)
