"""Moves flows from the queue into the spool while the collector is down, and sends them, paced, when it is back.

All disk access runs in the spool's thread (``netobs.export.spool.disk``). The loop gives it one part of the queue at a
time, and lets it read a few batches ahead. So a disk that hangs costs the loop no time, and memory for these only.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Generic, NamedTuple, TypeVar

from netobs.base.clock import NS_PER_S
from netobs.base.errors import ExportError
from netobs.base.ipfix import MAX_MESSAGE_BYTES
from netobs.base.loop import EventLoop
from netobs.export.batch import Batch
from netobs.export.keeping import KeptSpool
from netobs.export.protocol import D, Encoder, H
from netobs.export.queue import DataSetQueue, Part
from netobs.export.spool.blocks import messages_block, templates_block
from netobs.export.spool.disk import Disk
from netobs.export.spool.found import Templates
from netobs.export.spool.index import Entries
from netobs.export.spool.place import folder_of
from netobs.export.spool.segment import sets_of
from netobs.export.spool.spool import Spool
from netobs.export.stats import ExportStats
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

log = logging.getLogger("netobs.export")
T = TypeVar("T")

_PART_BYTES = 524_288
_BATCH_BYTES = 65_536
_AHEAD = 8
"""Batches that are read at a time. The next are read when half of them are sent."""
_CATCH_UP_NS = 50_000_000
"""A busy loop may send this much of its delay at once."""
STORE_WITHIN_NS = NS_PER_S
"""How long flows may wait for the disk before they count against ``queue_max_bytes``."""
SLOW_NS = 10 * NS_PER_S
"""A disk that does not answer for this long is logged."""


class _Read(NamedTuple):
    """A read batch; ``templates`` as from ``Spool.own_templates``."""

    templates: tuple[bytes, bytes] | None
    batch: Batch
    messages: Entries
    data: bytearray


class Replay(Generic[H, D]):
    """The spool of the collector of ``config``, filled from ``queue``.

    ``wake`` is called in the loop when something was written or read. Messages with other Templates are sent after
    these Templates: once in a Transport Session, over UDP before each batch.
    """

    def __init__(
        self,
        config: CollectorConfig,
        encoder: Encoder[H, D],
        new_header: Callable[[int, int, int, int], H],
        queue: DataSetQueue[D],
        message_size: int,
        stats: ExportStats,
        loop: EventLoop,
        wake: Callable[[int], None],
        start_within_s: float,
        kept: KeptSpool[D] | None = None,
    ) -> None:
        """``message_size``: the longest Message for the collector. Takes over the files of an earlier run.

        The disk gets ``start_within_s`` to answer, then the start continues without it. ``kept``: what outlives the
        process.

        Raises ExportError if another process uses the spool, or if it can never be used.
        """
        self.next_ns = 0
        """When the next Messages may be sent."""
        self._config = config
        self._encoder = encoder
        self._new_header = new_header
        self._queue = queue
        self._wake = wake
        self._name = f'collector "{config.name}"'
        self._stats = stats
        self._kept = kept
        self._disk = Disk(loop, stats)
        self._spool = self._make_spool(message_size)
        self._part_bytes = min(_PART_BYTES, self._spool.segment_bytes // 2)
        self._announced: set[bytes] = set()  # Templates of other runs that the collector knows
        self._writing: Part[D] | None = None  # what the thread has
        self._retry_write_ns = 0
        self._busy = False  # whether part after part is being written
        self._busy_since_ns = 0
        self._unread = False  # whether there is something to read in the files
        self._reading = False
        self._stale = False  # whether the present read must be repeated, after something older
        self._ready: deque[_Read] = deque()  # read, and not sent
        self._slow = False
        self._ended = False
        self._errors: list[ExportError] = []  # of the start
        self._started = False
        doubtful = kept.doubtful if kept is not None else None
        self._writing = doubtful[0] if doubtful is not None else None
        self._submit(self._open, self._on_open, 0)
        self._disk.wait(start_within_s, 0)
        self._started = True
        for error in self._errors:
            self._disk.end()
            raise error

    @property
    def used_bytes(self) -> int:
        """The size of the files, as the disk's thread has left it."""
        return self._spool.used_bytes

    def _make_spool(self, message_size: int) -> Spool:
        config = self._config
        messages = self._encoder.template_messages(self._header(0, 0), message_size)
        longest = config.max_message_size if config.transport == "udp" else MAX_MESSAGE_BYTES
        templates = Templates(sets_of(b"".join(messages)), longest)
        directory = folder_of(config.spool, config.name)
        begin_at = self._kept.spool_place if self._kept is not None else (0, 0)
        return Spool(directory, config.spool_max_bytes, templates, self._disk.counts, self._name, begin_at)

    # The thread's.

    def _open(self) -> tuple[int, ExportError | None]:
        """How many of the rows that a former process was about to write are written; and the error."""
        try:
            self._spool.open(0)
        except ExportError as error:
            return 0, error
        doubtful = self._kept.doubtful if self._kept is not None else None
        return self._spool.flows_from(doubtful[1].segment, doubtful[1].message) if doubtful is not None else 0, None

    def _write(self, part: Part[D], export_time_s: int, message_size: int, now_ns: int) -> int:
        """0 if it is done, else when to try again."""
        sequence = self._spool.begin(
            lambda: self._encoder.template_messages(self._header(export_time_s, 0), message_size), now_ns
        )
        if sequence is None:
            return self._spool.retry_write_ns
        if self._kept is not None:
            self._kept.begin_spooling(part, *self._spool.write_at)
        block = self._encoder.data_messages(part.data_set, self._header(export_time_s, sequence), message_size)
        return 0 if self._spool.append(block, now_ns) else self._spool.retry_write_ns

    def _read(self, now_ns: int) -> tuple[list[_Read], int]:
        """Some batches; if there are none, when to try again."""
        read: list[_Read] = []
        while len(read) < _AHEAD and (found := self._spool.read(_BATCH_BYTES, now_ns)) is not None:
            read.append(_Read(self._spool.own_templates(found[0]), *found))
        return read, self._spool.retry_read_ns

    # The loop's.

    def __bool__(self) -> bool:
        """Whether there is anything to send."""
        return self._unread or self._reading or bool(self._ready)

    @property
    def due_ns(self) -> int | None:
        """When ``load`` has something, if no ``wake`` comes before."""
        return self.next_ns if self._ready or (self._unread and not self._reading) else None

    @property
    def writing_bytes(self) -> int:
        """Memory of what is being written."""
        return self._writing.bytes if self._writing is not None else 0

    def overdue_ns(self, now_ns: int) -> int:
        """Rows that have waited since this time or longer should be written by now, and count against the queue.

        If nothing can be written, all rows count. A disk that has just started gets a moment for its backlog.
        """
        if self._ended or now_ns < self._retry_write_ns:
            return sys.maxsize
        return now_ns - STORE_WITHIN_NS if now_ns - self._busy_since_ns >= STORE_WITHIN_NS else -1

    def take_in(self, export_time_s: int, message_size: int, now_ns: int) -> bool:
        """Give the next part of the queue to the disk, unless it has one. Returns whether it has one now."""
        if self._writing is None and self._queue and not self._ended and now_ns >= self._retry_write_ns:
            if not self._busy:
                self._busy, self._busy_since_ns = True, now_ns
            self._writing = part = self._queue.take(self._part_bytes)
            self._submit(lambda: self._write(part, export_time_s, message_size, now_ns), self._on_written, now_ns)
        self._watch(now_ns)
        return self._writing is not None

    def load(self, header: H, now_ns: int) -> tuple[MessageBlock, Batch | None] | None:
        """The next Messages, with headers from ``header`` on, if they are due and were read.

        Without a Batch: Templates of another run.
        """
        self._watch(now_ns)
        if now_ns < self.next_ns:
            return None
        if len(self._ready) <= _AHEAD // 2:
            self._read_ahead(now_ns)
        if not self._ready:
            return None
        templates, batch, messages, data = self._ready[0]
        if templates is not None and templates[1] not in self._announced:
            self._announced.add(templates[1])
            return templates_block(templates[0], header), None
        if self._config.transport == "udp":
            self._announced.clear()  # a collector that restarted knows them again with the next batch
        self._ready.popleft()
        pause_ns = len(data) * NS_PER_S // self._config.spool_rate_bytes
        self.next_ns = max(self.next_ns, now_ns - _CATCH_UP_NS) + pause_ns
        return messages_block(messages, data, header), batch

    def forget_templates(self) -> None:
        """Forget that the collector was sent Templates of other runs."""
        self._announced.clear()

    def hand_over(self, batch: Batch, certain: bool, now_ns: int) -> None:
        """The kernel has accepted ``batch``; ``certain``: no acknowledgement will follow."""

        def work() -> None:
            self._spool.hand_over(batch)
            if certain:
                self._spool.release(batch)

        self._submit(work, _nothing, now_ns)

    def take_back(self, batch: Batch, tally: Tally, now_ns: int) -> None:
        """``batch``, with ``tally``, waits again, or is counted if it was dropped in the meantime."""
        self._stale = self._reading
        self._put_back_ready(now_ns)
        self._submit(lambda: self._spool.rewind(batch, tally), self._on_news, now_ns)

    def release(self, batches: Sequence[Batch], now_ns: int) -> None:
        """``batches`` have arrived."""

        def work() -> None:
            for batch in batches:
                self._spool.release(batch)

        if batches:
            self._submit(work, _nothing, now_ns)

    def end(self, done: Callable[[int], None], now_ns: int) -> None:
        """Stops reading and writing; ``done`` is called when the folder is free."""
        if self._ended:
            return
        self._ended = True
        self._disk.submit(self._spool.close, lambda _none, later_ns: done(later_ns), now_ns)
        self._disk.end()

    def give_up(self) -> Part[D] | None:
        """As ``end``, for a disk that does not answer. Returns the flows that it may or may not have written."""
        self._ended = True
        self._disk.abandon(self._spool.close)
        writing, self._writing = self._writing, None
        return writing

    def _submit(self, work: Callable[[], T], done: Callable[[T, int], None], now_ns: int) -> None:
        def job() -> tuple[T, bool]:
            return work(), bool(self._spool)

        def finished(result: tuple[T, bool], later_ns: int) -> None:
            self._unread = result[1]
            done(result[0], later_ns)

        self._disk.submit(job, finished, now_ns)

    def _on_open(self, result: tuple[int, ExportError | None], now_ns: int) -> None:
        """An error that comes too late for the start will occur again at the next write."""
        written, error = result
        if self._writing is not None and self._kept is not None:  # of the former process
            part, self._writing = self._writing, None
            there = part.slice(0, min(written, len(part)))
            tally = Tally.of(there.data_set)
            self._stats.queued -= tally  # the spool has counted it too
            self._stats.taken_over -= tally
            self._kept.end_spooling(there if len(there) else None)
            self._queue.put_back(part.slice(len(there), len(part)))
        self._errors += [error] if error is not None else []
        if self._started:
            self._wake(now_ns)

    def _on_written(self, retry_ns: int, now_ns: int) -> None:
        assert self._writing is not None
        if self._kept is not None:
            self._kept.end_spooling(None if retry_ns else self._writing)
        if retry_ns:
            self._queue.put_back(self._writing)
            self._retry_write_ns = retry_ns
        self._writing = None
        self._busy = bool(self._queue) and not retry_ns
        self._on_news(None, now_ns)

    def _read_ahead(self, now_ns: int) -> None:
        if self._unread and not self._reading and not self._ended:
            self._reading = True
            self._submit(lambda: self._read(now_ns), self._on_read, now_ns)

    def _on_read(self, found: tuple[list[_Read], int], now_ns: int) -> None:
        self._reading = False
        read, retry_ns = found
        self._ready += read
        if not read:
            self.next_ns = max(self.next_ns, retry_ns)
        if self._stale:
            self._stale = False
            self._put_back_ready(now_ns)
        self._on_news(None, now_ns)

    def _put_back_ready(self, now_ns: int) -> None:
        """The newest first: the position of a segment goes back to the oldest."""
        while self._ready:
            _, batch, messages, _ = self._ready.pop()
            self._submit(functools.partial(self._spool.put_back, batch, messages.tally()), self._on_news, now_ns)

    def _on_news(self, _result: None, now_ns: int) -> None:
        if self._slow:
            self._slow = False
            log.info("%s: spool %s: the disk answers again", self._name, self._spool.directory)
        self._wake(now_ns)

    def _watch(self, now_ns: int) -> None:
        if not self._slow and self._disk.waited_ns(now_ns) >= SLOW_NS:
            self._slow = True
            log.warning("%s: spool %s: the disk has not answered for %d s; flows wait in memory", self._name,
                        self._spool.directory, SLOW_NS // NS_PER_S)  # fmt: skip

    def _header(self, export_time_s: int, sequence: int) -> H:
        return self._new_header(export_time_s, sequence, self._config.observation_domain, 0)


def _nothing(_result: None, _now_ns: int) -> None:
    """It was done, and that is all."""
