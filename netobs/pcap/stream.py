"""One stream of packets in its format: its packets, within limits, and its statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Callable

import numpy as np

from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import Numbers, PacketBatch
from netobs.pcap.distribution import ReadContext
from netobs.pcap.formats.pcap import PcapFormat
from netobs.pcap.formats.pcapng import PcapngFormat
from netobs.pcap.formats.records import PacketFormat, Records, add_places, counts_by_place, link_of
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP


class PacketStream:
    """Makes ``records`` of packets; the sender reports by ``count`` how many it sent."""

    def __init__(
        self,
        format_: PacketFormat,
        known: Mapping[int, Interface],
        captured: Callable[[], Sequence[Interface]],
        start_ns: int,
    ) -> None:
        """``known``: interfaces by index; ``captured`` tells which may have packets for it; ``start_ns``: from when
        they are, CLOCK_MONOTONIC."""
        self.format = format_
        self.start_ns = start_ns
        self.other_link = 0
        """Packets that the format has no place for."""
        self._captured = captured
        self._known = known
        self._sent = np.zeros(0, dtype=np.int64)  # by place of the interface in the stream
        self._dropped = np.zeros(0, dtype=np.int64)

    def records(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> Records:
        """The packets ``rows`` of ``batch``, in the form of the stream."""
        self._known = context.interfaces
        records = self.format.records(batch, rows, context.offset_ns, context.interfaces)
        self.other_link += len(rows) - len(records)
        return records

    def count(self, records: Records, sent: int, dropped: int = 0) -> None:
        """The first ``sent`` of ``records`` are in the stream; the next ``dropped`` never will be."""
        if self.format.statistics_bytes:
            self._sent = add_places(self._sent, records.sources[:sent])
            self._dropped = add_places(self._dropped, records.sources[sent : sent + dropped])

    def introduction(self, lost: Iterable[int], context: ReadContext | None = None) -> bytes:
        """The interfaces that ``statistics`` need and the stream does not have yet: those that only ``lost`` packets,
        by index; if no packet was selected, the captured ones. libpcap refuses a pcapng without any interface, and one
        with interfaces of several link types."""
        if context is not None:
            self._known = context.interfaces
        told = {interface.index for interface in self.format.interfaces}
        missing = [self._known[index] for index in lost if index in self._known.keys() - told]
        if not told and not missing:
            captured = self._captured()
            link = common_link(captured)
            missing = [interface for interface in captured if link_of(interface) == link]
        return self.format.introduce(missing)

    def statistics(self, lost: Mapping[int, int], context: ReadContext) -> bytes:
        """Of the interfaces that have had packets, in the stream or ``lost``; without any, the captured ones alone."""
        counts = counts_by_place(self.format.interfaces, self._sent, self._dropped, lost)
        return self.format.statistics(counts, self.start_ns + context.offset_ns, context.now_ns + context.offset_ns)


def stream_of(name: str, link: int, snaplen: int, filter_text: str) -> PacketFormat:
    """A new stream of the format ``name``: "pcap" or "pcapng"."""
    return PcapFormat(link, snaplen) if name == "pcap" else PcapngFormat(snaplen, filter_text)


def common_link(interfaces: Sequence[Interface]) -> int:
    """The link type of a classic pcap stream: Ethernet, unless none of its possible interfaces has it."""
    has_ethernet = not interfaces or any(interface.has_ethernet for interface in interfaces)
    return LINK_ETHERNET if has_ethernet else LINK_IP
