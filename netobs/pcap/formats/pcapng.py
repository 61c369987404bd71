"""pcapng (draft-ietf-opsawg-pcapng): one section, with blocks for interfaces, packets and statistics."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Callable

import numpy as np

from netobs import __version__
from netobs.base.vectors import Numbers, Vectors
from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import PacketBatch
from netobs.pcap.distribution import ReadContext
from netobs.pcap.formats.pcap import LINK_TYPES
from netobs.pcap.formats.stream import MAGIC_NUMBERS, PacketStream, Records, common_link, link_of

if TYPE_CHECKING:
    import numpy.typing as npt

_SECTION = int.from_bytes(MAGIC_NUMBERS["pcapng"], "little")
_INTERFACE, _STATISTICS, _PACKET = 1, 5, 6  # block types
_BYTE_ORDER = 0x1A2B3C4D
_SHB_HARDWARE, _SHB_OS, _SHB_USERAPPL = 2, 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL, _IF_FILTER = 2, 3, 9, 11
_ISB_STARTTIME, _ISB_ENDTIME, _ISB_IFRECV, _ISB_IFDROP = 2, 3, 4, 5
_ISB_FILTERACCEPT, _ISB_OSDROP, _ISB_USRDELIV = 6, 7, 8
_EPB_FLAGS = 2
_NANOSECONDS = b"\x09"  # 10^-9
_FILTER_TEXT = b"\x00"  # code of a filter that is a string
_LOW = 0xFFFF_FFFF

# Between two packets: the end of one's Enhanced Packet Block and the beginning of the next one's.
_BETWEEN = np.dtype(
    [
        ("flags_option", "<u2"),
        ("flags_length", "<u2"),
        ("flags", "<u4"),
        ("end_of_options", "<u4"),
        ("total_again", "<u4"),
        ("type", "<u4"),
        ("total", "<u4"),
        ("interface", "<u4"),
        ("time_high", "<u4"),
        ("time_low", "<u4"),
        ("captured", "<u4"),
        ("original", "<u4"),
    ]
)
_END_BYTES = 16
_BEGIN_BYTES = _BETWEEN.itemsize - _END_BYTES
_OPAQUE = np.dtype((np.void, _BETWEEN.itemsize))  # numpy copies records field by field, these at once
_PADDING_BYTES = 4  # room for 3, and aligned
_FRAMED = np.dtype([("padding", f"V{_PADDING_BYTES}"), ("between", _OPAQUE)])


STATISTICS_BYTES = 24 + 7 * 12 + 4  # the block's fields, seven options of 8 bytes, the end of the options


class PcapngStream(PacketStream):
    """Packets of any interface, cut to ``snaplen`` octets."""

    def __init__(
        self,
        snaplen: int,
        filter_text: str,
        known: Mapping[int, Interface],
        captured: Callable[[], Sequence[Interface]],
        start_ns: int,
    ) -> None:
        """See ``stream_of``."""
        super().__init__(snaplen)
        self.interfaces: list[Interface] = []
        """The interfaces that the stream has introduced, in order."""
        self._filter_text = filter_text
        self._known, self._captured, self._start_ns = known, captured, start_ns
        self._counts = np.zeros((0, 2), dtype=np.int64)  # sent and dropped packets, by place of the interface
        self._places: dict[tuple[int, str, int], int] = {}  # by index, name and link: a change makes another interface

    def header(self) -> bytes:
        """The section."""
        system = os.uname()
        options = _options(
            (_SHB_HARDWARE, system.machine.encode()),
            (_SHB_OS, f"{system.sysname} {system.release}".encode()),
            (_SHB_USERAPPL, f"netobs {__version__}".encode()),
        )
        return _block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + options)  # -1: length not known

    @property
    def reserve_bytes(self) -> int:
        """A block for each interface."""
        return STATISTICS_BYTES * len(self.interfaces)

    def records(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> Records:
        """An Enhanced Packet Block for each packet, after the blocks of interfaces that are new."""
        self._known = context.interfaces
        sources, head = self._sources(batch.meta["ifindex"][rows], batch.meta["link"][rows])
        captured = np.minimum(batch.meta["caplen"][rows], self._snaplen).astype(np.int64)
        padded = (captured + 3) & ~3
        total = padded + _BETWEEN.itemsize

        def gather(count: int) -> Vectors:
            first = slice(0, count)
            between = _between(batch, rows[first], context.offset_ns, sources[first], captured[first], total[first])
            return _padded_vectors(batch, batch.start[rows[first]], captured[first], padded[first], between)

        return Records(head, np.cumsum(total), sources, gather)

    def count(self, records: Records, sent: int, dropped: int = 0) -> None:
        """By interface."""
        places = len(self.interfaces)
        parts = records.sources[:sent], records.sources[sent : sent + dropped]
        counts = np.stack([np.bincount(part, minlength=places) for part in parts], axis=1)
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    def introduction(self, lost: Mapping[int, int]) -> bytes:
        """Interface Description Blocks: of interfaces that only ``lost`` packets; if no packet was selected, of the
        captured ones. libpcap refuses a pcapng without any interface, and one with interfaces of several link types."""
        told = {interface.index for interface in self.interfaces}
        missing = [self._known[index] for index in lost if index in self._known.keys() - told]
        if not told and not missing:
            captured = self._captured()
            link = common_link(captured)
            missing = [interface for interface in captured if link_of(interface) == link]
        return b"".join(self._place(interface, link_of(interface))[1] for interface in missing)

    def statistics(self, lost: Mapping[int, int], context: ReadContext) -> bytes:
        """An Interface Statistics Block for each interface that has had packets. An interface that got another name has
        two places; what it lost is known by its index alone, and counts at the later one.

        The numbers have the meaning of dumpcap's files on Linux, where libpcap sees only packets that the filter
        accepts: ifrecv and filteraccept count selected packets, usrdeliv those in the stream, ifdrop all that are
        missing in it (Wireshark shows them as dropped), osdrop those of ifdrop that the kernel had no room for.
        """
        times = _time(self._start_ns + context.offset_ns), _time(context.now_ns + context.offset_ns)
        counts = [*self._counts.tolist(), *[(0, 0)] * (len(self.interfaces) - len(self._counts))]
        latest = {interface.index: place for place, interface in enumerate(self.interfaces)}
        missing = {place: lost.get(index, 0) for index, place in latest.items()}
        each = [(place, sent, dropped, missing.get(place, 0)) for place, (sent, dropped) in enumerate(counts)]
        return b"".join(_statistics(*one, *times) for one in each if any(one[1:]))

    def _sources(self, ifindex: npt.NDArray[np.uint32], link: npt.NDArray[np.uint8]) -> tuple[Numbers, bytes]:
        """The place of each packet's interface, and the blocks of new ones."""
        found, first, inverse = np.unique(ifindex, return_index=True, return_inverse=True)
        places, blocks = np.empty(len(found), dtype=np.int64), []
        for number, (index, row) in enumerate(zip(found.tolist(), first.tolist())):
            place, block = self._place(self._known.get(index) or Interface(index, f"if{index}", 0), int(link[row]))
            places[number] = place
            blocks.append(block)
        return places[inverse], b"".join(blocks)

    def _place(self, interface: Interface, link: int) -> tuple[int, bytes]:
        """The number of ``interface`` in the stream, and its block if it is new there."""
        key = (interface.index, interface.name, link)
        place = self._places.get(key)
        if place is not None:
            return place, b""
        self._places[key] = len(self.interfaces)
        self.interfaces.append(interface)
        return self._places[key], self._interface_block(interface, link)

    def _interface_block(self, interface: Interface, link: int) -> bytes:
        options = _options(
            (_IF_NAME, interface.name.encode("utf-8", "replace")),
            (_IF_DESCRIPTION, interface.alias.encode("utf-8", "replace")),
            (_IF_TSRESOL, _NANOSECONDS),
            (_IF_FILTER, _FILTER_TEXT + self._filter_text.encode("utf-8", "replace")),
        )
        return _block(_INTERFACE, struct.pack("<HHI", LINK_TYPES[link], 0, self._snaplen) + options)


