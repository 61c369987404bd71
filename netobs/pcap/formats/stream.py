"""The common part of the formats: packets of a batch as records of a stream, one slice for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Callable

from netobs.base.vectors import Numbers, Vectors
from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import PacketBatch
from netobs.pcap.distribution import ReadContext
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP

MAGIC_NUMBERS = {"pcap": b"\x4d\x3c\xb2\xa1", "pcapng": b"\x0a\x0d\x0d\x0a"}
"""What the header of each begins with: pcap with times in nanoseconds, little endian; the block type of a section."""

REFUSAL = b"netobs: "
"""What stands in place of a stream that there is not begins with; a line of text follows."""


@dataclass(frozen=True)
class Records:
    """Some packets of a batch in the form of a stream. Use them up before the next batch is read."""

    head: bytes
    """Blocks of new interfaces, which a stream must have before these packets, even if these are dropped."""

    ends: Numbers
    """Shape (n,): the end of each packet's record in ``body``."""

    sources: Numbers
    """Shape (n,): the place of each packet's interface in the stream."""

    gather: Callable[[int], Vectors]
    """The first N records in place: use them before another format uses the batch."""

    @cached_property
    def body(self) -> bytes:
        """The records, back to back. Made when the first client has room for one."""
        return self.gather(len(self)).join() if len(self) else b""

    def __len__(self) -> int:
        return len(self.ends)


class PacketStream:
    """A stream of one format. Classic pcap says nothing of interfaces and losses: what does so is empty here."""

    def __init__(self, snaplen: int) -> None:
        self.other_link = 0
        """Packets that the format has no place for."""
        self._snaplen = snaplen

    @property
    def reserve_bytes(self) -> int:
        """How long ``statistics`` of the interfaces so far may be."""
        return 0

    def header(self) -> bytes:
        """The start of the stream."""
        raise NotImplementedError

    def records(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> Records:
        """The packets ``rows`` of ``batch``, except those that the format cannot hold."""
        raise NotImplementedError

    def count(self, records: Records, sent: int, dropped: int = 0) -> None:
        """The first ``sent`` of ``records`` are in the stream; the next ``dropped`` never will be."""

    def introduction(self, lost: Mapping[int, int]) -> bytes:
        """Blocks of the interfaces that ``statistics`` need and the stream does not have yet."""
        return b""

    def statistics(self, lost: Mapping[int, int], context: ReadContext) -> bytes:
        """What the filter selected, and what of it is not in the stream. ``lost``: packets that the kernel had no room
        for, by interface index."""
        return b""


def link_of(interface: Interface) -> int:
    """What packets of ``interface`` begin with."""
    return LINK_ETHERNET if interface.has_ethernet else LINK_IP


def common_link(interfaces: Sequence[Interface]) -> int:
    """The link type of a classic pcap stream: Ethernet, unless none of its possible interfaces has it."""
    return LINK_IP if interfaces and not any(interface.has_ethernet for interface in interfaces) else LINK_ETHERNET
