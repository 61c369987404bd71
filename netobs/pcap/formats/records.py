"""The common part of the formats: packets of a batch as records of a stream, one slice for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Callable, NamedTuple

import numpy as np

from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import Numbers, PacketBatch
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP
from netobs.pcap.vectors import Vectors


@dataclass(frozen=True)
class Records:
    """Some packets of a batch in the form of a stream. Use them up before the next batch is read."""

    head: bytes
    """Blocks of new interfaces, which a stream must have before these packets, even if these are dropped."""

    ends: Numbers
    """Shape (n,): the end of each packet's record in ``body``."""

    sources: Numbers
    """Shape (n,): the place of each packet's interface in ``PacketFormat.interfaces``."""

    gather: Callable[[int], Vectors]
    """The first N records in place: use them before another format uses the batch."""

    @cached_property
    def body(self) -> bytes:
        """The records, back to back. Made when the first client has room for one."""
        return self.gather(len(self)).join() if len(self) else b""

    def __len__(self) -> int:
        return len(self.ends)


class Counts(NamedTuple):
    """Packets of one interface. The filter selected the sum of the three."""

    sent: int
    dropped: int
    """By the agent: the client was too slow, or beyond its rate."""
    lost: int
    """In the kernel: the ring buffer of a CPU was full."""


class PacketFormat:
    """A stream of one format, without interfaces and statistics if the format has none."""

    statistics_bytes = 0
    """Bytes of ``statistics`` for one interface."""

    def __init__(self, snaplen: int) -> None:
        self.interfaces: list[Interface] = []
        """The interfaces that the stream has introduced, in order."""
        self._snaplen = snaplen

    def header(self) -> bytes:
        """The start of the stream."""
        raise NotImplementedError

    def records(
        self, batch: PacketBatch, rows: Numbers, offset_ns: int, interfaces: Mapping[int, Interface]
    ) -> Records:
        """The packets ``rows`` of ``batch``, except those that the format cannot hold.

        ``offset_ns``: CLOCK_REALTIME minus CLOCK_MONOTONIC. ``interfaces``: the known ones, by index.
        """
        raise NotImplementedError

    def introduce(self, interfaces: list[Interface]) -> bytes:
        """The blocks to send before ``statistics`` of interfaces without packets; those already introduced are left
        out."""
        return b""

    def statistics(self, counts: Mapping[int, Counts], start_ns: int, now_ns: int) -> bytes:
        """Counts by place in ``interfaces``, from ``start_ns`` to ``now_ns`` (CLOCK_REALTIME)."""
        return b""


def link_of(interface: Interface) -> int:
    """What packets of ``interface`` begin with."""
    return LINK_ETHERNET if interface.has_ethernet else LINK_IP


def add_places(counts: Numbers, places: Numbers) -> Numbers:
    """``counts`` by place, and one for each of ``places``."""
    more = np.bincount(places, minlength=len(counts))
    more[: len(counts)] += counts
    return more


def counts_by_place(
    interfaces: list[Interface], sent: Numbers, dropped: Numbers, lost: Mapping[int, int]
) -> dict[int, Counts]:
    """The argument of ``PacketFormat.statistics``, for interfaces with packets in the stream or lost.

    ``sent`` and ``dropped`` are by place, ``lost`` is by interface index: it counts at the latest place of an index.
    """
    latest = {interface.index: place for place, interface in enumerate(interfaces)}
    counts = {}
    for place, interface in enumerate(interfaces):
        is_latest = latest[interface.index] == place
        each = Counts(_at(sent, place), _at(dropped, place), lost.get(interface.index, 0) * is_latest)
        if any(each):
            counts[place] = each
    return counts


def _at(counts: Numbers, place: int) -> int:
    return int(counts[place]) if place < len(counts) else 0
