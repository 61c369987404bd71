"""One client and its stream: what of the selected packets it gets, and when the stream ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

from netobs.base.clock import NS_PER_S
from netobs.base.log import printable
from netobs.base.loop import Callback
from netobs.base.vectors import Numbers
from netobs.config.schema import PacketCaptureConfig
from netobs.config.text import quoted
from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import PacketBatch
from netobs.pcap.distribution import Losses, ReadContext
from netobs.pcap.formats import stream_of
from netobs.pcap.formats.stream import Records
from netobs.pcap.limits import Limits
from netobs.pcap.selection import Filter, Selection
from netobs.pcap.server.connection import Connection, Phase
from netobs.pcap.server.recorder import Recording
from netobs.pcap.server.request import Request
from netobs.pcap.stats import StreamCounts

log = logging.getLogger("netobs.pcap")

STATISTICS_NS = 10 * NS_PER_S
"""How often the statistics of a stream go into it."""
PART_BYTES = 256 << 10
"""How long the parts are that a batch is cut into when it does not fit the queue as a whole."""
MAX_HEAD_BYTES = 1 << 16
"""Room in max_bytes without which interfaces that only lost packets are not introduced at the end."""

ENDS = {
    "count": "it has the packets that it asked for",
    "duration": "its time is over",
    "max_bytes": "max_bytes is reached",
    "asked": "the client asked for the end",
    "interface": "its interface is not captured any more",
    "recording": "the recording is complete",
    "stop": "netobs ends",
}


@dataclass(frozen=True)
class Terms:
    """What a client gets: its request, with what is configured where it said nothing."""

    request: Request
    filter: Filter
    interface: Interface | None
    link: int

    @property
    def selection(self) -> Selection:
        """What is selected for it."""
        return Selection(self.filter, self.interface.index if self.interface else 0)

    def __str__(self) -> str:
        where = f" on {printable(self.interface.name)}" if self.interface else ""
        what = "the recording of " if self.request.recorded else ""
        form = f"as {self.request.format}, {self.request.snaplen} octets of a packet"
        return f"{what}{quoted(self.filter.text)}{where} {form}"


class Client:
    """A sink: takes packets until a limit or ``finish``. The connection may be closed after any call."""

    def __init__(
        self,
        connection: Connection,
        terms: Terms,
        config: PacketCaptureConfig,
        known: Mapping[int, Interface],
        captured: Callable[[], Sequence[Interface]],
        context: ReadContext,
        recording: Recording | None = None,
    ) -> None:
        """``known``: interfaces by index; ``captured`` tells which may have packets for it. With ``recording`` it gets
        that, and as fast as its socket takes it: nothing is dropped."""
        self.connection = connection
        self.terms = terms
        request = terms.request
        self.snaplen = request.snaplen
        self.is_logged = True
        self.recording = recording
        self.losses: Losses = dict
        self.left: Callback = _nothing
        """Called once, when it takes no more packets."""
        self._counts = StreamCounts()  # of what did not get into the queue
        start_ns, text = context.now_ns, terms.filter.text
        if recording is not None:
            self.losses = lambda: recording.lost
            start_ns = recording.since_ns
        self.stream = stream_of(request.format, terms.link, request.snaplen, text, known, captured, start_ns)
        self._captured = captured
        self._limits = Limits(request.count, config.max_bytes, config.max_rate_bytes, context.now_ns)
        self._context = context
        self._end_ns = context.now_ns + request.duration_ns if request.duration_ns else None
        self._next_statistics_ns = context.now_ns + STATISTICS_NS
        self._end_reason = ""
        self._was_captured = False  # its interface

    def __str__(self) -> str:
        return f"packet client {self.connection.peer}"

    @property
    def streaming(self) -> bool:
        """Whether it takes packets."""
        return self.connection.phase is Phase.OPEN

    def begin(self, now_ns: int) -> None:
        """Sends what stands in front."""
        if self.is_logged:
            log.info("%s: gets %s", self, self.terms)
        self._put(self.stream.header())
        self.connection.flush(now_ns)
        if self.recording is not None:
            self.connection.wait_writable()

    def take(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> None:
        """Put into the queue what fits and is allowed; the rest is dropped and counted."""
        if not self.streaming:
            return
        records = self._records(batch, rows, context)
        if records is None:
            return
        allowed = self._limits.allow(records.ends, self.stream.reserve_bytes, context.now_ns)
        self._counts.beyond_rate += allowed.beyond_rate
        self._counts.not_sent += allowed.rows  # so it is if the connection breaks meanwhile
        sent = self._queue(records, allowed.rows, context.now_ns)
        if self.streaming:
            self._counts.not_sent -= allowed.rows - sent
            self._counts.queue_full += allowed.rows - sent
        self._spend(records, sent, allowed.rows - sent + allowed.beyond_rate)
        if sent == allowed.rows and allowed.end:
            self.finish(allowed.end, context.now_ns)
        elif self.connection.outbox.held_bytes > 2 * self.connection.outbox.max_bytes:
            # New interfaces without end, and nobody reads of them.
            self.connection.abort("the client does not read", context.now_ns)

    def play(self, now_ns: int) -> None:
        """Send the next part of the recording, if the one before is gone and the rate allows it."""
        if self.recording is None or not self.streaming or self.connection.outbox or self._limits.tokens(now_ns) <= 0:
            return
        part = self.recording.take(now_ns)
        if part is None:
            self.finish("recording", now_ns)
        elif (records := self._records(*part)) is not None:
            allowed = self._limits.allow(records.ends, self.stream.reserve_bytes, now_ns)
            sent = allowed.rows + allowed.beyond_rate
            if sent:
                self.connection.outbox.put(records.body[: int(records.ends[sent - 1])], sent)
            self._spend(records, sent)
            self.connection.flush(now_ns)
            if allowed.end:
                self.finish(allowed.end, now_ns)
            self.connection.wait_writable()

    def check(self, context: ReadContext) -> None:
        """Run periodic checks: the end of the stream, statistics, a client that is gone."""
        self._context = context
        now_ns = context.now_ns
        if self._end_ns is not None and now_ns >= self._end_ns:
            self.finish("duration", now_ns)
        elif now_ns >= self._next_statistics_ns and self.streaming:
            self._next_statistics_ns = now_ns + STATISTICS_NS
            if not self.connection.outbox:  # else it is slow, and gets them at its end
                self._put_statistics(now_ns)
                self.connection.flush(now_ns)
        self.connection.check(now_ns)
        self.play(now_ns)
        if self.terms.interface is not None and self.recording is None:
            self._check_interface(now_ns)

    def _check_interface(self, now_ns: int) -> None:
        """End the stream with the interface that it is of: another one may get its name, but not its packets. Before it
        was captured, it is waited for."""
        is_captured = bool(self._captured())
        if self._was_captured and not is_captured:
            self.finish("interface", now_ns)
        self._was_captured = is_captured

    def finish(self, reason: str, now_ns: int) -> None:
        """End the stream, with statistics as its last words. ``reason``: a key of ENDS."""
        if self.streaming and not self._end_reason:
            self._end_reason = ENDS[reason]
            self._put_statistics(now_ns)
            self.leave(now_ns)
            self.connection.finish(now_ns)

    def leave(self, now_ns: int) -> None:
        """Take no more packets."""
        lost = dict(self.losses())
        self.losses = lambda: lost
        left, self.left = self.left, _nothing
        left(now_ns)

    def log_end(self, broken: str) -> None:
        """``broken``: why it is over, if it did not end by itself."""
        if self.is_logged:
            log.info("%s: %s: %s", self, broken or self._end_reason, self.counts)

    @property
    def counts(self) -> StreamCounts:
        """What became of its packets up to now."""
        outbox = self.connection.outbox
        closed = self.connection.phase is Phase.CLOSED
        queued = StreamCounts(
            sent=outbox.sent_packets,
            bytes=outbox.sent_bytes,
            waiting=0 if closed else outbox.waiting_packets,
            not_sent=outbox.waiting_packets if closed else 0,
            other_link=self.stream.other_link,
            lost=sum(self.losses().values()),
        )
        return queued + self._counts

    def _records(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> Records | None:
        """What is new in the stream with them has a place in the queue, if there is one in max_bytes; else it ends."""
        records = self.stream.records(batch, rows, context)
        if records.head and self._limits.has_room(len(records.head) + self.stream.reserve_bytes):
            self._put(records.head)
        elif records.head:
            self.finish("max_bytes", context.now_ns)
            return None
        return records

    def _queue(self, records: Records, wanted: int, now_ns: int) -> int:
        """Put the first ``wanted`` records into the queue, as many as fit; how many that are."""
        outbox, ends = self.connection.outbox, records.ends
        rows, begin = self._send_at_once(records, wanted, now_ns)
        self._counts.not_sent -= rows
        while rows < wanted and self.streaming:
            stop = _part(ends[:wanted], rows, begin, outbox.room)
            if stop > rows:
                end = int(ends[stop - 1])
                outbox.put(records.body[begin:end], stop - rows)  # all of it: no copy
                self._counts.not_sent -= stop - rows
                rows, begin = stop, end
            elif not self.connection.flush(now_ns):
                break
        self.connection.flush(now_ns)
        return rows

    def _send_at_once(self, records: Records, wanted: int, now_ns: int) -> tuple[int, int]:
        """Past the queue, if nothing waits there: nothing is copied but by the kernel. How many records, and bytes, are
        sent or, of the last one, have to be."""
        connection, ends = self.connection, records.ends[:wanted]
        if not wanted or not connection.sends_at_once:
            return 0, 0
        sent = connection.send_at_once(records.gather(wanted), ends, now_ns)
        rows = int(ends.searchsorted(sent, side="right"))
        if rows == wanted or not self.streaming:
            return rows, sent
        begun = int(ends[rows - 1]) if rows else 0
        if sent == begun:
            return rows, sent
        end = int(ends[rows])
        connection.outbox.put(records.body[sent:end], 1)
        return rows + 1, end

    def _put(self, data: bytes) -> None:
        self.connection.outbox.put(data)
        self._limits.spend(len(data))

    def _spend(self, records: Records, sent: int, dropped: int = 0) -> None:
        if sent:
            self._limits.spend(int(records.ends[sent - 1]), sent)
        self.stream.count(records, sent, dropped)

    def _put_statistics(self, now_ns: int) -> None:
        lost = self.losses()
        if self._limits.has_room(MAX_HEAD_BYTES):
            self._put(self.stream.introduction(lost))
        self._put(self.stream.statistics(lost, self._context._replace(now_ns=now_ns)))


def _nothing(_now_ns: int) -> None:
    """Nobody is told."""


def _part(ends: Numbers, rows: int, begin: int, room: int) -> int:
    """Which records to put into the queue next, ``rows`` up to what is returned: all at once, or a part that fits."""
    if int(ends[-1]) - begin <= room:
        return len(ends)
    stop = int(ends.searchsorted(begin + min(room, PART_BYTES), side="right"))
    return rows + 1 if stop == rows and int(ends[rows]) - begin <= room else stop  # it may be longer than a part
