"""The spool of one collector: a folder of IPFIX files with the flows of an outage, and how far they were sent since.

    DIR/COLLECTOR/0000000001.ipfix   Messages, templates first: an IPFIX file (RFC 5655) by itself
    DIR/COLLECTOR/0000000001.index   what each of its Messages carries
    DIR/COLLECTOR/cursor             the next Message to send
    DIR/COLLECTOR/lock               held by the daemon that uses the folder

Nothing here knows of sockets or encoders. What the process has written survives it, however it ends; nothing is forced
to the disk, so that a power cut may cost the last seconds.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from netobs.clock import NS_PER_S
from netobs.errors import ExportError
from netobs.export.spool_folder import Folder, file_bytes
from netobs.export.spool_segment import Damaged, Entries, Segment, paths_aside, segment_paths
from netobs.export.stats import ExportStats, Tally
from netobs.records import MessageBlock

log = logging.getLogger("netobs.export")

RETRY_NS = 60 * NS_PER_S
"""The pause after an error of the disk."""
_MAX_SEGMENT_BYTES = 16 << 20
_SEGMENTS = 16  # at least so many share the space, so that little is lost when the oldest is dropped
_REASONS = {
    "other-template": "has other templates than the collector gets now",
    "too-large": "has Messages that are longer than max_message_size",
    "damaged": "is damaged",
}


class Batch(NamedTuple):
    """The Messages ``start`` to ``stop`` of the segment ``number``."""

    number: int
    start: int
    stop: int

    def part(self, start: int, stop: int) -> Batch:
        """Its Messages ``start`` to ``stop``."""
        return Batch(self.number, self.start + start, self.start + stop)


class Templates(NamedTuple):
    """What can be replayed: segments with these ``sets`` (see ``sets_of``), and Messages up to ``max_message_size``."""

    sets: bytes
    max_message_size: int


class Spool:
    """First in, first out, in ``directory``, of at most ``max_bytes``; the oldest segment gives way to a new one.

    ``stats`` learns of everything that enters, and of what leaves without having been sent. An error of the disk is
    logged once as one of ``name``'s; until the next attempt, a minute later, the caller keeps what it has.
    """

    def __init__(self, directory: Path, max_bytes: int, templates: Templates, stats: ExportStats, name: str) -> None:
        """Raises ExportError if another process uses ``directory``."""
        self.directory = directory
        self.segment_bytes = min(_MAX_SEGMENT_BYTES, max_bytes // _SEGMENTS)
        self._max_bytes = max_bytes
        self._templates = templates
        self._stats = stats
        self._name = name
        self._folder = Folder(directory, name)
        self._segments: list[Segment] = []  # oldest first
        self._aside: list[Path] = []
        self._writer: Segment | None = None  # the last of them, if it takes more
        self._position = Batch(0, 0, 0)  # what was read last: the next Message is its ``stop``
        self._last_number = 0
        self._said = ""
        self._retry_write_ns = self._retry_read_ns = 0

    def open(self, now_ns: int) -> bool:
        """Take over what an earlier run left, unless that is done. Whether the folder can be used.

        Raises ExportError if another process uses it.
        """
        if self._folder.is_open:
            return True
        if now_ns < self._retry_write_ns:
            return False
        try:
            cursor = self._folder.open()
            try:
                self._take_over(Batch(cursor[0], cursor[1], cursor[1]))
            except BaseException:
                self._folder.close()
                raise
        except OSError as error:
            self._fail(error, now_ns)
            return False
        return True

    @property
    def used_bytes(self) -> int:
        """All files with Messages, those aside too."""
        return sum(segment.size for segment in self._segments) + sum(map(file_bytes, self._aside))

    def __bool__(self) -> bool:
        """Whether there is anything to read."""
        return any(segment.left.flows for segment in self._segments)

    def begin(self, templates: Callable[[], Sequence[bytes]], now_ns: int) -> int | None:
        """Get ready for ``append``; the Sequence Number to begin with, or None if nothing can be written now.

        ``templates`` gives the Messages that a new segment begins with.
        """
        try:
            if now_ns < self._retry_write_ns or not self.open(now_ns):
                return None
        except ExportError as error:  # another process was faster while the folder could not be used
            self._retry_write_ns = now_ns + RETRY_NS
            self._say(str(error))
            return None
        if self._writer is not None and self._writer.data_bytes >= self.segment_bytes:
            self._end_segment()
        if self._writer is None:
            try:
                self._writer = Segment.create(self.directory, self._last_number + 1, templates())
            except OSError as error:
                self._fail(error, now_ns)
                return None
            self._last_number += 1
            self._segments.append(self._writer)
        return self._writer.flows & 0xFFFF_FFFF

    def append(self, block: MessageBlock, now_ns: int) -> bool:
        """Write Messages that were queued until now; False if that cannot be: they are still queued then."""
        if self._writer is None:
            return False
        self._make_room(len(block.buffer))
        try:
            self._writer.append(block)
        except OSError as error:
            self._fail(error, now_ns)
            if self._writer.flows:
                self._end_segment()
            else:
                self._remove(self._writer)
            return False
        tally = Tally.of_messages(block, 0, len(block))
        self._writer.left += tally
        self._stats.spool(tally)
        if self._said:
            self._said = ""
            log.info("%s: spool %s takes flows again", self._name, self.directory)
        return True

    def read(self, max_bytes: int, now_ns: int) -> tuple[Batch, Entries, bytearray] | None:
        """The next Messages, of one segment, about ``max_bytes``; None if there are none, or none can be read now."""
        while now_ns >= self._retry_read_ns:
            segment = next((segment for segment in self._segments if segment.left.flows), None)
            if segment is None:
                return None
            here = segment.number == self._position.number
            start = max(segment.templates, self._position.stop if here else 0)
            try:
                found, data = segment.read(start, max_bytes)
            except Damaged:
                self._give_up(segment, "damaged")
                continue
            except OSError as error:
                self._retry_read_ns = now_ns + RETRY_NS
                self._say(f"{segment.path}: {error.strerror}; what is in it is read later")
                return None
            segment.left -= found.tally()
            self._position = Batch(segment.number, start, start + len(found.entries))
            return self._position, found, data
        return None

    @property
    def retry_read_ns(self) -> int:
        """When ``read`` may succeed again after an error."""
        return self._retry_read_ns

    def hand_over(self, batch: Batch) -> None:
        """The kernel has taken ``batch``: another run of the daemon is to go on behind it."""
        self._folder.set_cursor(batch.number, batch.stop)

    def rewind(self, batch: Batch, tally: Tally) -> bool:
        """``batch``, with ``tally``, and all behind it is to be read again. False if it was dropped in the meantime."""
        segment = self._find(batch.number)
        if segment is None:
            return False
        self._position = Batch(batch.number, batch.start, batch.start)
        segment.left += tally
        self.hand_over(self._position)
        return True

    def release(self, batch: Batch) -> None:
        """``batch`` has arrived, as far as anybody knows. A segment of which all has arrived is deleted."""
        segment = self._find(batch.number)
        if segment is not None and batch.stop == segment.messages:
            self._remove(segment)

    def close(self) -> None:
        """Free the descriptors and the lock."""
        self._end_segment()
        for segment in self._segments:
            segment.close()
        self._folder.close()

    def _take_over(self, cursor: Batch) -> None:
        """Read what is there. Raises OSError."""
        self._position = cursor
        self._aside = paths_aside(self.directory)
        paths = segment_paths(self.directory)
        numbers = [int(path.name.partition(".")[0]) for path in (*paths, *self._aside)]
        self._last_number = max([cursor.number, *numbers])
        found = [self._recover(path) for path in paths]
        self._segments = [segment for segment, _ in found]
        taken_over = sum((segment.left for segment in self._segments), Tally())
        self._stats.take_over(taken_over)
        if taken_over.flows:
            log.info("%s: %d flows of an earlier run wait in %s", self._name, taken_over.flows, self.directory)
        for segment, why in found:
            if why or not segment.left.flows:
                self._give_up(segment, why)

    def _recover(self, path: Path) -> tuple[Segment, str]:
        """The segment at ``path``, and why it cannot be sent if it cannot. Raises OSError."""
        try:
            segment = Segment.recover(path)
            if segment.number < self._position.number:
                return segment, ""  # it is through
            start = self._position.stop if segment.number == self._position.number else 0
            segment.left = segment.entries(max(start, segment.templates), segment.messages).tally()
            same = not segment.left.flows or segment.template_sets() == self._templates.sets
            small = segment.largest_message() <= self._templates.max_message_size
        except Damaged:
            return Segment(path), "damaged"  # what it carries, its index does not tell
        if not same:
            return segment, "other-template"
        return segment, "" if small else "too-large"

    def _give_up(self, segment: Segment, why: str) -> None:
        """Leave ``segment`` out: it is through, or ``why`` it cannot be sent. Then it is kept, for people to read."""
        if not why:
            self._remove(segment)
            return
        self._segments.remove(segment)
        self._stats.count_not_sent(why.replace("-", "_"), segment.left, spooled=True)
        try:
            kept = segment.set_aside(why)
        except OSError as error:
            log.warning("%s: spool %s cannot be renamed: %s", self._name, segment.path, error.strerror)
            return
        self._aside.append(kept)
        log.warning("%s: %d flows are not sent: %s, %s; `netobs listen --file %s` or ipfixDump reads them", self._name,
                    segment.left.flows, segment.path, _REASONS[why], kept)  # fmt: skip

    def _end_segment(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _make_room(self, needed: int) -> None:
        """Drop the oldest until ``needed`` bytes more are within the limit; first what is aside, and counted."""
        excess = self.used_bytes + needed - self._max_bytes
        while excess > 0 and self._aside:
            path = self._aside.pop(0)
            excess -= file_bytes(path)
            with contextlib.suppress(OSError):
                path.unlink()
        while excess > 0 and self._segments[0] is not self._writer:
            oldest = self._segments[0]
            excess -= oldest.size
            self._stats.count_not_sent("spool_full", oldest.left, spooled=True)
            self._remove(oldest)

    def _remove(self, segment: Segment) -> None:
        if segment is self._writer:
            self._writer = None
        self._segments.remove(segment)
        with contextlib.suppress(OSError):  # the cursor is behind it: the next run does not read it again
            segment.delete()

    def _find(self, number: int) -> Segment | None:
        return next((segment for segment in self._segments if segment.number == number), None)

    def _fail(self, error: OSError, now_ns: int) -> None:
        self._retry_write_ns = now_ns + RETRY_NS
        if not self._segments and not self.directory.is_dir():
            self._folder.close()  # somebody has taken it away: to be made again
        where = error.filename or self.directory
        self._say(f"spool {where}: {error.strerror}; flows wait in memory, and the spool is tried again each minute")

    def _say(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            log.warning("%s: %s", self._name, problem)
