"""Perf records, as copied out of the rings, become a batch of packets: columns, but for one step per record at most.

A record (include/uapi/linux/perf_event.h): struct perf_event_header (u32 type, u16 misc, u16 size), then for a sample
u32 size of what follows, struct packet_meta, octets of the packet, and padding to a multiple of 8.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netobs.pcap.batch import PacketBatch, no_packets
from netobs.pcap.tap.layout import FIRST_OCTETS, LINK_ETHERNET, META, PART_OCTETS, TAG_OCTETS

Positions = npt.NDArray[np.int64]

RECORD_LOST, RECORD_SAMPLE = 2, 9  # enum perf_event_type
META_OFFSET = 12
OCTETS_OFFSET = META_OFFSET + META.itemsize
LOST_OFFSET = 16  # of the number of lost records, in a record that tells of them
MAC_OCTETS = 12  # in front of a VLAN tag
ROW = np.dtype((np.void, META.itemsize))  # a gather of opaque rows takes a twelfth of the time that one of fields takes

PROBE_BYTES = 4096
SHORT_RECORD_BYTES = 1400
"""Up to this mean size, looking at every word of the buffer is faster than a step for each record."""
MAX_BREAKS = 256
SIZE_SHIFT = np.uint64(51)  # of the first word of a record: its size in words


class Walk(NamedTuple):
    """The records of one ring's part of the buffer."""

    samples: Positions
    """Where samples begin, multiples of 8."""
    stop: int
    """Where the last record that is there as a whole ends."""
    losses: Positions
    """Where the records begin that tell of others that did not fit."""


class Assembled(NamedTuple):
    """Packets, and what is left over of each ring."""

    batch: PacketBatch
    stops: list[int]
    """Where the first record begins that was not taken, for each ring."""
    carry_from: list[int]
    """Where the records, already taken, of a packet begin whose last ones are not there yet; -1 if there is none."""
    incomplete_packets: int
    """Left out as some of their records are missing. The programs have counted them."""


def walk(buffer: bytearray, begin: int, end: int) -> Walk:
    """The records from ``begin`` to ``end``, where the last one may be cut short; both are multiples of 8."""
    probe = _step(buffer, begin, min(end, begin + PROBE_BYTES))
    if end <= begin + PROBE_BYTES:
        positions = probe
    elif len(probe) > 1 and probe[-1] - begin < (len(probe) - 1) * SHORT_RECORD_BYTES:
        positions = _scan(buffer, begin, end)
    else:
        run = _run(buffer, begin, end)
        positions = np.concatenate([run, _step(buffer, int(run[-1]), end)[1:]])
    if not len(positions):
        return Walk(positions, begin, positions)
    words = np.frombuffer(buffer, dtype="<u8")
    headers = words[positions >> 3]
    last = int(positions[-1])
    stop = last + (int(headers[-1] >> SIZE_SHIFT) << 3)
    if stop > end:
        positions, headers, stop = positions[:-1], headers[:-1], last
    kinds = headers.astype(np.uint32)
    others = kinds != RECORD_SAMPLE
    if not others.any():
        return Walk(positions, stop, positions[:0])
    return Walk(positions[~others], stop, positions[kinds == RECORD_LOST])


def lost_records(buffer: bytearray, losses: Positions) -> int:
    """How many records did not fit, by what the records at ``losses`` tell."""
    return int(np.frombuffer(buffer, dtype="<u8")[(losses + LOST_OFFSET) >> 3].sum()) if len(losses) else 0


def _step(buffer: bytearray, begin: int, end: int) -> Positions:
    """Where records begin: a step for each."""
    sizes = memoryview(buffer)[6:].cast("H")
    position, end = begin >> 1, end >> 1
    found = array("q")
    append = found.append
    while position < end:
        append(position)
        position += sizes[position] >> 1
    return np.frombuffer(found, dtype=np.int64) << 1 if found else np.empty(0, dtype=np.int64)


