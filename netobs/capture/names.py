"""What interfaces are called: flows are exported after the fact, when their interface may be gone."""

from __future__ import annotations

from netobs.interface_table import InterfaceTable, interface_table

MAX_GONE = 4096
"""So many interfaces that are gone keep their names; beyond, those that went first are forgotten."""


class InterfaceNames:
    """Name and alias of each interface that was learnt, by index; an index that is used again has its new name."""

    def __init__(self, max_gone: int = MAX_GONE) -> None:
        self._max_gone = max_gone
        self._names: dict[int, tuple[str, str]] = {}
        self._gone: dict[int, None] = {}  # ordered: who went first comes first
        self._table: InterfaceTable | None = None

    def learn(self, index: int, name: str, alias: str) -> None:
        """The interface is there, new or renamed."""
        self._gone.pop(index, None)
        if self._names.get(index) != (name, alias):
            self._names[index] = (name, alias)
            self._table = None

    def retire(self, index: int) -> None:
        """The interface is gone: flows of it may still come."""
        if index not in self._names:
            return
        self._gone.pop(index, None)
        self._gone[index] = None
        while len(self._gone) > self._max_gone:
            oldest = next(iter(self._gone))
            del self._gone[oldest], self._names[oldest]
            self._table = None

    def table(self) -> InterfaceTable:
        """All of them; the same object as before where nothing changed."""
        if self._table is None:
            self._table = interface_table(self._names)
        return self._table
