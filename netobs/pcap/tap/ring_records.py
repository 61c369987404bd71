"""Turns records of the rings into a batch of packets, by columns, except for one step per record.

A record (kernel/bpf/ringbuf.c: struct bpf_ringbuf_hdr) has u32 length and flags, u32 page offset, then struct
packet_meta, the octets of the packet, and unused room.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from netobs.pcap.batch import PacketBatch, no_packets
from netobs.pcap.selection import LINK_ETHERNET
from netobs.pcap.tap.layout import META, TAG_OCTETS

if TYPE_CHECKING:
    import numpy.typing as npt

    Positions = npt.NDArray[np.int64]
else:
    Positions = np.ndarray

Lengths = memoryview
"""A ring as words of 4 bytes, format "I"."""

BUSY = 1 << 31  # of the first word of a record: it is still being written
HEADER_BYTES = 8
LEAST_RUN, LONGEST_RUN = 16, 4096  # records
STEP_WORDS = 1 << 16  # then it may be bulk traffic again
OCTETS_OFFSET = HEADER_BYTES + META.itemsize
MAC_OCTETS = 12  # before a VLAN tag
ROW = np.dtype((np.void, META.itemsize))  # a gather of opaque rows takes a twelfth of the time that one of fields takes


def walk(lengths: Lengths, begin: int, end: int) -> tuple[Positions, int]:
    """Starts of the records from ``begin`` to ``end`` or to a record that is still being written; and their end.

    Positions are the kernel's: bytes, which keep counting when the ring wraps.
    """
    ring = np.frombuffer(lengths, dtype=np.uint32)
    parts: list[Positions] = []
    while begin < end:
        lap = begin - begin % (len(lengths) << 2)
        first, stop = begin - lap >> 2, min(end - lap >> 2, len(lengths))
        found = _run(ring, first, stop)
        if len(found) < LEAST_RUN:
            found = _step(lengths, first, min(stop, first + STEP_WORDS))
        if not len(found):
            break
        parts.append((found << 2) + lap)
        last = int(found[-1])
        begin = lap + (last << 2) + HEADER_BYTES + lengths[last]
    return (np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)), begin


def _run(ring: npt.NDArray[np.uint32], first: int, stop: int) -> Positions:
    """Starts of the record ``first`` and of the following ones with its length, as in bulk traffic. In words."""
    words = int(ring[first]) + HEADER_BYTES >> 2
    heads = ring[first : min(stop, first + words * LONGEST_RUN) : words]
    others = np.flatnonzero(heads != heads[0])
    count = int(others[0]) if len(others) else len(heads)
    return first + np.arange(count, dtype=np.int64) * words


def _step(lengths: Lengths, at: int, stop: int) -> Positions:
    """Starts of complete records, with a step for each. In words."""
    found = array("q")
    append = found.append
    while at < stop:
        append(at)
        at += lengths[at] + HEADER_BYTES >> 2
    if at >= BUSY >> 2:
        found.pop()
    return np.array(found, dtype=np.int64)


def assemble(buffer: bytearray, rings: list[Positions], unread: list[bool]) -> tuple[PacketBatch, list[int]]:
    """The packets of the records that start at the positions in ``buffer``, multiples of 8, in the order of time; and
    their number for each ring. A ring with more records (``unread``) may hold older packets than other rings, so
    packets that are newer than its last one stay in the others."""
    counts = [len(ring) for ring in rings]
    if not any(counts):
        return no_packets(), counts
    positions = np.concatenate(rings)
    meta = _meta(buffer, positions)
    if any(unread) and len(rings) > 1:
        newer = _newer(meta["time_ns"], counts, unread)
        counts = [int((~late).sum()) for late in newer]
        taken = ~np.concatenate(newer)
        positions, meta = positions[taken], _rows(meta, taken)
    start = positions + OCTETS_OFFSET
    _put_tags_back(buffer, meta, start)
    if len(rings) > 1:
        order = np.argsort(meta["time_ns"], kind="stable")
        meta, start = _rows(meta, order), start[order]
    return PacketBatch(buffer, meta, start), counts


def _newer(times: npt.NDArray[np.uint64], counts: list[int], unread: list[bool]) -> list[npt.NDArray[np.bool_]]:
    """For each ring: the packets that are newer than the last copied packet of a ring with more records."""
    rings = np.split(times, np.cumsum(counts)[:-1])
    last = [ring[-1] for ring, more in zip(rings, unread) if more and len(ring)]
    return [ring > min(last) if last else np.zeros(len(ring), dtype=bool) for ring in rings]


def _rows(meta: npt.NDArray[np.void], which: npt.NDArray[np.generic]) -> npt.NDArray[np.void]:
    rows: npt.NDArray[np.void] = meta.view(ROW)[which].view(META)
    return rows


def _meta(buffer: bytearray, positions: Positions) -> npt.NDArray[np.void]:
    count = (len(buffer) - OCTETS_OFFSET) // 8 + 1
    rows: npt.NDArray[np.void] = np.ndarray((count,), dtype=ROW, buffer=buffer, offset=HEADER_BYTES, strides=(8,))
    meta: npt.NDArray[np.void] = rows[positions >> 3].view(META)
    return meta


def _put_tags_back(buffer: bytearray, meta: npt.NDArray[np.void], start: Positions) -> None:
    """Puts back a VLAN tag that was beside the octets: the addresses move forward, over the meta."""
    tagged = np.flatnonzero(
        (meta["vlan_proto"] != 0) & (meta["link"] == LINK_ETHERNET) & (meta["caplen"] >= MAC_OCTETS)
    )
    if not len(tagged):
        return
    words = np.frombuffer(buffer, dtype="<u4", count=len(buffer) >> 2)
    first = start[tagged] >> 2
    addresses = first[:, np.newaxis] + np.arange(MAC_OCTETS // 4)
    words[addresses - 1] = words[addresses]
    tag = np.empty((len(tagged), 2), dtype=">u2")
    tag[:, 0], tag[:, 1] = meta["vlan_proto"][tagged], meta["vlan_tci"][tagged]
    words[first + 2] = tag.view("<u4")[:, 0]
    start[tagged] -= TAG_OCTETS
    meta["caplen"][tagged] += TAG_OCTETS
    meta["length"][tagged] += TAG_OCTETS
