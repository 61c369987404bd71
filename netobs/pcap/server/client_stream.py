"""One client and its stream: what of the selected packets it gets, and when the stream ends."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.base.loop import Callback
from netobs.config.schema import PacketCaptureConfig
from netobs.config.text import quoted
from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import Numbers
from netobs.pcap.formats.records import Records, add_places, counts_by_place
from netobs.pcap.limits import Limits
from netobs.pcap.selection import Filter, Selection
from netobs.pcap.server.channel import Channel, Losses
from netobs.pcap.server.connection import Connection, Phase
from netobs.pcap.server.request import Request
from netobs.pcap.source import Moment
from netobs.pcap.stats import ClientStats, StreamCounts

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

    filter: Filter
    interface: Interface | None
    format: str
    link: int
    snaplen: int
    count: int
    duration_ns: int
    recorded: bool

    @property
    def selection(self) -> Selection:
        """What is selected for it."""
        return Selection(self.filter, self.interface.index if self.interface else 0)

    def __str__(self) -> str:
        where = f" on {self.interface.name}" if self.interface else ""
        what = "the recording of " if self.recorded else ""
        return f"{what}{quoted(self.filter.text)}{where} as {self.format}, {self.snaplen} octets of a packet"


def terms_of(
    request: Request, config: PacketCaptureConfig, chosen: Filter, interface: Interface | None, link: int
) -> Terms:
    """The configured values where ``request`` says nothing; never more than they allow."""
    durations = [each for each in (request.duration_ns, 0 if request.recorded else config.max_duration_ns) if each]
    return Terms(
        filter=chosen,
        interface=interface,
        format=request.format or config.format,
        link=link,
        snaplen=min(request.snaplen or config.snaplen, config.snaplen),
        count=request.count,
        duration_ns=min(durations, default=0),
        recorded=request.recorded,
    )


class Client:
    """``take`` packets until a limit or ``finish``. The connection may be closed after any call."""

    def __init__(self, connection: Connection, terms: Terms, config: PacketCaptureConfig, moment: Moment) -> None:
        self.connection = connection
        self.terms = terms
        self.counts = StreamCounts()
        """What did not get into the queue; ``stats`` has all."""
        self._limits = Limits(terms.count, config.max_bytes, config.max_rate_bytes, moment.now_ns)
        self._offset_ns = moment.offset_ns
        self.since_ns = moment.now_ns
        """From when its packets are, CLOCK_MONOTONIC."""
        self._end_ns = moment.now_ns + terms.duration_ns if terms.duration_ns else None
        self._next_statistics_ns = moment.now_ns + STATISTICS_NS
        self._sent = np.zeros(0, dtype=np.int64)  # by place of the interface in the stream
        self._dropped = np.zeros(0, dtype=np.int64)
        self._end_reason = ""
        self._was_captured = False  # its interface
        self._channel: Channel
        self._losses: Losses
        self._left: Callback

    def __str__(self) -> str:
        return f"packet client {self.connection.peer}"

    @property
    def streaming(self) -> bool:
        """Whether it takes packets."""
        return self.connection.phase is Phase.OPEN

    def begin(self, channel: Channel, losses: Losses, left: Callback, already: int, now_ns: int) -> None:
        """Become a member of ``channel``. Its header is sent, but for the bytes that the client has ``already``.

        ``left`` is called once, when the client takes no more packets.
        """
        channel.members.append(self)
        self._left = left
        self._channel = channel
        self._losses = losses
        log.info("%s: gets %s", self, self.terms)
        self._put(channel.format.header()[already:])
        self.connection.flush(now_ns)

    def take_head(self, head: bytes, now_ns: int) -> None:
        """What the stream cannot do without from here on. It has a place in the queue, if there is one in max_bytes."""
        if head and self.streaming:
            if self._limits.has_room(len(head) + self._reserve_bytes):
                self._put(head)
            else:
                self.finish("max_bytes", now_ns)

    def take(self, records: Records, other_link: int, now_ns: int) -> None:
        """Put into the queue what fits and is allowed; the rest is dropped and counted."""
        self.take_head(records.head, now_ns)
        if not self.streaming:
            return
        allowed = self._limits.allow(records.ends, self._reserve_bytes, now_ns)
        self.counts.other_link += other_link
        self.counts.beyond_rate += allowed.beyond_rate
        self.counts.not_sent += allowed.rows  # so it is if the connection breaks meanwhile
        rows = self._queue(records, allowed.rows, now_ns)
        if self.streaming:
            self.counts.not_sent -= allowed.rows - rows
            self.counts.queue_full += allowed.rows - rows
        if self._channel.format.statistics_bytes:
            self._dropped = add_places(self._dropped, records.sources[rows : allowed.rows + allowed.beyond_rate])
        self._spend(records, rows)
        if rows == allowed.rows and allowed.end:
            self.finish(allowed.end, now_ns)
        elif self.connection.outbox.held_bytes > 2 * self.connection.outbox.max_bytes:
            # New interfaces without end, and nobody reads of them.
            self.connection.abort("the client does not read", now_ns)

    def take_recorded(self, records: Records, other_link: int, now_ns: int) -> None:
        """As ``take``, but nothing is dropped: the queue is empty, and ``may_send`` was asked."""
        self.take_head(records.head, now_ns)
        if not self.streaming:
            return
        allowed = self._limits.allow(records.ends, self._reserve_bytes, now_ns)
        rows = allowed.rows + allowed.beyond_rate
        self.counts.other_link += other_link
        if rows:
            self.connection.outbox.put(records.body[: int(records.ends[rows - 1])], rows)
        self._spend(records, rows)
        self.connection.flush(now_ns)
        if allowed.end:
            self.finish(allowed.end, now_ns)

    def may_send(self, now_ns: int) -> bool:
        """Whether its rate allows a further part of a recording."""
        return self._limits.tokens(now_ns) > 0

    def check(self, moment: Moment) -> None:
        """What time brings: the end, statistics, the news that the client is gone."""
        self._offset_ns = moment.offset_ns
        now_ns = moment.now_ns
        if self._end_ns is not None and now_ns >= self._end_ns:
            self.finish("duration", now_ns)
        elif now_ns >= self._next_statistics_ns and self.streaming:
            self._next_statistics_ns = now_ns + STATISTICS_NS
            if not self.connection.outbox:  # else it is slow, and gets them at its end
                self._put_statistics(now_ns)
                self.connection.flush(now_ns)
        self.connection.check(now_ns)
        if self.terms.interface is not None and not self.terms.recorded:
            self._check_interface(now_ns)

    def _check_interface(self, now_ns: int) -> None:
        """End the stream with the interface that it is of: another one may get its name, but not its packets. Before it
        was captured, it is waited for."""
        is_captured = self._channel.is_captured
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
        if self in self._channel.members:
            lost = dict(self._losses())
            self._losses = lambda: lost
            self._channel.members.remove(self)
            self._left(now_ns)

    def log_end(self, broken: str) -> None:
        """``broken``: why it is over, if it did not end by itself."""
        log.info("%s: %s: %s", self, broken or self._end_reason, self.stats().counts)

    def stats(self) -> ClientStats:
        """Now."""
        outbox = self.connection.outbox
        closed = self.connection.phase is Phase.CLOSED
        counts = StreamCounts(
            sent=outbox.sent_packets,
            bytes=outbox.sent_bytes,
            waiting=0 if closed else outbox.waiting_packets,
            not_sent=outbox.waiting_packets if closed else 0,
            lost=sum(self._losses().values()),
        )
        return ClientStats(str(self), counts + self.counts, outbox.held_bytes, outbox.most_held_bytes)

    @property
    def _reserve_bytes(self) -> int:
        """For the last statistics."""
        stream = self._channel.format
        return stream.statistics_bytes * len(stream.interfaces)

    def _queue(self, records: Records, wanted: int, now_ns: int) -> int:
        """Put the first ``wanted`` records into the queue, as many as fit; how many that are."""
        outbox, ends = self.connection.outbox, records.ends
        rows, begin = self._send_at_once(records, wanted, now_ns)
        self.counts.not_sent -= rows
        while rows < wanted and self.streaming:
            stop = _part(ends[:wanted], rows, begin, outbox.room)
            if stop > rows:
                end = int(ends[stop - 1])
                outbox.put(records.body[begin:end], stop - rows)  # all of it: no copy
                self.counts.not_sent -= stop - rows
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

    def _spend(self, records: Records, rows: int) -> None:
        """The first ``rows`` are in the stream."""
        if rows:
            self._limits.spend(int(records.ends[rows - 1]), rows)
            if self._channel.format.statistics_bytes:
                self._sent = add_places(self._sent, records.sources[:rows])

    def _put_statistics(self, now_ns: int) -> None:
        """Of the interfaces that have had packets, in the stream or lost; without any, the captured ones alone."""
        stream, lost = self._channel.format, self._losses()
        if not stream.statistics_bytes:
            return
        if self._limits.has_room(MAX_HEAD_BYTES):
            self._channel.introduce(lost, now_ns)
        counts = counts_by_place(stream.interfaces, self._sent, self._dropped, lost)
        self._put(stream.statistics(counts, self.since_ns + self._offset_ns, now_ns + self._offset_ns))


def _part(ends: Numbers, rows: int, begin: int, room: int) -> int:
    """Which records to put into the queue next, ``rows`` up to what is returned: all at once, or a part that fits."""
    if int(ends[-1]) - begin <= room:
        return len(ends)
    stop = int(ends.searchsorted(begin + min(room, PART_BYTES), side="right"))
    return rows + 1 if stop == rows and int(ends[rows]) - begin <= room else stop  # it may be longer than a part
