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
        self._quiet: Quiet | None = None

    def go_on(self) -> None:
        """Finishes the eviction in which the former process ended, if these are its maps."""
        self._maps = str(libbpf.number_of(self.ring.fd))
        self.ring.give_back(self.journal.state.rings.get(self._maps, 0))
        self._finish_clearing()

    def evict(self, now_ns: int) -> Records:
        """``flip``, ``halves.settle`` and ``take`` at once.

        :raises CaptureError: waiting for a grace period is impossible.
        :raises OSError: as in ``flip`` and ``take``.
        """
        if self.flip(now_ns):
            self.halves.settle()
        return self.take()

    def flip(self, now_ns: int) -> bool:
        """Begins an eviction: packets go to the other half from now on. Whether ``halves.settle`` must come before
        ``take``: there is nothing to take otherwise.

        :raises OSError: a map is unreadable, and nothing has begun.
        """
        if not self.table.MAPS:
            return False
        self._finish_clearing()
        half = self.halves.flip(now_ns)
        self._quiet = Quiet(half, self.halves.in_use_since_ns[half], now_ns)
        return True

    @property
    def passed_half(self) -> int:
        """Every eviction has ended after which packets go to this half."""
        return self.halves.active if self._quiet is None else self._quiet.half

    def take(self) -> Records:
        """Takes all flows out of the quiet half, if an eviction has begun: shape ``(n,)``; a flow that several CPUs saw
        has a row for each. With a journal that outlives the process, this happens in steps that another process may
        finish: see flow/journal.py.

        :raises OSError: a map is unreadable; nothing is lost, the next two evictions take the rest.
        """
        quiet, self._quiet = self._quiet, None
        if quiet is None:
            return empty(0, self._record)
        keeps = self.journal.keeps
        intake = self._intake or self.journal.intake(self._record)
        self._intake = None if keeps else intake  # what was taken before an error comes out next time
        self.table.read(quiet, intake, take=not keeps)
        self._intake = None
        rows = intake.rows
        if keeps:
            self.journal.taken(self._maps, quiet.half)
            self._finish_clearing()
        self.halves.emptied(quiet.half)
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
