"""Perf records as the kernel writes them, made by hand, and what must become of them, without columns."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from netobs.pcap.tap.layout import FIRST_OCTETS, PART_OCTETS

HEADER, META = struct.Struct("<IHH"), struct.Struct("<IIHHBBHQII")
SAMPLE, LOST, THROTTLE, MISC_KERNEL = 9, 2, 5, 1


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

    def records(self) -> list[bytes]:
        """Its records, in order."""
        sizes = [self.octets[:FIRST_OCTETS]]
        sizes += [self.octets[at : at + PART_OCTETS] for at in range(FIRST_OCTETS, len(self.octets), PART_OCTETS)]
        return [sample(self._meta(part) + octets) for part, octets in enumerate(sizes)]

    def _meta(self, part: int) -> bytes:
        beside = (self.tci, self.tpid, self.direction, self.link, part, self.time_ns)
        return META.pack(self.filters, self.ifindex, *beside, len(self.octets), len(self.octets) + self.cut)

    def seen(self) -> tuple[int, int, bytes]:
        """(time, original length, octets) as a client sees them."""
        octets = self.octets
        if self.tpid:
            octets = octets[:12] + struct.pack("!HH", self.tpid, self.tci) + octets[12:]
        return self.time_ns, len(octets) + self.cut, octets


def record(kind: int, body: bytes) -> bytes:
    """A record of any kind; ``body`` is padded to a multiple of 8."""
    body += bytes(-len(body) % 8)
    return HEADER.pack(kind, MISC_KERNEL, HEADER.size + len(body)) + body


def sample(raw: bytes) -> bytes:
    """A sample: the size that it says counts the padding (kernel/events/core.c)."""
    size = -(-(4 + len(raw)) // 8) * 8 - 4
    return record(SAMPLE, struct.pack("<I", size) + raw)


def lost(number: int) -> bytes:
    """The record that tells of ``number`` others."""
    return record(LOST, struct.pack("<QQ", 7, number))


def joined(records: Sequence[bytes], headroom: int = 16) -> bytearray:
    """A buffer that begins with a headroom."""
    return bytearray(headroom) + b"".join(records)
