"""The spool of one collector: a folder of IPFIX files with the flows of an outage, and the progress of sending them.

    DIR/COLLECTOR/0000000001.ipfix   Messages, templates first: an IPFIX file (RFC 5655) by itself
    DIR/COLLECTOR/0000000001.index   the ends and counts of its Messages
    DIR/COLLECTOR/cursor             the next Message to send
    DIR/COLLECTOR/lock               held by the daemon that uses the folder

Nothing here knows sockets or encoders. Written files survive any end of the process. They are not forced to the disk,
so a power cut may cost the last seconds.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.base.errors import ExportError
from netobs.export.batch import Batch
from netobs.export.spool.disk import Counts
from netobs.export.spool.folder import Cursor, Folder
from netobs.export.spool.found import Templates, find
from netobs.export.spool.index import Entries
from netobs.export.spool.place import Unusable, check, never, trouble
from netobs.export.spool.segment import Damaged, Segment
from netobs.export.spool.store import Store
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally

log = logging.getLogger("netobs.export")

RETRY_NS = 60 * NS_PER_S
"""The pause after an error of the disk."""
_MAX_SEGMENT_BYTES = 16 << 20
_SEGMENTS = 16  # the space has at least this many segments, so that dropping the oldest loses little
_READ_FAILURES = 3  # failures in a row, a minute apart, before a segment is put aside


class Spool:
    """First in, first out, in ``directory``, of at most ``max_bytes``; a new segment replaces the oldest.

    ``stats`` counts everything that enters, and flows that leave unsent. An error of the disk is logged once, for
    ``name``; until the next attempt, a minute later, the caller keeps its flows.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        templates: Templates,
        stats: Counts,
        name: str,
        begin_at: tuple[int, int] = (0, 0),
    ) -> None:
        """``begin_at``: number of the segment and of the Message to be read first; segment 0: as the folder says.

        Raises ExportError if another process uses ``directory``.
        """
        self.directory = directory
        self.segment_bytes = min(_MAX_SEGMENT_BYTES, max_bytes // _SEGMENTS)
        self._templates = templates
        self._stats = stats
        self._name = name
        self._begin_at = begin_at
        self._folder = Folder(directory, name)
        self._store = Store(self._folder, max_bytes, stats, name)
        self._said = ""
        self._retry_write_ns = self._retry_read_ns = 0

    def open(self, now_ns: int) -> bool:
        """Take over the files of an earlier run, unless that is done. Returns whether the folder is usable.

        Raises ExportError if another process uses it, or if it can never be used.
        """
        if self._folder.is_open:
            return True
        if now_ns < self._retry_write_ns:
            return False
        try:
            check(self.directory)
            cursor = self._folder.open()
            if self._begin_at[0]:
                cursor, self._begin_at = Cursor(*self._begin_at), (0, 0)
            try:
                self._store.take_over(find(self._folder, cursor, self._templates))
            except BaseException:
                self._folder.close()
                raise
        except Unusable as error:
            raise never(error, self._name) from error
        except OSError as error:
            self._fail(error, now_ns)
            return False
        return True

    @property
    def used_bytes(self) -> int:
        """All files with Messages, those aside too."""
        return self._store.used_bytes

    def __bool__(self) -> bool:
        """Whether there is anything to read."""
        return any(segment.unread for segment in self._store.segments)

    def begin(self, templates: Callable[[], Sequence[bytes]], now_ns: int) -> int | None:
        """Prepare for ``append``; returns the first Sequence Number, or None if nothing can be written now.

        ``templates`` returns the Messages at the start of a new segment.
        """
        try:
            self._store.notice_removal()
            if now_ns < self._retry_write_ns or not self.open(now_ns):
                return None
        except ExportError as error:  # another process was faster while the folder could not be used
            self._retry_write_ns = now_ns + RETRY_NS
            self._say(str(error))
            return None
        if self._store.writer is not None and self._store.writer.data_bytes >= self.segment_bytes:
            self._store.end_writer()
        if self._store.writer is None:
            try:
                self._store.writer = Segment.create(self._folder, self._store.last_number + 1, templates())
                self._store.writer.sets = self._templates.sets
            except OSError as error:
                self._fail(error, now_ns)
                return None
            self._store.last_number += 1
            self._store.segments.append(self._store.writer)
        return self._store.writer.flows & 0xFFFF_FFFF

    @property
    def write_at(self) -> tuple[int, int]:
        """After ``begin``: number of the segment and of the Message that ``append`` writes next."""
        assert self._store.writer is not None
        return self._store.writer.number, self._store.writer.messages

    def flows_from(self, number: int, message: int) -> int:
        """Flows in the segment with this ``number`` from ``message`` on; 0 if it is not there, or cannot be read."""
        found = [segment for segment in self._store.segments if segment.number == number]
        with contextlib.suppress(OSError, Damaged):
            return sum(segment.entries(message, segment.messages).tally().flows for segment in found)
        return 0

    def append(self, block: MessageBlock, now_ns: int) -> bool:
        """Write queued Messages; False if that fails, and they stay queued."""
        if self._store.writer is None:
            return False
        self._store.make_room(len(block.buffer))
        try:
            self._store.writer.append(block)
        except OSError as error:
            self._fail(error, now_ns)
            if self._store.writer.flows:
                self._store.end_writer()
            else:
                self._store.remove(self._store.writer)
            return False
        tally = Tally.of_messages(block, 0, len(block))
        self._store.writer.left += tally
        self._stats.spool(tally)
        if self._said:
            self._said = ""
            log.info("%s: spool %s takes flows again", self._name, self.directory)
        return True

    def own_templates(self, batch: Batch) -> tuple[bytes, bytes] | None:
        """The Template Messages that ``batch`` was written with, and their sets (see ``sets_of``).

        None if these are the collector's own Templates.
        """
        segment = self._store.find(batch.serial)
        if segment is None or segment.sets == self._templates.sets:
            return None
        try:
            return segment.template_messages(), segment.sets
        except (OSError, Damaged):  # the next ``read`` says so
            return None

    def _next(self) -> Segment | None:
        return next((segment for segment in self._store.segments if segment.unread), None)

    def read(self, max_bytes: int, now_ns: int) -> tuple[Batch, Entries, bytearray] | None:
        """The next Messages, of one segment, about ``max_bytes``; None if there are none, or none can be read now.

        Damaged ones are counted, and left out.
        """
        self._store.notice_removal()
        while now_ns >= self._retry_read_ns:
            segment = self._next()
            if segment is None:
                return None
            try:
                found, data, sound = segment.read(max_bytes)
            except (Damaged, FileNotFoundError):
                self._store.give_up(segment, "damaged")
                continue
            except OSError as error:
                self._fail_to_read(segment, error, now_ns)
                continue
            segment.failures = 0
            count = int(np.argmin(sound == sound[0])) or len(sound)
            found, start = Entries(found.entries[:count], found.begin), segment.position
            segment.position += count
            if not sound[0]:
                self._store.pass_over(segment, found, start)
                continue
            segment.left -= found.tally()
            segment.sent_to = segment.position
            del data[int(found.ends[-1]) :]
            return Batch(segment.serial, segment.number, start, segment.position), found, data
        return None

    @property
    def retry_read_ns(self) -> int:
        """The time of the next ``read`` after an error."""
        return self._retry_read_ns

    @property
    def retry_write_ns(self) -> int:
        """When ``begin`` may succeed again after an error."""
        return self._retry_write_ns

    def hand_over(self, batch: Batch) -> None:
        """The kernel has accepted ``batch``: another run of the daemon must continue after it."""
        self._set_cursor(batch.serial, batch.stop)

    def put_back(self, batch: Batch, tally: Tally) -> None:
        """The unsent ``batch``, with ``tally``, must be read again, or is counted if its file is gone."""
        segment = self._store.find(batch.serial)
        if segment is None:
            self._stats.count_not_sent(self._store.why_gone(batch.serial), tally, spooled=True)
            return
        segment.position = min(segment.position, batch.start)
        segment.left += tally

    def rewind(self, batch: Batch, tally: Tally) -> None:
        """As ``put_back``, where the kernel has taken ``batch``: another run of the daemon is to begin with it."""
        self.put_back(batch, tally)
        self._set_cursor(batch.serial, batch.start)

    def release(self, batch: Batch) -> None:
        """``batch`` seems to have arrived. A segment is deleted when all of it has arrived."""
        segment = self._store.find(batch.serial)
        if segment is not None:
            segment.arrived_to = batch.stop
            self._store.retire(segment)

    def close(self) -> None:
        """Free the descriptors and the lock."""
        self._store.end_writer()
        for segment in self._store.segments:
            segment.close()
        self._folder.close()

    def _set_cursor(self, serial: int, message: int) -> None:
        segment = self._store.find(serial)
        if segment is not None:
            with contextlib.suppress(OSError, Damaged):  # the next run then sends more of it again
                self._folder.set_cursor(segment.number, message, segment.offset(message))

    def _fail_to_read(self, segment: Segment, error: OSError, now_ns: int) -> None:
        """Retry a few times; after that, the segment does not hold up the others any longer."""
        segment.failures += 1
        if segment.failures >= _READ_FAILURES:
            self._store.give_up(segment, "damaged")
            return
        self._retry_read_ns = now_ns + RETRY_NS
        self._say(f"{error.filename or self._folder.path(segment.name)}: {error.strerror}; what is in it is read later")

    def _fail(self, error: OSError, now_ns: int) -> None:
        self._retry_write_ns = now_ns + RETRY_NS
        self._say(trouble(error, self.directory))

    def _say(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            log.warning("%s: %s", self._name, problem)
