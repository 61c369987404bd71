"""One file of the spool: an IPFIX file (RFC 5655) and, beside it, an index of its Messages (``spool_index``).

The index is written after the data. So a Message exists if the index has it, and replay does not parse Data Records.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.base.ipfix import FIRST_DATA_SET_ID
from netobs.export.spool.folder import INDEX_SUFFIX, SUFFIX, Folder
from netobs.export.spool.index import ENTRY, HEADER_BYTES, MAX_ENTRIES, SET_HEADER_BYTES, Entries, are_sound, made_for
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    import numpy.typing as npt

_MAX_TEMPLATE_BYTES = 1 << 20
_MAX_LONGER = 100  # Messages that are compared with the index
_MAX_SURPLUS = 1000  # Messages that are examined after the last one of the index
_serials = itertools.count(1)


class Damaged(Exception):
    """The files of a segment do not fit each other."""


class Loss(NamedTuple):
    """The missing part of a segment: counted by its index, and ``unknown``, an uncountable loss in words."""

    tally: Tally
    unknown: str


class Segment:
    """``messages``: their number; the first ``templates`` of them have no Data Records; ``flows``: in all."""

    def __init__(self, folder: Folder, number: int) -> None:
        """The segment ``number``, still empty: see ``create`` and ``recover``."""
        self.number = number
        self.serial = next(_serials)
        """Unique for each segment of this process."""
        self.data_bytes = 0
        self.messages = self.templates = self.flows = 0
        self.position = 0
        """The next Message to read; the spool keeps it and the following ones."""
        self.left = Tally()
        self.sets = b""
        """The templates at its start, see ``sets_of``."""
        self.sent_to = self.arrived_to = 0
        """The ends of the last read Message, and of the Messages that have all arrived."""
        self.bad: set[int] = set()
        """Messages that are damaged, and counted."""
        self.keep = ""
        """Why the files must not be deleted when everything is sent."""
        self.failures = 0  # to read, in a row
        self._folder = folder
        self._checked = True
        self._data = self._index = -1

    @classmethod
    def create(cls, folder: Folder, number: int, templates: Sequence[bytes]) -> Segment:
        """A new segment that starts with the Messages ``templates``. Raises OSError."""
        segment = cls(folder, number)
        try:
            segment._open(os.O_CREAT | os.O_EXCL)
            nothing = np.zeros(len(templates), dtype=np.int64)
            ends = np.cumsum([len(message) for message in templates])
            segment.append(MessageBlock(memoryview(b"".join(templates)), ends, nothing, nothing, nothing))
        except OSError:
            segment.close()
            with contextlib.suppress(OSError):
                segment.delete()
            raise
        segment.templates = segment.position = len(templates)
        return segment

    @classmethod
    def recover(cls, folder: Folder, number: int, start: int) -> tuple[Segment, Loss]:
        """The segment of an earlier run, to be read from Message ``start`` on, and its loss.

        A partly written Message of a crash is cut off. Raises OSError.
        """
        segment = cls(folder, number)
        try:
            return segment, segment._recover(start)
        finally:
            segment.close()

    def _recover(self, start: int) -> Loss:
        for name in ("_data", "_index"):
            with contextlib.suppress(FileNotFoundError):
                self._open(only=name)
        size = os.fstat(self._data).st_size if self._data >= 0 else 0
        there = os.fstat(self._index).st_size // ENTRY.itemsize if self._index >= 0 else 0
        index = Entries(self._entries(0, min(there, MAX_ENTRIES)), 0)
        good = index.plausible()
        ends, flows = index.entries["end"][:good], index.entries["flows"][:good]
        self.messages = int(np.searchsorted(ends, size, side="right"))
        self.data_bytes = int(ends[self.messages - 1]) if self.messages else 0
        self._checked = bool(index.entries["crc"].any())
        self.flows = int(flows[: self.messages].sum())
        with_flows = np.flatnonzero(flows[: self.messages])
        self.templates = int(with_flows[0]) if len(with_flows) else self.messages
        self._begin_at(max(start, self.templates))
        self.left = Entries(index.entries[self.position : self.messages], 0).tally()
        lost = Entries(index.entries[max(self.messages, start) : good], 0).tally()
        unknown = "its index is damaged" if good < there else ""
        if not unknown and self.messages == good and self._has_surplus(size):
            unknown = "it holds Messages that its index does not have"
        if unknown or lost.flows:
            self.keep = "damaged"
        elif self._data >= 0:
            self._cut()
        return Loss(lost, unknown)

    def _begin_at(self, message: int) -> None:
        self.position = self.sent_to = self.arrived_to = min(self.messages, message)

    def _has_surplus(self, size: int) -> bool:
        """Whether there are whole Messages with Data Records after the last one of the index."""
        at = self.data_bytes
        for _ in range(_MAX_SURPLUS):
            head = os.pread(self._data, HEADER_BYTES + SET_HEADER_BYTES, at) if at < size else b""
            length, set_id = int.from_bytes(head[2:4], "big"), int.from_bytes(head[16:18], "big")
            if len(head) < HEADER_BYTES + SET_HEADER_BYTES or length < len(head) or at + length > size:
                return False
            if set_id >= FIRST_DATA_SET_ID:
                return True
            at += length
        return True

    @property
    def unread(self) -> bool:
        """Whether there is more to read."""
        return self.position < self.messages

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.data_bytes + self.messages * ENTRY.itemsize

    @property
    def name(self) -> str:
        """Of the data file."""
        return f"{self.number:010}{SUFFIX}"

    def is_there(self) -> bool:
        """Whether both files are still the same files in the same place."""
        files = ((self.name, self._data), (self._index_name, self._index))
        return all(self._folder.holds(name, fd) for name, fd in files)

    def append(self, block: MessageBlock) -> None:
        """Write ``block`` at the end. Raises OSError; the segment is then unchanged."""
        entries = made_for(block, self.data_bytes)
        try:
            self._open()
            _write(self._data, block.buffer, self.data_bytes)
            _write(self._index, memoryview(entries.tobytes()), self.messages * ENTRY.itemsize)
        except OSError:
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self.data_bytes += len(block.buffer)
        self.messages += len(block)
        self.flows += int(block.flows.sum())

    def entries(self, start: int, stop: int) -> Entries:
        """The Messages ``start`` to ``stop``. Raises OSError, or Damaged."""
        self._open()
        return Entries(self._entries(start, min(stop, self.messages)), self.offset(start))

    def offset(self, message: int) -> int:
        """The start of ``message`` in the data file. Raises OSError, or Damaged."""
        self._open()
        return int(self._entries(message - 1, message)["end"][0]) if message else 0

    def read(self, max_bytes: int) -> tuple[Entries, bytearray, npt.NDArray[np.bool_]]:
        """At least one Message from ``position`` on, several up to ``max_bytes``; and which of them are undamaged.

        Raises OSError, or Damaged if the index has changed.
        """
        # No Message is shorter than a header with a Set.
        most = max(1, max_bytes // (HEADER_BYTES + SET_HEADER_BYTES))
        found = self.entries(self.position, self.position + most)
        good = found.plausible() or 1  # an impossible Message is damaged, and read alone
        count = max(1, int(np.searchsorted(found.ends[:good], max_bytes, side="right")))
        part = Entries(found.entries[:count], found.begin)
        length = min(max(0, int(part.ends[-1])), max(max_bytes, int(found.sizes[0]) & 0xFFFF))
        data = bytearray(os.pread(self._data, length, part.begin))
        return part, data, are_sound(part, data, self._checked)

    def template_messages(self) -> bytes:
        """The Messages with the templates at the start of the segment. Raises OSError, or Damaged.

        A damaged Message with counts of 0 does not count as a template: it must be read.
        """
        found = self.entries(0, max(1, self.templates))
        data = os.pread(self._data, min(int(found.ends[-1]), _MAX_TEMPLATE_BYTES), 0)
        sound = are_sound(found, data, self._checked)
        if not sound[0]:
            raise Damaged
        whole = min(self.templates, int(np.argmin(sound)) or len(sound))
        if self.position == self.templates > whole:
            self._begin_at(whole)
        return data[: int(found.ends[whole - 1])] if whole else b""

    def exceeds(self, max_message_size: int) -> bool:
        """Whether any Message with Data Records is longer than this many bytes. Raises OSError, or Damaged."""
        found = self.entries(0, self.messages)
        longer = np.flatnonzero(found.sizes > max_message_size)
        for number in longer[longer >= self.templates][:_MAX_LONGER].tolist():
            one = Entries(found.entries[number : number + 1], int(found.ends[number] - found.sizes[number]))
            data = os.pread(self._data, int(found.sizes[number]), one.begin)
            if are_sound(one, data, self._checked).all():  # else it is damaged, and not sent anyway
                return True
        return False

    def close(self) -> None:
        """Free the descriptors; another call opens the files again."""
        for fd in (self._data, self._index):
            if fd >= 0:
                os.close(fd)
        self._data = self._index = -1

    def delete(self) -> None:
        """Raises OSError."""
        self.close()
        for name in (self.name, self._index_name):  # the data first: an index alone is useless
            self._folder.unlink(name)

    def set_aside(self, why: str) -> str:
        """Remove it from the spool but keep the file as NAME.ipfix.``why``; return the new name. Raises OSError."""
        self.close()
        kept = f"{self.name}.{why}"
        with contextlib.suppress(FileNotFoundError):
            self._folder.rename(self.name, kept)
        with contextlib.suppress(OSError):
            self._folder.unlink(self._index_name)
        return kept

    @property
    def _index_name(self) -> str:
        return f"{self.number:010}{INDEX_SUFFIX}"

    def _open(self, flags: int = 0, only: str = "") -> None:
        for attribute, name in (("_data", self.name), ("_index", self._index_name)):
            if getattr(self, attribute) < 0 and only in ("", attribute):
                setattr(self, attribute, self._folder.open_file(name, flags))

    def _entries(self, start: int, stop: int) -> npt.NDArray[np.void]:
        wanted = max(0, stop - start) * ENTRY.itemsize
        data = os.pread(self._index, wanted, start * ENTRY.itemsize) if wanted else b""
        if len(data) != wanted:
            raise Damaged
        return np.frombuffer(data, dtype=ENTRY)

    def _cut(self) -> None:
        """Truncate the files to the whole Messages."""
        if self._data >= 0:
            os.ftruncate(self._data, self.data_bytes)
        if self._index >= 0:
            os.ftruncate(self._index, self.messages * ENTRY.itemsize)


def sets_of(messages: bytes) -> bytes:
    """The Sets in ``messages``, without their Message Headers: always the same for the same templates.

    Sets of one kind in several Messages count as one. Raises Damaged.
    """
    sets: dict[bytes, bytes] = {}
    at = 0
    while at < len(messages):
        length = int.from_bytes(messages[at + 2 : at + 4], "big")
        if length < HEADER_BYTES or at + length > len(messages):
            raise Damaged
        end, at = at + length, at + HEADER_BYTES
        while at < end:
            set_id, length = messages[at : at + 2], int.from_bytes(messages[at + 2 : at + 4], "big")
            if length < SET_HEADER_BYTES:
                raise Damaged
            sets[set_id] = sets.get(set_id, b"") + messages[at + SET_HEADER_BYTES : at + length]
            at += length
    return b"".join(set_id + sets[set_id] for set_id in sorted(sets))


def _write(fd: int, data: memoryview, at: int) -> None:
    """Write all of ``data`` at the offset ``at``. Raises OSError; a part of it may then be written."""
    data = data.cast("B")
    while len(data):
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
