"""The index of a segment: for each Message its end, its counts, and a checksum of both.

Nothing in a file is trusted before it is checked: bounds when a segment is found, checksums when it is read.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.base.ipfix import IPFIX_VERSION, MAX_MESSAGE_BYTES, MESSAGE_HEADER, SET_HEADER
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    import numpy.typing as npt

ENTRY = np.dtype([("end", "<u4"), ("crc", "<u4"), ("flows", "<i8"), ("packets", "<i8"), ("octets", "<i8")])
"""One Message: its end in the data file, a CRC-32 of its counts and of the Message, and its counts.

Messages with templates have counts of 0. Earlier versions wrote ``end`` with 64 bits: a ``crc`` of 0 for every Message.
"""

HEADER_BYTES, SET_HEADER_BYTES = MESSAGE_HEADER.itemsize, SET_HEADER.itemsize
MAX_ENTRIES = 1 << 20
"""The most entries of an index that are read; no segment has as many."""
_COUNTS = ("flows", "packets", "octets")
_MAX_COUNT = float(1 << 62)


class Entries(NamedTuple):
    """Messages of a segment: their index entries, shape ``(messages,)``, and the start of the first."""

    entries: npt.NDArray[np.void]
    begin: int

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """The end of each, int64, counted from the start of the first."""
        return self.entries["end"].astype(np.int64) - self.begin

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each Message, int64."""
        return np.diff(self.ends, prepend=0)

    def tally(self) -> Tally:
        """Their counts."""
        return Tally(*(int(self.entries[name].sum()) for name in _COUNTS))

    def plausible(self) -> int:
        """Number of plausible Messages from the first on: lengths, counts, and sums that fit 64 bits."""
        sizes, counts = self.sizes, [self.entries[name] for name in _COUNTS]
        wrong = (sizes < HEADER_BYTES + SET_HEADER_BYTES) | (sizes > MAX_MESSAGE_BYTES) | (counts[0] > sizes)
        for count in counts:
            wrong |= (count < 0) | (np.cumsum(count.astype(np.float64)) > _MAX_COUNT)
        return int(np.argmax(wrong)) if bool(wrong.any()) else len(wrong)


def made_for(block: MessageBlock, begin: int) -> npt.NDArray[np.void]:
    """The entries for the Messages of ``block``, which starts at the offset ``begin``."""
    entries = np.empty(len(block), dtype=ENTRY)
    entries["end"] = block.ends + begin
    for name in _COUNTS:
        entries[name] = getattr(block, name)
    entries["crc"] = _checksums(Entries(entries, begin), block.buffer)
    return entries


def are_sound(part: Entries, data: bytes | bytearray, checked: bool) -> npt.NDArray[np.bool_]:
    """Whether each Message of ``part`` is undamaged in ``data``, shape ``(messages,)``.

    ``checked``: by its checksum; else by its Message Header alone.
    """
    ends, sizes = part.ends, part.sizes
    sound: npt.NDArray[np.bool_] = (sizes >= HEADER_BYTES) & (ends <= len(data)) & (ends - sizes >= 0)
    if checked:
        sound[sound] = _checksums(part, data)[sound] == part.entries["crc"][sound]
        return sound
    at = np.where(sound, ends - sizes, 0)[:, None] + np.arange(4)
    heads = np.frombuffer(bytes(data[: int(ends.max(initial=0))]).ljust(4, b"\0"), dtype=np.uint8)[at]
    heads = heads.reshape(-1).view(">u2").reshape(-1, 2)
    right: npt.NDArray[np.bool_] = sound & (heads[:, 0] == IPFIX_VERSION) & (heads[:, 1] == sizes)
    return right


def _checksums(part: Entries, data: bytes | bytearray | memoryview) -> npt.NDArray[np.uint32]:
    """The checksum of each Message with its counts; never 0, which stands for a missing checksum."""
    view, counts = memoryview(data).cast("B"), np.stack([part.entries[name] for name in _COUNTS], axis=1).tobytes()
    ends, width = part.ends.tolist(), 8 * len(_COUNTS)
    found = np.empty(len(ends), dtype=np.uint32)
    begin = 0
    for number, end in enumerate(ends):  # of Messages, not of flows
        crc = zlib.crc32(counts[number * width : (number + 1) * width])
        found[number] = zlib.crc32(view[max(0, begin) : max(0, end)], crc) or 1
        begin = end
    return found
