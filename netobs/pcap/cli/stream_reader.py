"""Reads an arriving stream of packets: finds the ends of its records, counts packets and losses.

The file formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng, in the subset that netobs writes.
"""

from __future__ import annotations

import struct

from netobs.base.errors import CaptureError
from netobs.base.log import printable
from netobs.pcap.formats.stream import MAGIC_NUMBERS, REFUSAL

PCAPNG_STATISTICS, PCAPNG_PACKET = 5, 6
ISB_IFDROP = 5

_PCAP_HEADER_BYTES = 24
_PCAP_RECORD = struct.Struct("<8xII")
_BLOCK = struct.Struct("<II")
_OPTION = struct.Struct("<HH")
_LONGEST = 1 << 24  # longest record or line; a longer one does not come from netobs


class StreamReader:
    """Reads a stream in pieces of any size. ``packets`` and ``lost`` count the whole records so far.

    ``lost`` is None until the stream has the number; classic pcap never has it.
    """

    def __init__(self) -> None:
        self.packets = 0
        self.bytes = 0
        self._rest = b""
        self._walk = self._begin
        self._lost: dict[int, int] = {}

    @property
    def lost(self) -> int | None:
        """Selected packets that are not in the stream; None if it does not tell."""
        return sum(self._lost.values()) if self._lost else None

    @property
    def is_whole(self) -> bool:
        """Whether the data so far end with a whole record."""
        return not self._rest

    def feed(self, data: bytes) -> bytes:
        """The whole records that ``data`` completes; the rest is kept for the next call.

        :raises CaptureError: the server refused (in its words), or this is not a stream of netobs.
        """
        data = self._rest + data
        end = self._walk(data)
        self._rest = data[end:]
        self.bytes += end
        return data[:end]

    def _begin(self, data: bytes) -> int:
        if data.startswith(REFUSAL[: len(data)]):
            self._refused(data)
            return 0
        if len(data) < _BLOCK.size:
            return 0
        if data.startswith(MAGIC_NUMBERS["pcapng"]):
            self._walk = self._walk_pcapng
            return self._walk_pcapng(data)
        if not data.startswith(MAGIC_NUMBERS["pcap"]):
            raise CaptureError("the data from there are not a stream of packets", "is it the port of a netobs daemon?")
        if len(data) < _PCAP_HEADER_BYTES:
            return 0
        self._walk = self._walk_pcap
        return self._walk_pcap(data, _PCAP_HEADER_BYTES)

    def _refused(self, data: bytes) -> None:
        line, newline, _ = data.partition(b"\n")
        if newline or len(data) > _LONGEST:
            raise CaptureError(printable(line[len(REFUSAL) :].decode("utf-8", "replace")))

    def _walk_pcap(self, data: bytes, at: int = 0) -> int:
        size, packets, unpack = len(data), 0, _PCAP_RECORD.unpack_from
        while at + 16 <= size:
            end = at + 16 + unpack(data, at)[0]
            if end > size:
                _check_length(end - at)
                break
            at = end
            packets += 1
        self.packets += packets
        return at

    def _walk_pcapng(self, data: bytes) -> int:
        size, at, packets, unpack = len(data), 0, 0, _BLOCK.unpack_from
        while at + 12 <= size:
            kind, length = unpack(data, at)
            if at + length > size or length < 12:
                _check_length(length)
                break
            if kind == PCAPNG_PACKET:
                packets += 1
            elif kind == PCAPNG_STATISTICS:
                self._statistics(data[at : at + length])
            at += length
        self.packets += packets
        return at

    def _statistics(self, block: bytes) -> None:
        """An Interface Statistics Block (pcapng, section 4.6): its counts are of the whole stream so far."""
        (interface,) = struct.unpack_from("<I", block, 8)
        at, lost = 20, 0
        while at + 4 <= len(block) - 4:
            code, length = _OPTION.unpack_from(block, at)
            if code == 0:
                break
            if code == ISB_IFDROP:  # osdrop is a part of it (formats/pcapng.py)
                lost = int(struct.unpack_from("<Q", block, at + 4)[0])
            at += 4 + (length + 3 & ~3)
        self._lost[interface] = lost


def _check_length(length: int) -> None:
    if not 12 <= length <= _LONGEST:
        raise CaptureError(f"the stream of packets is damaged: a record of {length} bytes")
