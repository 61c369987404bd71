"""Names of interfaces, including former ones: an interface may be gone when its flows and packets are read."""

from __future__ import annotations

from collections.abc import Mapping

from netobs.flow.interface_names import InterfaceTable, interface_table
from netobs.kernel.interfaces import Interface

MAX_GONE = 4096
"""The number of former interfaces that keep their names; beyond it, the oldest are forgotten."""


class InterfaceNames:
    """Each interface that was learnt, by index; an index that is used again has its new name."""

    def __init__(self, max_gone: int = MAX_GONE) -> None:
        self._max_gone = max_gone
        self._interfaces: dict[int, Interface] = {}
        self._gone: dict[int, None] = {}  # ordered: who went first comes first
        self._by_index: Mapping[int, Interface] | None = None
        self._table: InterfaceTable | None = None

    def learn(self, interface: Interface) -> None:
        """The interface is there, new or changed."""
        self._gone.pop(interface.index, None)
        if self._interfaces.get(interface.index) != interface:
            self._interfaces[interface.index] = interface
            self._changed()

    def is_gone(self, index: int) -> bool:
        """Whether an interface had this index and has gone, and none has it since."""
        return index in self._gone

    def retire(self, index: int) -> None:
        """The interface is gone: flows and packets of it may still come."""
        if index not in self._interfaces:
            return
        self._gone.pop(index, None)
        self._gone[index] = None
        while len(self._gone) > self._max_gone:
            oldest = next(iter(self._gone))
            del self._gone[oldest], self._interfaces[oldest]
            self._changed()

    def by_index(self) -> Mapping[int, Interface]:
        """All of them, as they are now; the same object as before if nothing changed."""
        if self._by_index is None:
            self._by_index = dict(self._interfaces)
        return self._by_index

    def table(self) -> InterfaceTable:
        """All of them as columns; the same object as before if nothing changed."""
        if self._table is None:
            self._table = interface_table({index: (each.name, each.alias) for index, each in self._interfaces.items()})
        return self._table

    def _changed(self) -> None:
        self._by_index = self._table = None
