"""The segments of a spool: creates and removes them, and logs and counts unsent ones."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from netobs.export.spool.disk import Counts
from netobs.export.spool.folder import Folder
from netobs.export.spool.found import Found
from netobs.export.spool.index import Entries
from netobs.export.spool.segment import Segment
from netobs.flow.tally import Tally

log = logging.getLogger("netobs.export")

REASONS = {
    "other-template": "has templates with other elements than the collector gets now",
    "too-large": "has Messages that are longer than max_message_size",
    "damaged": "is damaged",
}
"""Reasons to put a file aside. They end its new name, and its flows count as not sent for the reason, "_" for "-"."""
_REMEMBERED = 1000  # segments that are gone


class Store:
    """``segments``, oldest first, in ``folder``: at most ``max_bytes``. ``writer`` is the last, if it accepts more.

    ``stats`` counts flows that leave unsent; log lines start with ``name``.
    """

    def __init__(self, folder: Folder, max_bytes: int, stats: Counts, name: str) -> None:
        self.segments: list[Segment] = []
        self.writer: Segment | None = None
        self.last_number = 0
        self._folder = folder
        self._max_bytes = max_bytes
        self._stats = stats
        self._name = name
        self._aside: dict[str, int] = {}  # names and bytes, oldest first
        self._gone: dict[int, str] = {}  # why segments were removed

    @property
    def used_bytes(self) -> int:
        """All files with Messages, those aside too."""
        return sum(segment.size for segment in self.segments[:]) + sum([*self._aside.values()])  # another thread's

    def find(self, serial: int) -> Segment | None:
        """The segment with this serial number, if it is still there."""
        return next((segment for segment in self.segments if segment.serial == serial), None)

    def why_gone(self, serial: int) -> str:
        """Why the partly unsent segment with this serial number was removed."""
        return self._gone.get(serial, "spool_full")

    def take_over(self, found: Found) -> None:
        """Makes the segments of an earlier run readable, and counts its losses."""
        self.last_number = max(self.last_number, found.last_number)
        self._aside = {name: self._folder.size(name) for name in found.aside}
        self.segments = [each.segment for each in found.segments]
        taken_over = sum((each.segment.left + each.loss.tally for each in found.segments), Tally())
        self._stats.take_over(taken_over)
        if not found.cursor_fits:
            log.warning("%s: spool %s does not fit the files beside it: all of them are sent, some flows perhaps for "
                        "the second time", self._name, self._folder.path("cursor"))  # fmt: skip
        if taken_over.flows:
            log.info("%s: %d flows of an earlier run wait in %s", self._name, taken_over.flows, self._folder.directory)
        for segment, loss, why in found.segments:
            if why and not loss.unknown:
                self.give_up(segment, why, loss.tally)
                continue
            if loss.tally.flows or loss.unknown:
                self._stats.count_not_sent("damaged", loss.tally, spooled=True)
                self._say_lost(segment, loss.unknown or "is damaged: part of it is missing",
                               "an unknown number of" if loss.unknown else loss.tally.flows)  # fmt: skip
            if why:
                self.give_up(segment, why)
            else:
                self.retire(segment)

    def make_room(self, needed: int) -> None:
        """Drop the oldest until ``needed`` more bytes fit the limit, files put aside first; counts them."""
        excess = self.used_bytes + needed - self._max_bytes
        while excess > 0 and self._aside:
            name = next(iter(self._aside))
            excess -= self._aside.pop(name)
            with contextlib.suppress(OSError):
                self._folder.unlink(name)
        while excess > 0 and self.segments[0] is not self.writer:
            oldest = self.segments[0]
            excess -= oldest.size
            self._stats.count_not_sent("spool_full", oldest.left, spooled=True)
            self.remove(oldest)

    def pass_over(self, segment: Segment, found: Entries, start: int) -> None:
        """The Messages of ``found``, from the number ``start`` on, are damaged."""
        numbers = range(start, start + len(found.entries))
        fresh = [number not in segment.bad for number in numbers]
        lost = Entries(found.entries[fresh], 0).tally().within(segment.left)
        segment.bad.update(numbers)
        segment.left -= lost
        self._stats.count_not_sent("damaged", lost, spooled=True)
        if not segment.keep:
            self._say_lost(segment, "is damaged; what else is in it is sent", lost.flows)
        segment.keep = "damaged"
        self.retire(segment)

    def retire(self, segment: Segment) -> None:
        """Delete ``segment`` if it is finished, or put it aside if a part was not sent."""
        if segment.unread or segment.arrived_to < segment.sent_to:
            return
        if segment.left != Tally():
            self.give_up(segment, "damaged")
        elif segment.keep:
            self._put_aside(segment, segment.keep, "is sent, except for its damaged part")
        else:
            self.remove(segment)

    def give_up(self, segment: Segment, why: str, more: Tally | None = None) -> None:
        """Put ``segment`` aside for the operator. Its rest, and ``more``, count as not sent."""
        lost = segment.left + (more or Tally())
        self._stats.count_not_sent(why.replace("-", "_"), lost, spooled=True)
        self._put_aside(segment, why, REASONS[why], lost.flows)

    def remove(self, segment: Segment) -> None:
        """Delete it: it is finished, or the oldest of too many."""
        self._forget(segment, "spool_full")
        with contextlib.suppress(OSError):  # the cursor is after it: the next run does not read it again
            segment.delete()

    def notice_removal(self) -> None:
        """Checks whether somebody has removed or replaced the folder, or removed some of its files."""
        if not self._folder.is_open:
            return
        if not self._folder.is_there():
            lost = self._lose(self.segments)
            self._folder.close()
            self._aside = {}
            self._say_removed(lost, f"spool {self._folder.directory} was removed or replaced; it is made again")
        elif self._folder.has_changed():
            gone = [segment for segment in self.segments if not segment.is_there()]
            if gone:
                names = ", ".join(segment.name for segment in gone[:3]) + (", ..." if gone[3:] else "")
                self._say_removed(self._lose(gone), f"files were removed from spool {self._folder.directory}: {names}")

    def _lose(self, gone: Iterable[Segment]) -> Tally:
        lost = Tally()
        for segment in list(gone):
            lost += segment.left
            self._stats.count_not_sent("removed", segment.left, spooled=True)
            self._forget(segment, "removed")
            segment.close()
        return lost

    def end_writer(self) -> None:
        """The next Messages go to a new segment."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _forget(self, segment: Segment, why: str) -> None:
        if segment is self.writer:
            self.writer = None
        self.segments.remove(segment)
        self._gone[segment.serial] = why
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _put_aside(self, segment: Segment, why: str, words: str, lost: int = 0) -> None:
        self._forget(segment, why.replace("-", "_"))
        try:
            kept = self._folder.path(segment.set_aside(why))
        except OSError as error:
            path = self._folder.path(segment.name)
            log.warning("%s: spool %s cannot be renamed: %s", self._name, path, error.strerror)
            return
        size = self._folder.size(kept.name)
        if size:
            self._aside[kept.name] = size
            words += f"; `netobs listen --file {kept}` or ipfixDump reads it"
        elif not lost:
            return
        if lost:
            self._say_lost(segment, words, lost)
        else:
            log.warning("%s: %s %s", self._name, self._folder.path(segment.name), words)

    def _say_lost(self, segment: Segment, words: str, flows: int | str) -> None:
        log.warning("%s: %s flows are not sent: %s %s", self._name, flows, self._folder.path(segment.name), words)

    def _say_removed(self, lost: Tally, words: str) -> None:
        log.warning("%s: %d flows are not sent: %s", self._name, lost.flows, words)