def _between(
    batch: PacketBatch, rows: Numbers, offset_ns: int, sources: Numbers, captured: Numbers, total: Numbers
) -> npt.NDArray[np.void]:
    """Shape (n + 1,): the bytes before each packet, and after the last. The ends of the array belong to no packet."""
    between = np.zeros(len(rows) + 1, dtype=_BETWEEN)
    end, begin = between[1:], between[:-1]
    time_ns = batch.meta["time_ns"][rows].astype(np.int64) + offset_ns
    end["flags_option"], end["flags_length"] = _EPB_FLAGS, 4
    end["flags"] = batch.meta["direction"][rows] + 1  # 1 inbound, 2 outbound
    end["total_again"] = begin["total"] = total
    begin["type"] = _PACKET
    begin["interface"] = sources
    begin["time_high"] = time_ns >> 32
    begin["time_low"] = time_ns & _LOW
    begin["captured"] = captured
    begin["original"] = batch.meta["length"][rows]
    return between


def _padded_vectors(
    batch: PacketBatch, start: Numbers, captured: Numbers, padded: Numbers, between: npt.NDArray[np.void]
) -> Vectors:
    """Packets and the bytes between them, which start with the padding of the first. In the buffer, a packet is
    followed by the headroom of another one, or by octets that ``snaplen`` cuts off."""
    framed = np.zeros(len(between), dtype=_FRAMED)
    framed["between"] = between.view(_OPAQUE)
    begin = np.arange(len(between)) * _FRAMED.itemsize + _PADDING_BYTES
    end = begin + _BETWEEN.itemsize
    begin[0] += _END_BYTES
    begin[1:] -= padded - captured
    end[-1] -= _BEGIN_BYTES
    vectors = Vectors(2 * len(start) + 1)
    vectors.put(slice(0, None, 2), bytearray(framed.data.cast("B")), begin, end)  # short slices of these are faster
    vectors.put(slice(1, None, 2), batch.buffer, start, start + captured)
    return vectors


def _statistics(place: int, sent: int, dropped: int, lost: int, start: bytes, now: bytes) -> bytes:
    numbers = (
        (_ISB_IFRECV, sent + dropped + lost),
        (_ISB_IFDROP, dropped + lost),
        (_ISB_FILTERACCEPT, sent + dropped + lost),
        (_ISB_OSDROP, lost),
        (_ISB_USRDELIV, sent),
    )
    times = ((_ISB_STARTTIME, start), (_ISB_ENDTIME, now))
    options = _options(*times, *((code, struct.pack("<Q", number)) for code, number in numbers))
    return _block(_STATISTICS, struct.pack("<I", place) + now + options)


def _time(time_ns: int) -> bytes:
    return struct.pack("<II", time_ns >> 32, time_ns & _LOW)


def _options(*options: tuple[int, bytes]) -> bytes:
    """Options that have a value, and their end."""
    return b"".join(_option(code, value) for code, value in options if value) + b"\0\0\0\0"


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    total = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + total + body + total
