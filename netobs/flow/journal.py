"""The eviction journal: what was taken out of the kernel and is not exported yet, in memory that outlives the process.

A flow passes through it in one direction, and each arrow is one commit:

    kernel -(1)-> rows -(2)-> flow cache, due records -(3)-> exported

1. ``taken``: the rows are copied, then this is committed, then the maps are cleared, then ``cleared`` is committed.
   Who finds ``quiet`` set clears that half of the maps, which may be done any number of times.
2. ``metered``: before it the rows count, and the flow cache is what it was; after it the cache and the due records do.
3. ``exported``: before it the due records are exported (again), under the same ``number``, by which whoever has taken
   them already knows them.

A process may be killed between any two instructions. Its stores up to there are in the memory that the next process
maps, in their order: data are written first, then the one word that makes them valid (``KeptRecord``).
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from netobs.base.keeper import NOTHING, Keeper, file_of
from netobs.base.kept_record import KeptRecord, members_of
from netobs.base.sparse import SparseArray
from netobs.flow.records import Records, concatenate, empty, in_dtype

MAPS_KNOWN = 8
"""So many of the newest maps: a reload may make others while a former process's are not empty yet."""


def layout_of(dtype: np.dtype[np.void]) -> list[Any]:
    """``dtype`` for JSON."""
    layout: list[Any] = json.loads(json.dumps(dtype.descr))
    return layout


def as_dtype(layout: list[Any]) -> np.dtype[np.void]:
    """What ``layout_of`` has described."""
    return np.dtype([(name, kind, *map(tuple, shape)) for name, kind, *shape in layout])


def name_of(file: str, dtype: np.dtype[np.void]) -> str:
    """The name of a ``file`` that holds records of ``dtype``."""
    return f"{file}-{zlib.crc32(repr(layout_of(dtype)).encode()) % (1 << 16):04x}"


@dataclass(frozen=True)
class State:
    """What is committed. ``rows``: of evictions, not metered yet. ``due``: records, not exported yet. ``cached``: rows
    of the flow cache; ``leaving``: rows at its beginning that are due, after all of them were expired at once.

    ``quiet``: the halves that are copied and perhaps not cleared, ``rings``: the positions up to which rings are
    copied, both by the number of the maps. ``number``: of the next batch to be exported. ``counters``: of metering.
    """

    generation: int = 0
    number: int = 1
    rows: int = 0
    due: int = 0
    cached: int = 0
    leaving: int = 0
    quiet: dict[str, int] = field(default_factory=dict)
    rings: dict[str, int] = field(default_factory=dict)
    counters: tuple[int, ...] = ()


