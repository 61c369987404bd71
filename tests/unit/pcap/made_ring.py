"""Rings as the kernel and the programs write them, made by hand, and what must become of them, without columns."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

HEADER, META = struct.Struct("<II"), struct.Struct("<IIHHBBHQII")
BUSY = 1 << 31
LEFT_OVER = b"\xee"  # what is in the room behind a packet, from a lap before


@dataclass(frozen=True)
class Packet:
    """A packet as the programs copy it: ``octets`` without the tag beside."""

    octets: bytes
    time_ns: int = 1
    tci: int = 0
    tpid: int = 0
    filters: int = 1
    ifindex: int = 2
    direction: int = 0
    link: int = 0
    cut: int = 0  # octets of the packet that were not copied
    room: int = 0  # that were reserved in vain

    def record(self, flags: int = 0) -> bytes:
        """Its record."""
        beside = (self.tci, self.tpid, self.direction, self.link, 0, self.time_ns)
        meta = META.pack(self.filters, self.ifindex, *beside, len(self.octets), len(self.octets) + self.cut)
        room = -(-(len(self.octets) + self.room) // 8) * 8
        header = HEADER.pack(META.size + room | flags, 7)
        return header + meta + self.octets.ljust(room, LEFT_OVER)

    def seen(self) -> tuple[int, int, bytes]:
        """(time, original length, octets) as a client sees them."""
        octets = self.octets
        if self.tpid:
            octets = octets[:12] + struct.pack("!HH", self.tpid, self.tci) + octets[12:]
        return self.time_ns, len(octets) + self.cut, octets


@dataclass(frozen=True)
class Ring:
    """Memory of ``size`` bytes with ``records`` from position ``begin`` on; the last may still be written."""

    records: Sequence[bytes]
    begin: int = 0
    size: int = 1 << 20

    @property
    def end(self) -> int:
        """The position behind the last record."""
        return self.begin + sum(map(len, self.records))

    def memory(self) -> bytes:
        """All of it: what is written beyond the end is at the start."""
        whole = (LEFT_OVER * (self.begin % self.size) + b"".join(self.records)).ljust(self.size, LEFT_OVER)
        beyond = whole[self.size :]
        return beyond + whole[len(beyond) : self.size]

    def bytes_from(self, begin: int, end: int) -> bytes:
        """What a reader copies."""
        memory, at = self.memory() * 2, begin % self.size
        return memory[at : at + end - begin]
