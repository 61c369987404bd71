"""The state of one collector's session in a file of memory: each change of it is one store.

There are two slots for the numbers that change with each burst, and two for the rest of the account. A change writes
the slots that do not count, then one word whose two bits say which slots count. So a change of the first kind of slots
leaves the other one as it is.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from typing import NamedTuple

import numpy as np

from netobs.export.keeping import Spooling

BYTES = 16_384
SEND_AT = 64
"""Where ``netobs.export.kept.send`` has its two slots."""
_HOT_AT, _HOT_BYTES = 1024, 512
_COLD_AT, _COLD_BYTES = 2048, 2048
_REASONS_AT, _REASON_BYTES = 8192, 32
REASONS = 64
_IDENTITY_AT, _IDENTITY_BYTES = 12_288, 4096
COLD_NUMBERS = 32 + 3 * REASONS
_COLD = struct.Struct(f"<{COLD_NUMBERS}q")


class Hot(NamedTuple):
    """What changes with each burst; every number fits 64 bits.

    ``end``: see ``KeptRows``. ``batch``: the number of the last batch that was taken. ``shipped``: what is on its way
    (see ``netobs.export.kept.recovery``); ``at``: the number of its next row; ``rows``: how many rows are left of it,
    or its Data Records of options; of the spool, also the ``packets`` and ``octets`` that are left. ``sequence``: of
    the next Message. ``accounted_...``: how far the records of ``send`` are in the account. ``segment``, ``message``:
    where the spool is to be read from. ``mark_...``: the rows whose state changes with this change. ``session``: which
    Transport Session the Sequence Number belongs to. ``sent_state``: of the rows that this process has sent.
    ``taken_...``: the origin of the rows that were taken over last (``Kept.origin``).
    """

    end: int
    batch: int = 0
    shipped: int = 0
    at: int = 0
    rows: int = 0
    packets: int = 0
    octets: int = 0
    sequence: int = 0
    accounted_rows: int = 0
    accounted_messages: int = 0
    accounted_packets: int = 0
    accounted_octets: int = 0
    accounted_bytes: int = 0
    segment: int = 0
    message: int = 0
    mark_at: int = 0
    mark_rows: int = 0
    mark_state: int = 0
    session: int = 0
    port: int = 0
    sent_flows: int = 0
    sent_packets: int = 0
    sent_octets: int = 0
    messages: int = 0
    template_messages: int = 0
    bytes: int = 0
    sent_state: int = 1
    taken_place: int = 0
    taken_end: int = 0


_HOT = struct.Struct(f"<{len(Hot._fields)}q")

Cold = tuple[int, ...]
"""The rest of the account: see ``netobs.export.kept.account``."""


_VERSION = int.from_bytes(
    hashlib.sha256(repr((BYTES, SEND_AT, Hot._fields, _COLD.format, REASONS, _HOT_AT, _COLD_AT)).encode()).digest()[:7],
    "little",
)


class KeptState:
    """``reasons``: the names of the reasons in the account, in order. ``identity``: whose state it is, as JSON."""

    def __init__(self, fd: int) -> None:
        """``fd``: a file of memory; the caller may close it. It is empty, or has the state of a former process."""
        if os.fstat(fd).st_size != BYTES:
            os.ftruncate(fd, BYTES)
        self.map = mmap.mmap(fd, BYTES, flags=mmap.MAP_SHARED)
        self._words = np.frombuffer(self.map, "<u8", 8)  # version, slots that count, spooling: valid and its numbers
        self.reasons: list[str] = []

    @property
    def is_known(self) -> bool:
        """Whether it has a state, in this layout."""
        return int(self._words[0]) == _VERSION

    def clear(self) -> None:
        """There is no state any more, until ``begin``."""
        self._words[0] = self._words[2] = 0
        for start, stop in ((SEND_AT, _HOT_AT), (_REASONS_AT, _IDENTITY_AT)):
            self.map[start:stop] = bytes(stop - start)
        self.reasons = []

    def begin(self, identity: dict[str, str], hot: Hot, cold: Cold) -> None:
        """The first state."""
        text = json.dumps(identity).encode()
        self.map[_IDENTITY_AT : _IDENTITY_AT + _IDENTITY_BYTES] = text.ljust(_IDENTITY_BYTES, b"\0")
        self.change(hot, cold)
        self._words[0] = _VERSION

    def read(self) -> tuple[dict[str, str], Hot, Cold]:
        """What counts. Reads ``reasons`` too."""
        which = int(self._words[1])
        hot = Hot(*_HOT.unpack_from(self.map, _HOT_AT + (which & 1) * _HOT_BYTES))
        cold = _COLD.unpack_from(self.map, _COLD_AT + (which >> 1) * _COLD_BYTES)
        names = self.map[_REASONS_AT : _REASONS_AT + REASONS * _REASON_BYTES]
        found = [names[at : at + _REASON_BYTES].rstrip(b"\0").decode() for at in range(0, len(names), _REASON_BYTES)]
        self.reasons = [name for name in found if name]
        text = self.map[_IDENTITY_AT : _IDENTITY_AT + _IDENTITY_BYTES].rstrip(b"\0")
        identity: dict[str, str] = json.loads(text)
        return identity, hot, cold

    def change(self, hot: Hot, cold: Cold | None) -> None:
        """From now on ``hot`` counts; ``cold`` too, unless it is None, which leaves it as it is."""
        which = int(self._words[1]) ^ 1
        _HOT.pack_into(self.map, _HOT_AT + (which & 1) * _HOT_BYTES, *hot)
        if cold is not None:
            which ^= 2
            _COLD.pack_into(self.map, _COLD_AT + (which >> 1) * _COLD_BYTES, *cold)
        self._words[1] = which

    def add_reason(self, name: str) -> None:
        """One more name for ``reasons``; the numbers of the next ``change`` may use it."""
        at = _REASONS_AT + len(self.reasons) * _REASON_BYTES
        self.map[at : at + _REASON_BYTES] = name.encode()[:_REASON_BYTES].ljust(_REASON_BYTES, b"\0")
        self.reasons.append(name)

    @property
    def spooling(self) -> Spooling | None:
        """What the disk was being given."""
        return Spooling(*map(int, self._words[3:7])) if self._words[2] else None

    @spooling.setter
    def spooling(self, spooling: Spooling | None) -> None:
        if spooling is None:
            self._words[2] = 0
        else:
            self._words[3:7] = spooling
            self._words[2] = 1