def _run(buffer: bytearray, begin: int, end: int) -> Positions:
    """Where the records begin that are the first and those behind it of its size: bulk traffic comes so."""
    words = np.frombuffer(buffer, dtype="<u8", count=(end - begin) >> 3, offset=begin)
    stride = int(words[0] >> SIZE_SHIFT)
    others = np.flatnonzero(words[::stride] != words[0])
    count = int(others[0]) if len(others) else -(-len(words) // stride)
    return begin + np.arange(count, dtype=np.int64) * (stride << 3)


def _scan(buffer: bytearray, begin: int, end: int) -> Positions:
    """The same, by looking at all words that could begin a sample. They are believed as far as each begins where the
    one before ends; payload may look alike."""
    words = np.frombuffer(buffer, dtype="<u8", count=(end - begin) >> 3, offset=begin)
    found = np.flatnonzero((words & np.uint64(0xFFFF_FFFF)) == RECORD_SAMPLE)
    following = found + (words[found] >> SIZE_SHIFT).astype(np.int64)
    breaks = np.flatnonzero(following[:-1] != found[1:])
    if len(breaks) > MAX_BREAKS:
        return _step(buffer, begin, end)
    parts: list[Positions] = []
    word = 0
    while word < len(words):
        at = int(np.searchsorted(found, word))
        if at < len(found) and found[at] == word:
            after = int(np.searchsorted(breaks, at))
            last = int(breaks[after]) if after < len(breaks) else len(found) - 1
            parts.append(found[at : last + 1])
            word = int(following[last])
        else:  # no sample
            parts.append(np.array([word]))
            word += int(words[word] >> SIZE_SHIFT)
    return begin + (np.concatenate(parts) << 3)


def assemble(buffer: bytearray, walks: list[Walk], unread: list[bool]) -> Assembled:
    """The packets of the rings, in the order of time. Of a ring that holds more than was copied (``unread``) nothing
    newer is known, and so what is newer is not taken from the others either."""
    positions = np.concatenate([each.samples for each in walks]) if walks else np.empty(0, dtype=np.int64)
    stops = [each.stop for each in walks]
    if not len(positions):
        return Assembled(no_packets(), stops, [-1] * len(walks), 0)
    meta = _meta(buffer, positions)
    counts = [len(each.samples) for each in walks]
    if any(unread) and len(walks) > 1:
        newer = _newer(meta["time_ns"], counts, unread)
        for ring, each in enumerate(walks):
            counts[ring] -= int(newer[ring].sum())
            if counts[ring] < len(each.samples):
                stops[ring] = int(each.samples[counts[ring]])
        taken = ~np.concatenate(newer)
        positions, meta = positions[taken], _rows(meta, taken)
    start = positions + OCTETS_OFFSET
    carry_from, incomplete = [-1] * len(walks), 0
    if meta["part"].any() or (meta["caplen"] > FIRST_OCTETS).any():
        keep, carry_from, incomplete = _join(buffer, positions, meta, np.cumsum(counts))
        meta, start = _rows(meta, keep), start[keep]
    _put_tags_back(buffer, meta, start)
    if len(walks) > 1:
        order = np.argsort(meta["time_ns"], kind="stable")
        meta, start = _rows(meta, order), start[order]
    return Assembled(PacketBatch(buffer, meta, start), stops, carry_from, incomplete)


def _newer(times: npt.NDArray[np.uint64], counts: list[int], unread: list[bool]) -> list[npt.NDArray[np.bool_]]:
    """For each ring: which of its packets are newer than the last that was copied of a ring that holds more."""
    rings = np.split(times, np.cumsum(counts)[:-1])
    last = [ring[-1] for ring, more in zip(rings, unread) if more and len(ring)]
    return [ring > min(last) if last else np.zeros(len(ring), dtype=bool) for ring in rings]


def _rows(meta: npt.NDArray[np.void], which: npt.NDArray[np.generic]) -> npt.NDArray[np.void]:
    rows: npt.NDArray[np.void] = meta.view(ROW)[which].view(META)
    return rows


def _meta(buffer: bytearray, positions: Positions) -> npt.NDArray[np.void]:
    count = (len(buffer) - OCTETS_OFFSET) // 8 + 1
    rows: npt.NDArray[np.void] = np.ndarray((count,), dtype=ROW, buffer=buffer, offset=META_OFFSET, strides=(8,))
    meta: npt.NDArray[np.void] = rows[positions >> 3].view(META)
    return meta


def _join(
    buffer: bytearray, positions: Positions, meta: npt.NDArray[np.void], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], list[int], int]:
    """Moves the octets of the further records of a packet up to those of its first. Which rows are whole packets then,
    where each ring ends with an unfinished one, and how many are incomplete."""
    view = memoryview(buffer)
    keep = meta["part"] == 0
    carry_from, incomplete = [-1] * len(ends), 0
    for row in np.flatnonzero(keep & (meta["caplen"] > FIRST_OCTETS)).tolist():
        ring = int(np.searchsorted(ends, row, side="right"))
        left = int(meta["caplen"][row]) - FIRST_OCTETS
        parts = -(-left // PART_OCTETS)
        following = meta[row + 1 : min(row + 1 + parts, int(ends[ring]))]
        number = np.arange(1, len(following) + 1)
        fits = bool(((following["part"] == number) & (following["time_ns"] == meta["time_ns"][row])).all())
        if fits and len(following) == parts:
            target = int(positions[row]) + OCTETS_OFFSET + FIRST_OCTETS
            for position in positions[row + 1 : row + 1 + parts].tolist():
                source, octets = position + OCTETS_OFFSET, min(left, PART_OCTETS)
                view[target : target + octets] = view[source : source + octets]
                target, left = target + octets, left - octets
            continue
        keep[row] = False
        if fits:  # and the ring's records end here
            carry_from[ring] = int(positions[row])
        else:
            incomplete += 1
    return keep, carry_from, incomplete


def _put_tags_back(buffer: bytearray, meta: npt.NDArray[np.void], start: Positions) -> None:
    """A VLAN tag that was beside the octets: the addresses move to the front, over what was the meta."""
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
