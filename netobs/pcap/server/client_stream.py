"""One client and its stream: what of the selected packets it gets, and when the stream ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from netobs.pcap.formats.stream import PacketStream, Records
from netobs.pcap.limits import Limits
from netobs.pcap.selection import Filter
from netobs.pcap.server.connection import Connection, Conversation, Gone, Wait
from netobs.pcap.server.recorder import Recording
from netobs.pcap.server.request import END_LINE, Request
from netobs.pcap.stats import StreamCounts

TICK_NS = 50_000_000
"""How often the tap is read when it has little, and how exact the limits of time are."""
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


class Client:
    """A sink: takes packets until a limit, ``finish``, or the end of its connection."""

    def __init__(
        self,
        connection: Connection,
        request: Request,
        filter_: Filter,
        interface: Interface | None,
        config: PacketCaptureConfig,
        stream: PacketStream,
        captured: Callable[[], Sequence[Interface]],
        context: ReadContext,
        recording: Recording | None,
    ) -> None:
        """``request`` is complete; ``interface``: the only one whose packets it gets; ``captured`` tells which may have
        packets for it. With ``recording`` it gets that, and as fast as its socket takes it: nothing is dropped."""
        self.connection = connection
        self.request = request
        self.filter = filter_
        self.interface = interface
        self.snaplen = request.snaplen
        self.is_logged = False
        self.recording = recording
        self.losses: Losses = dict
        self.left: Callback | None = None
        """Called once, when it takes no more packets."""
        self.stream = stream
        self._captured = captured
        if recording is not None:
            self.losses = lambda: recording.lost
        self._context, now_ns = context, context.now_ns
        self._limits = Limits(request.count, config.max_bytes, config.max_rate_bytes, now_ns)
        self._end_ns = now_ns + request.duration_ns if request.duration_ns else None
        self._next_statistics_ns = now_ns + STATISTICS_NS
        self.end_reason = ""
        """Why it has ended, if it did so by itself, for people."""
        self._was_captured = False  # its interface

    def __str__(self) -> str:
        return f"packet client {self.connection.peer}"

    @property
    def terms(self) -> str:
        """What it gets, for people."""
        where = f" on {printable(self.interface.name)}" if self.interface else ""
        what = "the recording of " if self.recording else ""
        form = f"as {self.request.format}, {self.snaplen} octets of a packet"
        return f"{what}{quoted(self.filter.text)}{where} {form}"

    @property
    def streaming(self) -> bool:
        """Whether it takes packets."""
        return not self.end_reason and self.connection.broken is None and not self.connection.is_closed

    def run(self, read_tap: Callable[[int], ReadContext]) -> Conversation:
        """The stream, from its header to what waits at its end. ``read_tap`` hands out what was captured."""
        self._put(self.stream.header())
        tail, due_ns = b"", 0
        while not self.end_reason:
            now_ns = self.connection.now_ns
            tail = (tail + self.connection.read())[-len(END_LINE) :]
            if now_ns >= due_ns or tail == END_LINE:
                due_ns = (now_ns // TICK_NS + 1) * TICK_NS  # for all clients in the same round
                self._context = read_tap(now_ns)
                self._check(tail == END_LINE, now_ns)
            plays = self._play(now_ns)
            self.connection.flush(now_ns)
            if not self.end_reason:
                yield Wait(due_ns, writes=plays or bool(self.connection.outbox))

    def take(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> None:
        """Put into the queue what fits and is allowed; the rest is dropped and counted."""
        if not self.streaming:
            return
        records = self._records(batch, rows, context)
        if records is None:
            return
        allowed = self._limits.allow(records.ends, self.stream.reserve_bytes, context.now_ns)
        if self.recording is not None:
            allowed = allowed._replace(rows=allowed.rows + allowed.beyond_rate, beyond_rate=0)
        counts = self.connection.outbox.counts
        counts.beyond_rate += allowed.beyond_rate
        sent = self._queue(records, allowed.rows, context.now_ns)
        if self.connection.broken is None:
            counts.queue_full += allowed.rows - sent
        else:
            counts.not_sent += allowed.rows - sent
        self._spend(records, sent, allowed.rows - sent + allowed.beyond_rate)
        if sent == allowed.rows and allowed.end:
            self.finish(allowed.end, context.now_ns)
        elif self.connection.outbox.held_bytes > 2 * self.connection.outbox.max_bytes:
            # New interfaces without end, and nobody reads of them.
            self.connection.fail_soon(Gone("the client does not read"), context.now_ns)

    def _play(self, now_ns: int) -> bool:
        """Take the next part of the recording, if the one before is gone and the rate allows it. Whether it did."""
        recording, waits = self.recording, bool(self.connection.outbox)
        if recording is None or not self.streaming or waits or self._limits.tokens(now_ns) <= 0:
            return False
        part = next(recording.parts, None)
        if part is None:
            self.finish("recording", now_ns)
            return False
        batch, rows, offset_ns = part
        self.take(batch, rows, ReadContext(now_ns, offset_ns, recording.interfaces))
        return True

    def _check(self, is_asked: bool, now_ns: int) -> None:
        """Whether the stream ends; statistics. It ends with the interface that it is of: another one may get its name,
        but not its packets. Before it was captured, it is waited for."""
        if is_asked:
            self.finish("asked", now_ns)
        elif self._end_ns is not None and now_ns >= self._end_ns:
            self.finish("duration", now_ns)
        elif now_ns >= self._next_statistics_ns:
            self._next_statistics_ns = now_ns + STATISTICS_NS
            if not self.connection.outbox:  # else it is slow, and gets them at its end
                self._put_statistics(now_ns)
        if self.interface is not None and self.recording is None:
            is_captured = bool(self._captured())
            if self._was_captured and not is_captured:
                self.finish("interface", now_ns)
            self._was_captured = is_captured

    def finish(self, reason: str, now_ns: int) -> None:
        """End the stream, with statistics as its last words. ``reason``: a key of ENDS."""
        if self.streaming:
            self._put_statistics(now_ns)
            self.end_reason = ENDS[reason]
            self.leave(now_ns)
            self.connection.wake_soon(now_ns)

    def leave(self, now_ns: int) -> None:
        """Take no more packets."""
        lost = dict(self.losses())
        self.losses = lambda: lost
        left, self.left = self.left, None
        if left is not None:
            left(now_ns)

    @property
    def counts(self) -> StreamCounts:
        """What became of its packets up to now."""
        lost = sum(self.losses().values())
        return replace(self.connection.outbox.counts, other_link=self.stream.other_link, lost=lost)

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
        """Send the first ``wanted`` records, or put them into the queue, as many as fit; how many that are."""
        outbox, ends = self.connection.outbox, records.ends[:wanted]
        begin = self.connection.send_at_once(records, wanted, now_ns)
        rows = int(ends.searchsorted(begin, side="right"))
        begun = begin > (int(ends[rows - 1]) if rows else 0)
        while rows < wanted and self.streaming:
            room = int(ends[-1]) if self.recording else outbox.room
            stop = max(_part(ends, rows, begin, room), rows + begun)  # what is begun has to be sent
            if stop > rows:
                end = int(ends[stop - 1])
                outbox.put(records.body[begin:end], stop - rows)  # all of it: no copy
                rows, begin, begun = stop, end, False
            elif not self.connection.flush(now_ns):
                break
        self.connection.flush(now_ns)
        return rows

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


def _part(ends: Numbers, rows: int, begin: int, room: int) -> int:
    """Which records to put into the queue next, ``rows`` up to what is returned: all at once, or a part that fits."""
    if int(ends[-1]) - begin <= room:
        return len(ends)
    stop = int(ends.searchsorted(begin + min(room, PART_BYTES), side="right"))
    return rows + 1 if stop == rows and int(ends[rows]) - begin <= room else stop  # it may be longer than a part
