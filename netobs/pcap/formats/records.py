"""What the formats have in common: packets of a batch as records of a stream, one slice for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Callable, NamedTuple, Protocol

import numpy as np

from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import Numbers, PacketBatch
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP
from netobs.pcap.vectors import Vectors


@dataclass(frozen=True)
class Records:
    """Some packets of a batch, as a stream has them. To be used up before the next batch is read."""

    head: bytes
    """What a stream must have before these packets, whatever becomes of them: blocks of new interfaces."""

    ends: Numbers
    """Shape (n,): where in ``body`` the record of each packet ends."""

    sources: Numbers
    """Shape (n,): the place of each packet's interface in ``PacketFormat.interfaces``."""

    gather: Callable[[int], Vectors]
    """The first so many records where they lie: to be used before anything else is made of the batch."""

    @cached_property
    def body(self) -> bytes:
        """The records, back to back. Made when the first client has room for one."""
        return self.gather(len(self)).join() if len(self) else b""

    def __len__(self) -> int:
        return len(self.ends)


class Counts(NamedTuple):
    """Packets of one interface: what the filter selected is the sum of the three."""

    sent: int
    dropped: int
    """By the agent: the client was too slow, or beyond its rate."""
    lost: int
    """In the kernel: the ring buffer of a CPU was full."""


class PacketFormat(Protocol):
    """A stream of one format, for any number of clients that get the same bytes. It knows what was said before."""

    interfaces: list[Interface]
    """Those that the stream has told of, in order."""

    statistics_bytes: int
    """What ``statistics`` takes for one interface."""

    def header(self) -> bytes:
        """What a client that joins now gets first."""

    def records(
        self, batch: PacketBatch, rows: Numbers, offset_ns: int, interfaces: Mapping[int, Interface]
    ) -> Records:
        """The packets ``rows`` of ``batch``, but those that the format has no place for.

        ``offset_ns``: CLOCK_REALTIME less CLOCK_MONOTONIC. ``interfaces``: what is known, by index.
        """

    def introduce(self, interfaces: list[Interface]) -> bytes:
        """What is to be sent before ``statistics`` of interfaces that have had no packet; those known are left out."""

    def statistics(self, counts: Mapping[int, Counts], start_ns: int, now_ns: int) -> bytes:
        """Counts by place in ``interfaces``, from ``start_ns`` to ``now_ns`` (CLOCK_REALTIME)."""


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
    """What ``PacketFormat.statistics`` wants, of the interfaces that have had packets, in the stream or lost.

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