class Intake:
    """Rows that come in several parts."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._parts = [empty(0, dtype)]

    def room(self, rows: int) -> Records:
        """So many more rows, with any content, to be filled by the caller."""
        self._parts.append(np.empty(rows, self._parts[0].dtype))
        return self._parts[-1]

    @property
    def rows(self) -> Records:
        """All rows."""
        return concatenate(self._parts)


class Journal:
    """The journal of a daemon whose state ends with it: rows and due records are arrays of their own."""

    keeps = False
    state = State()

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        """``dtype``: of the records."""
        self._dtype = dtype

    @property
    def number(self) -> int:
        """Of the batch of due records; 0: batches have none."""
        return 0

    def intake(self, dtype: np.dtype[np.void]) -> Intake:
        """For new rows of ``dtype``. What an earlier intake has got since the last commit is forgotten."""
        return Intake(dtype)

    def room(self, records: int) -> Records:
        """Memory for due records, with any content."""
        return np.empty(records, self._dtype)

    def rows(self, parts: list[Records]) -> Records:
        """All rows that are to be metered; ``parts`` are what the intakes gave since the last time."""
        return concatenate([empty(0, self._dtype), *parts])

    def taken(self, maps: str, half: int) -> None:
        """The rows of the last intake are complete: ``half`` of the maps with the number ``maps`` can be cleared."""

    def cleared(self, maps: str) -> None:
        """The half is empty."""

    def ring_taken(self, maps: str, position: int) -> None:
        """The rows of the last intake are complete: the ring can be given back up to ``position``."""

    def metered(self, rows: int, due: int, leaving: int, cached: int, counters: tuple[int, ...]) -> None:
        """The cache has ``cached`` records, and there are ``due`` new ones in ``room`` and ``leaving`` at the beginning
        of its memory. ``rows``: that were not metered and still are not."""

    def due(self) -> Records:
        """Due records in ``room``, not exported yet."""
        return empty(0, self._dtype)

    def exported(self) -> None:
        """All due records were handed to the sinks."""


class _ConvertedIntake(Intake):
    """For rows of another version, or with other metrics."""

    def __init__(self, dtype: np.dtype[np.void], journal: KeptJournal) -> None:
        super().__init__(dtype)
        self._journal = journal

    @property
    def rows(self) -> Records:
        rows = concatenate(self._parts)
        room = self._journal.add(len(rows))
        room[:] = in_dtype(rows, room.dtype)
        return room


class _KeptIntake(Intake):
    def __init__(self, journal: KeptJournal) -> None:
        self._journal, self._begin = journal, journal.end

    def room(self, rows: int) -> Records:
        return self._journal.add(rows)

    @property
    def rows(self) -> Records:
        return self._journal.between(self._begin)


class KeptJournal(Journal):
    """The journal in files of memory of a keeper: ``journal``, which says what the records of the others are made of,
    and some whose names end with a mark of that."""

    keeps = True

    def __init__(self, dtype: np.dtype[np.void], keeper: Keeper) -> None:
        """Goes on where the former process ended. If its records were not of ``dtype``, ``convert`` has to come first.

        :raises NetobsError: a file cannot be mapped.
        """
        super().__init__(dtype)
        self._keeper = keeper
        self._layout = members_of({"layout": layout_of(dtype)})
        self._record = KeptRecord(file_of(keeper, "journal"))
        values = self._record.read() or {}
        names = {each.name for each in fields(State)}
        self.state = State(**{name: value for name, value in values.items() if name in names})
        former = as_dtype(values.get("layout", layout_of(dtype)))
        self.former = None if former == dtype else former
        """The dtype of the former process's records, until ``convert``."""
        self._rows, self._due = self._open(dtype)
        self.end = self.state.rows

    def _open(self, dtype: np.dtype[np.void]) -> tuple[SparseArray, SparseArray]:
        rows, due = (file_of(self._keeper, name_of(name, dtype)) for name in ("journal-r", "journal-d"))
        return SparseArray(dtype, rows), SparseArray(dtype, due)

    def convert(self, cached: Records, leaving: Records, counters: tuple[int, ...]) -> None:
        """From now on the records are of ``dtype``. ``cached`` and ``leaving``: the records of the flow cache. Those
        that stay in it become rows, and are in none of ``counters`` any more."""
        assert self.former is not None
        rows, due = (file.array[:length] for file, length in
                     zip(self._open(self.former), (self.state.rows, self.state.due)))  # fmt: skip
        for file, parts in ((self._rows, (rows, cached)), (self._due, (due, leaving))):
            end = 0
            for part in parts:
                begin, end = end, end + len(part)
                file.array[begin:end] = in_dtype(part, self._dtype)
        former, self.former = self.former, None
        self.end = len(rows) + len(cached)
        self.commit(rows=self.end, due=len(due) + len(leaving), cached=0, leaving=0, counters=counters)
        for name in ("journal-r", "journal-d"):
            self._keeper.drop(name_of(name, former))

    def commit(self, **changes: Any) -> None:
        """Makes ``changes`` of the state valid, all at once."""
        self.state = replace(self.state, generation=self.state.generation + 1, **changes)
        self._record.write(vars(self.state), self._layout)

    @property
    def number(self) -> int:
        return self.state.number

    def intake(self, dtype: np.dtype[np.void]) -> Intake:
        self.end = self.state.rows
        return _KeptIntake(self) if dtype == self._dtype else _ConvertedIntake(dtype, self)

    def add(self, rows: int) -> Records:
        self.end += rows
        return self.between(self.end - rows)

    def between(self, begin: int) -> Records:
        """The rows from ``begin`` on."""
        return self._rows.array[begin : self.end]

    def room(self, records: int) -> Records:
        due = self.state.due
        return self._due.array[due : due + records]

    def rows(self, parts: list[Records]) -> Records:
        return self._rows.array[: self.state.rows]

    def taken(self, maps: str, half: int) -> None:
        self.commit(rows=self.end, quiet={**self.state.quiet, maps: half})

    def cleared(self, maps: str) -> None:
        self.commit(quiet={name: half for name, half in self.state.quiet.items() if name != maps})

    def ring_taken(self, maps: str, position: int) -> None:
        rings = {**self.state.rings, maps: position}
        self.commit(rows=self.end, rings=dict([*rings.items()][-MAPS_KNOWN:]))

    def metered(self, rows: int, due: int, leaving: int, cached: int, counters: tuple[int, ...]) -> None:
        before = self.state
        due, leaving = before.due + due, before.leaving + leaving
        self.commit(rows=rows, due=due, leaving=leaving, cached=cached, counters=counters)
        if not rows:
            self._rows.trim(before.rows)

    def due(self) -> Records:
        return self._due.array[: self.state.due]

    def exported(self) -> None:
        due = self.state.due
        self.commit(due=0, leaving=0, number=self.state.number + 1)
        self._due.trim(due)


def open_journal(dtype: np.dtype[np.void], keeper: Keeper = NOTHING) -> Journal:
    """The journal for records of ``dtype``, kept if ``keeper`` keeps anything."""
    return KeptJournal(dtype, keeper) if keeper.keeps else Journal(dtype)
