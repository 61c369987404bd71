"""Merging the rows of one eviction: one row for each Flow Key, whatever CPU, table or ring buffer they came from.

Work is done in columns, over a few thousand rows at a time so that temporaries stay small. An eviction without
doubles, the usual case, is not copied at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np

from netobs.flow.key_hash import Hashes, hash_keys, key_words, same_keys
from netobs.flow.metrics import METRICS, Merge
from netobs.flow.records import CHUNK_ROWS, KEY, RECORD_DTYPES, Records, opaque, put, take

if TYPE_CHECKING:
    import numpy.typing as npt

    Indices = npt.NDArray[np.intp]
else:
    Indices = np.ndarray
HashFunction = Callable[[Records, int], Hashes]

NO_HASH = 0
"""Hash of a merged row that shares its hash with another key of its eviction."""

UFUNCS = {Merge.SUM: np.add, Merge.MIN: np.minimum, Merge.MAX: np.maximum, Merge.OR: np.bitwise_or}


class _Rules(NamedTuple):
    """How the metrics of a kind of records merge: with what function, or ``of_first``, by the part that is first."""

    combined: tuple[tuple[str, np.ufunc], ...]
    of_first: tuple[str, ...]


def rules(dtype: np.dtype[np.void]) -> _Rules:
    """Of the metrics that records of ``dtype`` have."""
    mine = [metric for metric in METRICS if metric.name in (dtype.names or ())]
    return _Rules(
        tuple((each.name, UFUNCS[each.merge]) for each in mine if each.merge in UFUNCS),
        tuple(each.name for each in mine if each.merge is Merge.FIRST),
    )


_RULES = {dtype.itemsize: rules(dtype) for dtype in RECORD_DTYPES}

_SYN, _ENDS = 0x02, 0x01 | 0x04
_TIME_SHIFT = np.uint64(10)  # of end and syn: units of 1,024 ns
_TIME_SPAN_NS = np.uint64(1 << (32 + 10))  # then they repeat
_NEVER = np.uint32(0xFFFF_FFFF)  # as the age of a SYN


def combine(records: Records, parts: Records) -> None:
    """Add the metrics of ``parts`` to ``records``, row by row, in place; the keys are taken to be equal."""
    combined, of_first = _RULES[records.dtype.itemsize]
    connections = np.flatnonzero(parts["tcp_flags"] & (_SYN | _ENDS))
    if connections.size:
        pairs = np.empty(2 * len(connections), records.dtype)
        opaque(pairs)[0::2] = opaque(records)[connections]
        opaque(pairs)[1::2] = opaque(parts)[connections]
        whole = np.empty(len(connections), records.dtype)
        _reduce_groups(pairs, np.arange(0, len(pairs) + 1, 2), whole)
    earlier = np.flatnonzero(parts["first_ns"] < records["first_ns"])
    if earlier.size:
        for name in of_first:
            records[name][earlier] = parts[name][earlier]
    for name, function in combined:
        function(records[name], parts[name], out=records[name])
    if connections.size:
        put(records, connections, whole)


def merge(records: Records, seed: int, hash_function: HashFunction = hash_keys) -> tuple[Records, Hashes]:
    """One row for each Flow Key of ``records``, in no particular order, and the hashes of their keys.

    ``records`` is taken over: if there is nothing to merge, it is what comes back, with ``errno`` set to 0. Rows
    without packets (a CPU that never saw the flow) are left out. All hashes that come back are different, but for
    those of keys that share the hash of another key: they are ``NO_HASH``.
    """
    records = _with_packets(records)
    hashes = hash_function(records, seed)
    leaders = _leaders(hashes)
    doubles = np.flatnonzero(leaders != np.arange(len(leaders), dtype=leaders.dtype))
    collision = doubles.size > 0 and not _all_same_key(records, doubles, leaders[doubles])
    if collision:
        leaders = _leaders_by_key(records)
        doubles = np.flatnonzero(leaders != np.arange(len(leaders)))
    if doubles.size:
        records, hashes = _reduce(records, hashes, leaders, doubles)
    if collision:
        _, owners = np.unique(hashes, return_index=True)
        owned = np.zeros(len(hashes), np.bool_)
        owned[owners] = True
        hashes[~owned] = NO_HASH
    records["errno"] = 0
    return records, hashes


def _with_packets(records: Records) -> Records:
    """The rows that count packets, contiguous and writeable; ``records`` itself if that is what it is."""
    if not (records.flags.c_contiguous and records.flags.writeable):
        records = np.array(records)
    seen = records["packets"] != 0
    return records if seen.all() else take(records, np.flatnonzero(seen))


def _leaders(hashes: Hashes) -> npt.NDArray[np.int32]:
    """For each row the index of one row (the same for all of them) that has the same hash.

    Every row writes its index to a slot that its hash names; the one that stays there leads those of the same hash.
    Rows that lost their slot to another hash try again among themselves: a few rounds, without a sort.
    """
    leaders = np.arange(len(hashes), dtype=np.int32)
    table = np.empty(max(1 << (4 * len(hashes)).bit_length(), 1), np.int32)
    mask = np.uint64(len(table) - 1)
    pending, pending_hashes = leaders.copy(), hashes
    while pending.size:
        slots = (pending_hashes & mask).astype(np.intp)
        table[slots] = pending
        winners = table[slots]
        lost = np.flatnonzero(winners != pending)
        pending, winners, pending_hashes = pending[lost], winners[lost], pending_hashes[lost]
        led = hashes[winners] == pending_hashes
        leaders[pending[led]] = winners[led]
        pending, pending_hashes = pending[~led], pending_hashes[~led]
    return leaders


def _all_same_key(records: Records, rows: Indices, others: npt.NDArray[np.int32]) -> bool:
    for begin in range(0, len(rows), CHUNK_ROWS):
        chunk = slice(begin, begin + CHUNK_ROWS)
        if not same_keys(take(records, rows[chunk]), take(records, others[chunk])).all():
            return False
    return True


def _leaders_by_key(records: Records) -> npt.NDArray[np.int32]:
    """As ``_leaders``, by the whole key: slower, for an eviction that has two keys with one hash."""
    keys = np.ascontiguousarray(key_words(records)).view(np.dtype((np.void, KEY.itemsize))).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return first[group.ravel()].astype(np.int32)


def _reduce(
    records: Records, hashes: Hashes, leaders: npt.NDArray[np.int32], doubles: Indices
) -> tuple[Records, Hashes]:
    """One row for each leader: its row alone, or the sum of those it leads."""
    grouped = np.zeros(len(records), np.bool_)
    grouped[doubles] = True
    grouped[leaders[doubles]] = True
    single, members = np.flatnonzero(~grouped), np.flatnonzero(grouped)
    members = members[_stable_order(leaders[members])]
    starts = np.flatnonzero(np.diff(leaders[members], prepend=np.int32(-1)))
    merged = np.empty(len(single) + len(starts), records.dtype)
    take(records, single, out=merged[: len(single)])
    ends = np.append(starts, len(members))
    for begin in range(0, len(starts), CHUNK_ROWS):
        groups = ends[begin : begin + CHUNK_ROWS + 1]
        rows = take(records, members[groups[0] : groups[-1]])
        target = len(single) + begin
        _reduce_groups(rows, groups - groups[0], merged[target : target + len(groups) - 1])
    return merged, hashes[np.concatenate((single, members[starts]))]


def _stable_order(numbers: npt.NDArray[np.int32]) -> Indices:
    """As a stable argsort of ``numbers`` >= 0, by halves: numpy has a radix sort for 16 bits only."""
    order = np.argsort(numbers.astype(np.uint16), kind="stable")
    upper = (numbers >> 16).astype(np.uint16)
    return order[np.argsort(upper[order], kind="stable")]


def _reduce_groups(rows: Records, bounds: Indices, merged: Records) -> None:
    """Reduce ``rows[bounds[i]:bounds[i + 1]]`` to ``merged[i]``."""
    combined, of_first = _RULES[rows.dtype.itemsize]
    starts, sizes = bounds[:-1], np.diff(bounds)
    take(rows, starts, out=merged)
    for name, function in combined:
        function.reduceat(rows[name], starts, out=merged[name])
    group = np.repeat(np.arange(len(starts)), sizes)
    is_first = rows["first_ns"] == merged["first_ns"][group]
    _restart(rows, starts, group, merged, is_first)
    earliest = np.flatnonzero(is_first)[::-1]
    first = np.empty(len(starts), np.intp)
    first[group[earliest]] = earliest  # of several earliest rows, the last write is that of the first row
    for name in of_first:
        merged[name] = rows[name][first]


def _restart(rows: Records, starts: Indices, group: Indices, merged: Records, is_first: npt.NDArray[np.bool_]) -> None:
    """``end`` and ``syn``, and what follows from them: as ``starts_anew`` of bpf/flow.bpf.h, whoever saw which packet.

    ``is_first`` is changed for flows that start anew: to the rows that have the SYN. Times are compared by their age at
    the last packet, for they repeat; a SYN so old that its age may be wrong is before any end that is in ``rows``.
    """
    merged["syn"] = merged["end"] = 0
    if not (merged["tcp_flags"] & (_SYN | _ENDS)).any():
        return
    last_ns = merged["last_ns"]
    last = (last_ns >> _TIME_SHIFT).astype(np.uint32)
    has_syn = ((rows["tcp_flags"] & _SYN) != 0) & (last_ns[group] - rows["first_ns"] < _TIME_SPAN_NS)
    has_end = (rows["tcp_flags"] & _ENDS) != 0
    syn_ages = np.where(has_syn, last[group] - rows["syn"], _NEVER)
    syn_age = np.minimum.reduceat(syn_ages, starts)
    end_age = np.maximum.reduceat(np.where(has_end, last[group] - rows["end"], np.uint32(0)), starts)
    merged["syn"] = np.where(syn_age != _NEVER, last - syn_age, np.uint32(0))
    merged["end"] = np.where((merged["tcp_flags"] & _ENDS) != 0, last - end_age, np.uint32(0))
    anew = np.flatnonzero(syn_age < end_age)
    if not anew.size:
        return
    merged["first_ns"][anew] = ((last_ns[anew] >> _TIME_SHIFT) - syn_age[anew]) << _TIME_SHIFT
    members = np.flatnonzero((syn_age < end_age)[group])
    is_first[members] = syn_ages[members] == syn_age[group[members]]
