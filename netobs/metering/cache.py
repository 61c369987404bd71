"""The flow cache: keeps Flow Records between evictions, and decides which are due, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import numpy as np

from netobs.flow.key_hash import Hashes, hash_keys, same_keys
from netobs.flow.records import CHUNK_ROWS, RECORD, Records, empty, opaque, pick, take
from netobs.metering.index import Rows
from netobs.metering.merge import NO_HASH, HashFunction, Indices, combine, merge
from netobs.metering.store import FlowStore

if TYPE_CHECKING:
    import numpy.typing as npt

IDLE_TIMEOUT, ACTIVE_TIMEOUT, END_OF_FLOW, FORCED_END, LACK_OF_RESOURCES = 1, 2, 3, 4, 5
"""The values of flowEndReason (IE 136, RFC 5102 section 5.11.3)."""
REASONS = 6

_FIN_OR_RST = 0x01 | 0x04


class FlowCache:
    """Flow Records that are not due yet, at most ``max_flows``.

    A record is due when (the first rule that holds gives its ``flow_end_reason``)

    - a FIN or RST was seen: 3, at the eviction that brought it;
    - ``last_ns + idle_timeout_ns`` has come: 1;
    - ``first_ns + active_timeout_ns`` has come: 2. Later packets start a new record: counts are delta counts;
    - there is no room for it: 5. When ``max_flows`` flows are in the cache, the new flows of an eviction that are not
      due are handed out at once; the flows in the cache stay until they are due. So a full cache costs no more than
      one with room, and it still measures the flows that it already has as a whole.

    With ``active_timeout_ns`` 0 all records are due at each eviction and the cache stays empty. In every case, all
    packets and octets that come in are handed out exactly once: nothing is dropped.

    ``created`` counts the new records, ``expired`` (int64, shape ``(6,)``) the records handed out, by reason;
    ``created == len(cache) + expired.sum()``.
    """

    def __init__(
        self,
        active_timeout_ns: int,
        idle_timeout_ns: int,
        max_flows: int,
        seed: int,
        hash_function: HashFunction = hash_keys,
        dtype: np.dtype[np.void] = RECORD,
        store: FlowStore | None = None,
        room: Callable[[int], Records] | None = None,
    ) -> None:
        """``seed`` is a secret that keeps others from choosing flows whose hashes collide. ``dtype``: of records.

        ``store``: where they are kept, else memory of this process. ``room`` gives memory for so many due records,
        else each array has its own.
        """
        self._seed = seed
        self._hash_function = hash_function
        self._dtype = dtype
        self._store = FlowStore(dtype) if store is None else store
        self._room = room
        self.created = 0
        self.expired: npt.NDArray[np.int64] = np.zeros(REASONS, np.int64)
        self.set_limits(active_timeout_ns, idle_timeout_ns, max_flows)

    def set_limits(self, active_timeout_ns: int, idle_timeout_ns: int, max_flows: int) -> Records:
        """Sets other limits, also for the records in the cache. Hands out all of them if the cache may keep none.

        More records than ``max_flows`` stay until they are due.
        """
        self._active_timeout_ns = np.uint64(active_timeout_ns)
        self._idle_timeout_ns = np.uint64(idle_timeout_ns)
        self._max_flows = max_flows
        if active_timeout_ns == 0:
            return self.expire_all(ACTIVE_TIMEOUT)
        self._store.reschedule(self._due_ns(self._store.records))
        return empty(0, self._dtype)

    def restore(self, rows: int, generation: int) -> None:
        """As in ``FlowStore``, with the present limits."""
        self._store.restore(rows, generation, lambda records: self._hash_function(records, self._seed), self._due_ns)

    def __len__(self) -> int:
        return len(self._store)

    @property
    def nbytes(self) -> int:
        """Bytes reserved for the cache; the unused part takes no memory."""
        return self._store.nbytes

    def update(self, records: Records, now_ns: int, generation: int = 0) -> Records:
        """Take in the rows of an eviction (shape ``(n,)``) and hand out the records that are due.

        The cache takes over ``records``: it may change the array, and may return the same memory. ``generation``: of
        the journal; see ``FlowStore.begin``.
        """
        self._store.begin(generation)
        merged, hashes = merge(records, self._seed, self._hash_function)
        if self._active_timeout_ns == 0:
            self.created += len(merged)
            return self._hand_out(self._in_room(merged), np.full(len(merged), ACTIVE_TIMEOUT, np.uint8))
        rows = self._store.find(hashes)
        known = np.flatnonzero(rows)
        collided = self._add_to_known(merged, known, rows[known])
        fresh = np.flatnonzero(rows == 0)
        self.created += len(fresh) + len(collided)
        due_rows = self._store.due(now_ns)
        admitted, passed, due_ns = self._admit(merged, hashes, fresh, now_ns, len(due_rows))
        out = self._empty(len(due_rows) + len(passed) + len(collided))
        self._store.read(due_rows, out=out[: len(due_rows)])
        take(merged, np.concatenate((passed, collided)), out=out[len(due_rows) :])
        self._store.remove(due_rows)
        self._store.append(merged, admitted, hashes[admitted], due_ns)
        return self._hand_out(out, self._timeout_reasons(out, now_ns))

    def expire_all(self, reason: int = FORCED_END) -> Records:
        """Hand out all records, with ``reason``, and leave the cache empty. If these are kept, they are valid until the
        next ``update``."""
        records = self._store.remove_all()
        records["flow_end_reason"] = reason
        self.expired[reason] += len(records)
        return records

    def expire_interface(self, key: int, generation: int = 0) -> Records:
        """Hand out the records of one interface, with the reason "forced end": another interface gets its
        ``key`` (``interface_key``), or nobody does."""
        self._store.begin(generation)
        return self._expire_rows(self._store.of_interface(key))

    def expire_namespace(self, netns: int, generation: int = 0) -> Records:
        """Hand out the records of the network namespace with the number ``netns``, which has gone, in the same way."""
        self._store.begin(generation)
        return self._expire_rows(self._store.of_namespace(netns))

    def _expire_rows(self, rows: Indices) -> Records:
        records = self._store.read(rows, out=self._empty(len(rows)))
        self._store.remove(rows)
        records["flow_end_reason"] = FORCED_END
        self.expired[FORCED_END] += len(records)
        return records

    def _empty(self, records: int) -> Records:
        return np.empty(records, self._dtype) if self._room is None else self._room(records)

    def _in_room(self, records: Records) -> Records:
        if self._room is None:
            return records
        out = self._room(len(records))
        opaque(out)[:] = opaque(records)
        return out

    def _add_to_known(self, merged: Records, known: Indices, rows: Rows) -> Indices:
        """Add ``merged[known]`` to ``rows`` of the cache. Returns those of ``known`` that are not of the same flow."""
        collided = [known[:0]]
        for begin in range(0, len(known), CHUNK_ROWS):
            chunk, chunk_rows = known[begin : begin + CHUNK_ROWS], rows[begin : begin + CHUNK_ROWS]
            records, parts = self._store.read_to_change(chunk_rows), pick(merged, chunk)
            same = same_keys(records, parts)
            if not same.all():
                collided.append(chunk[~same])
                kept = np.flatnonzero(same)
                records, parts, chunk_rows = take(records, kept), take(parts, kept), chunk_rows[kept]
            combine(records, parts)
            self._store.write(chunk_rows, records, self._due_ns(records))
        return np.concatenate(collided)

    def _admit(
        self, merged: Records, hashes: Hashes, fresh: Indices, now_ns: int, leaving: int
    ) -> tuple[Indices, Indices, npt.NDArray[np.uint64]]:
        """Which of ``fresh`` enter the cache, which are handed out at once, and when the former are due.

        ``leaving`` flows make room. A record that is already due never enters, which saves short flows two copies.
        """
        due_ns = self._due_ns(pick(merged, fresh))
        waits = (due_ns > np.uint64(now_ns)) & (hashes[fresh] != NO_HASH)
        room = max(self._max_flows - len(self._store) + leaving, 0)
        waits[np.flatnonzero(waits)[room:]] = False
        return fresh[waits], fresh[~waits], due_ns[waits]

    def _due_ns(self, records: Records) -> npt.NDArray[np.uint64]:
        """When each record is due; 0 (at once) after a FIN or RST."""
        due_ns: npt.NDArray[np.uint64] = records["first_ns"] + self._active_timeout_ns
        np.minimum(due_ns, records["last_ns"] + self._idle_timeout_ns, out=due_ns)
        due_ns[(records["tcp_flags"] & _FIN_OR_RST) != 0] = 0
        return due_ns

    def _timeout_reasons(self, records: Records, now_ns: int) -> npt.NDArray[np.uint8]:
        now = np.uint64(now_ns)
        reasons = np.full(len(records), LACK_OF_RESOURCES, np.uint8)
        reasons[records["first_ns"] + self._active_timeout_ns <= now] = ACTIVE_TIMEOUT
        reasons[records["last_ns"] + self._idle_timeout_ns <= now] = IDLE_TIMEOUT
        return reasons

    def _hand_out(self, records: Records, reasons: npt.NDArray[np.uint8]) -> Records:
        """Count ``records`` and set their ``flow_end_reason``: 3 after a FIN or RST, else ``reasons``."""
        reasons[(records["tcp_flags"] & _FIN_OR_RST) != 0] = END_OF_FLOW
        records["flow_end_reason"] = reasons
        self.expired += np.bincount(reasons, minlength=REASONS)
        return records
