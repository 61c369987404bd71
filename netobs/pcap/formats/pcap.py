"""Classic pcap (draft-ietf-opsawg-pcap) with times in nanoseconds: a header, then records of one link type."""

from __future__ import annotations

import struct

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.base.vectors import Numbers, Vectors
from netobs.pcap.batch import HEADROOM_BYTES, PacketBatch
from netobs.pcap.distribution import ReadContext
from netobs.pcap.formats.stream import MAGIC_NUMBERS, PacketStream, Records
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP

LINK_TYPES = {LINK_ETHERNET: 1, LINK_IP: 101}
"""LINKTYPE_ETHERNET and LINKTYPE_RAW, of pcap and of pcapng."""

_HEADER = struct.Struct("<4sHHiIII")
_WORDS = HEADROOM_BYTES // 4  # a record header: seconds, nanoseconds, captured and original length


class PcapStream(PacketStream):
    """Packets that start with ``link``, cut to ``snaplen`` octets. It cannot hold packets of other links."""

    def __init__(self, snaplen: int, link: int) -> None:
        super().__init__(snaplen)
        self._link = link

    def header(self) -> bytes:
        """24 bytes: version 2.4, times in UTC."""
        return _HEADER.pack(MAGIC_NUMBERS["pcap"], 2, 4, 0, 0, self._snaplen, LINK_TYPES[self._link])

    def records(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> Records:
        """The record headers go into the headroom of the packets, when they are asked for."""
        selected, rows = rows, rows[batch.meta["link"][rows] == self._link]
        self.other_link += len(selected) - len(rows)
        captured = np.minimum(batch.meta["caplen"][rows], self._snaplen).astype(np.int64)

        def gather(count: int) -> Vectors:
            start = batch.start[rows[:count]]
            _write_headers(batch, rows[:count], start, captured[:count], context.offset_ns)
            vectors = Vectors(count)
            vectors.put(slice(None), batch.buffer, start - HEADROOM_BYTES, start + captured[:count])
            return vectors

        return Records(b"", np.cumsum(captured + HEADROOM_BYTES), np.zeros(len(rows), dtype=np.int64), gather)


def _write_headers(batch: PacketBatch, rows: Numbers, start: Numbers, captured: Numbers, offset_ns: int) -> None:
    time_ns = batch.meta["time_ns"][rows].astype(np.int64) + offset_ns
    seconds = time_ns // NS_PER_S
    words = np.frombuffer(batch.buffer, dtype="<u4", count=len(batch.buffer) // 4)
    place = start // 4 - _WORDS
    words[place] = seconds
    words[place + 1] = time_ns - seconds * NS_PER_S
    words[place + 2] = captured
    words[place + 3] = batch.meta["length"][rows]
