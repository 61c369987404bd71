"""One file of the spool: an IPFIX file (RFC 5655) and, beside it, an index of its Messages.

The index is written after the data. So a Message is there if the index has it, and replay needs not read Data Records.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netobs.export.stats import Tally
from netobs.records import MessageBlock

ENTRY = np.dtype([("end", "<i8"), ("flows", "<i8"), ("packets", "<i8"), ("octets", "<i8")])
"""One Message in the index: where it ends in the data file, and what it carries. Messages with templates carry none."""

_SUFFIX, _INDEX_SUFFIX = ".ipfix", ".index"
_VERSION = 10
_HEADER_BYTES = 16  # RFC 7011, section 3.1
_SET_HEADER_BYTES = 4
_MODE = 0o640


class Damaged(Exception):
    """The files of a segment do not fit each other."""


class Entries(NamedTuple):
    """Messages of a segment: their index entries, shape ``(messages,)``, and where the first of them begins."""

    entries: npt.NDArray[np.void]
    begin: int

    def tally(self) -> Tally:
        """What they carry."""
        return Tally(*(int(self.entries[name].sum()) for name in ("flows", "packets", "octets")))


class Segment:
    """``messages``: how many there are, of which the first ``templates`` carry no Data Records; ``flows``: in all."""

    def __init__(self, path: Path) -> None:
        """The segment at ``path``, with nothing in it yet: see ``create`` and ``recover``."""
        self.path = path
        self.number = int(path.stem)
        self.data_bytes = 0
        self.messages = self.templates = self.flows = 0
        self.left = Tally()
        """What is not yet read: the spool keeps it."""
        self._data = self._index = -1

    @classmethod
    def create(cls, directory: Path, number: int, templates: Sequence[bytes]) -> Segment:
        """A new segment that begins with the Messages ``templates``. Raises OSError."""
        segment = cls(directory / f"{number:010}{_SUFFIX}")
        try:
            segment._open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
            nothing = np.zeros(len(templates), dtype=np.int64)
            ends = np.cumsum([len(message) for message in templates])
            segment.append(MessageBlock(memoryview(b"".join(templates)), ends, nothing, nothing, nothing))
        except OSError:
            segment.close()
            with contextlib.suppress(OSError):
                segment.delete()
            raise
        segment.templates = len(templates)
        return segment

    @classmethod
    def recover(cls, path: Path) -> Segment:
        """The segment that an earlier run has left; what a crash left half written is cut off.

        Raises OSError, or Damaged if the index is not one of these data.
        """
        segment = cls(path)
        try:
            segment._open(os.O_RDWR | os.O_CREAT)
            size = os.fstat(segment._data).st_size
            whole = os.fstat(segment._index).st_size // ENTRY.itemsize
            if size and not whole:
                raise Damaged
            entries = segment._entries(0, whole)
            ends = entries["end"]
            kept = int(np.searchsorted(ends, size, side="right")) if bool((np.diff(ends, prepend=0) > 0).all()) else -1
            if kept < 0:
                raise Damaged
            segment.messages, segment.data_bytes = kept, int(ends[kept - 1]) if kept else 0
            segment.flows = int(entries["flows"][:kept].sum())
            with_flows = np.flatnonzero(entries["flows"][:kept])
            segment.templates = int(with_flows[0]) if len(with_flows) else kept
            segment._cut()
        finally:
            segment.close()
        return segment

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.data_bytes + self.messages * ENTRY.itemsize

    def append(self, block: MessageBlock) -> None:
        """Write ``block`` at the end. Raises OSError; then nothing of it is in the segment."""
        entries = np.empty(len(block), dtype=ENTRY)
        entries["end"] = block.ends + self.data_bytes
        for name in ("flows", "packets", "octets"):
            entries[name] = getattr(block, name)
        try:
            self._open(os.O_RDWR)
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
        self._open(os.O_RDWR)
        before = self._entries(start - 1, start)["end"] if start else (0,)
        return Entries(self._entries(start, min(stop, self.messages)), int(before[0]))

    def read(self, start: int, max_bytes: int) -> tuple[Entries, bytearray]:
        """At least one Message from the number ``start`` on, if there is one, and at most ``max_bytes`` if more.

        Raises OSError, or Damaged if these are no Messages.
        """
        # No Message is shorter than a header with a Set.
        found = self.entries(start, start + max(1, max_bytes // (_HEADER_BYTES + _SET_HEADER_BYTES)))
        count = max(1, int(np.searchsorted(found.entries["end"], found.begin + max_bytes, side="right")))
        part = Entries(found.entries[:count], found.begin)
        length = int(part.entries["end"][-1]) - part.begin if len(part.entries) else 0
        data = bytearray(os.pread(self._data, length, part.begin))
        if len(data) != length or not _are_messages(data, part):
            raise Damaged
        return part, data

    def template_sets(self) -> bytes:
        """The Sets of the templates that the segment begins with. Raises OSError, or Damaged."""
        if not self.templates:
            return b""
        end = int(self.entries(self.templates - 1, self.templates).entries["end"][0])
        return sets_of(os.pread(self._data, end, 0))

    def largest_message(self) -> int:
        """Bytes of the longest Message with Data Records. Raises OSError, or Damaged."""
        found = self.entries(0, self.messages)
        return int(np.diff(found.entries["end"], prepend=0)[self.templates :].max(initial=0))

    def close(self) -> None:
        """Free the descriptors; another call opens the files again."""
        for fd in (self._data, self._index):
            if fd >= 0:
                os.close(fd)
        self._data = self._index = -1

    def delete(self) -> None:
        """Raises OSError."""
        self.close()
        for path in (self.path, self._index_path):  # the data first: an index alone is nothing
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def set_aside(self, why: str) -> Path:
        """Take it out of the spool but keep it, as NAME.ipfix.``why``; return the new path. Raises OSError."""
        self.close()
        kept = self.path.with_name(f"{self.path.name}.{why}")
        self.path.rename(kept)
        with contextlib.suppress(FileNotFoundError):
            self._index_path.unlink()
        return kept

    @property
    def _index_path(self) -> Path:
        return self.path.with_suffix(_INDEX_SUFFIX)

    def _open(self, flags: int) -> None:
        if self._data < 0:
            self._data = os.open(self.path, flags | os.O_CLOEXEC, _MODE)
        if self._index < 0:
            self._index = os.open(self._index_path, flags | os.O_CLOEXEC, _MODE)

    def _entries(self, start: int, stop: int) -> npt.NDArray[np.void]:
        wanted = max(0, stop - start) * ENTRY.itemsize
        data = os.pread(self._index, wanted, start * ENTRY.itemsize)
        if len(data) != wanted:
            raise Damaged
        return np.frombuffer(data, dtype=ENTRY)

    def _cut(self) -> None:
        """Back to what the segment has wholly."""
        if self._data >= 0:
            os.ftruncate(self._data, self.data_bytes)
        if self._index >= 0:
            os.ftruncate(self._index, self.messages * ENTRY.itemsize)


def segment_paths(directory: Path) -> list[Path]:
    """The data files in ``directory``, oldest first. Raises OSError."""
    return sorted(path for path in directory.iterdir() if path.suffix == _SUFFIX and path.stem.isdecimal())


def paths_aside(directory: Path) -> list[Path]:
    """What ``Segment.set_aside`` has left in ``directory``, oldest first. Raises OSError."""
    found = (path for path in directory.iterdir() if f"{_SUFFIX}." in path.name)
    return sorted(path for path in found if path.name.partition(".")[0].isdecimal())


def sets_of(messages: bytes) -> bytes:
    """The Sets in ``messages``, without their Message Headers: the same for the same templates, at any time.

    Sets of one kind that stand in several Messages count as one. Raises Damaged.
    """
    sets: dict[bytes, bytes] = {}
    at = 0
    while at < len(messages):
        length = int.from_bytes(messages[at + 2 : at + 4], "big")
        if length < _HEADER_BYTES or at + length > len(messages):
            raise Damaged
        end, at = at + length, at + _HEADER_BYTES
        while at < end:
            set_id, length = messages[at : at + 2], int.from_bytes(messages[at + 2 : at + 4], "big")
            if length < _SET_HEADER_BYTES:
                raise Damaged
            sets[set_id] = sets.get(set_id, b"") + messages[at + _SET_HEADER_BYTES : at + length]
            at += length
    return b"".join(set_id + sets[set_id] for set_id in sorted(sets))


def _are_messages(data: bytearray, part: Entries) -> bool:
    """Whether a Message begins where the index says, each with the length that the index says."""
    ends = part.entries["end"] - part.begin
    sizes = np.diff(ends, prepend=0)
    if not len(ends) or bool((sizes < _HEADER_BYTES).any()):
        return not len(ends)
    at = (ends - sizes)[:, None] + np.arange(4)
    heads = np.frombuffer(data, dtype=np.uint8)[at].reshape(-1).view(">u2").reshape(-1, 2)
    return bool((heads[:, 0] == _VERSION).all() and (heads[:, 1] == sizes).all())


def _write(fd: int, data: memoryview, at: int) -> None:
    """All of ``data`` at the offset ``at``. Raises OSError: part of it may be there then."""
    data = data.cast("B")
    while len(data):
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
