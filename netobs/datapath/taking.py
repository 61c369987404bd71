"""Takes flows out of the maps, with a journal that another process may go on with."""

from __future__ import annotations

import errno
from typing import NamedTuple

import numpy as np

from netobs.datapath.flow_table import FlowTable, Quiet
from netobs.datapath.halves import Halves
from netobs.datapath.ring import RingBuffer
from netobs.flow.journal import Intake, Journal
from netobs.flow.records import Records, empty
from netobs.kernel import libbpf


class RingReading(NamedTuple):
    """Records of packets that the flow table did not take. ``table_full``: an eviction would make room."""

    records: Records
    table_full: bool


class Taking:
    """``go_on`` -> ``evict`` and ``read_ring``, again and again.

    ``journal``: where rows go before they are taken out. It may be replaced before ``go_on``.
    """

    table: FlowTable
    ring: RingBuffer
    halves: Halves

    def __init__(self, record: np.dtype[np.void]) -> None:
        """``record``: the dtype of rows."""
        self._record = record
        self.journal, self._maps = Journal(record), ""
        self._intake: Intake | None = None

    def go_on(self) -> None:
        """Finishes the eviction in which the former process ended, if these are its maps."""
        self._maps = str(libbpf.number_of(self.ring.fd))
        self.ring.give_back(self.journal.state.rings.get(self._maps, 0))
        self._finish_clearing()

    def evict(self, now_ns: int) -> Records:
        """Flips the halves, waits for a grace period, and takes all flows out of the quiet half: shape ``(n,)``; a flow
        that several CPUs saw has a row for each.

        :raises CaptureError: waiting for a grace period is impossible.
        :raises OSError: a map is unreadable; nothing is lost, the next two evictions take the rest.
        """
        if not self.table.MAPS:
            return empty(0, self._record)
        self._finish_clearing()
        half = self.halves.flip(now_ns)
        rows = self._take(Quiet(half, self.halves.in_use_since_ns[half], now_ns))
        self.halves.emptied(half)
        return rows

    def _take(self, quiet: Quiet) -> Records:
        """With a journal that outlives the process, in steps that another process may finish: see flow/journal.py."""
        keeps = self.journal.keeps
        intake = self._intake or self.journal.intake(self._record)
        self._intake = None if keeps else intake  # what was taken before an error comes out next time
        self.table.read(quiet, intake, take=not keeps)
        self._intake = None
        rows = intake.rows
        if keeps:
            self.journal.taken(self._maps, quiet.half)
            self._finish_clearing()
        return rows

    def _finish_clearing(self) -> None:
        half = self.journal.state.quiet.get(self._maps)
        if half is not None:
            self.table.clear(half)
            self.journal.cleared(self._maps)

    def read_ring(self) -> RingReading:
        """Takes the records out of the ring buffer."""
        intake = self.journal.intake(self._record)
        position = self.ring.read(intake)
        records = intake.rows
        if len(records):
            self.journal.ring_taken(self._maps, position)
            self.ring.give_back(position)
        return RingReading(records, bool((records["errno"] == errno.E2BIG).any()))
