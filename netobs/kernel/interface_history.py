"""Names of interfaces, including former ones: an interface may be gone when its flows and packets are read."""

from __future__ import annotations

from collections.abc import Mapping

from netobs.flow.interface_names import InterfaceTable, interface_table
from netobs.kernel.interfaces import Interface

MAX_GONE = 4096
"""The number of former interfaces that keep their names; beyond it, the oldest are forgotten."""


class InterfaceNames:
    """Each interface that was learnt, by its key (``Interface.key``: the index, in the first network namespace); a key
    that is used again has its new name."""

    def __init__(self, max_gone: int = MAX_GONE) -> None:
        self._max_gone = max_gone
        self._interfaces: dict[int, Interface] = {}
        self._gone: dict[int, None] = {}  # ordered: who went first comes first
        self._namespaces: dict[int, str] = {}
        self._by_index: Mapping[int, Interface] | None = None
        self._table: InterfaceTable | None = None

    def learn(self, interface: Interface) -> None:
        """The interface is there, new or changed."""
        self._gone.pop(interface.key, None)
        if self._interfaces.get(interface.key) != interface:
            self._interfaces[interface.key] = interface
            self._changed()

    def is_gone(self, key: int) -> bool:
        """Whether an interface had this key and has gone, and none has it since."""
        return key in self._gone

    def retire(self, key: int) -> None:
        """The interface is gone: flows and packets of it may still come."""
        if key not in self._interfaces:
            return
        self._gone.pop(key, None)
        self._gone[key] = None
        while len(self._gone) > self._max_gone:
            oldest = next(iter(self._gone))
            del self._gone[oldest], self._interfaces[oldest]
            self._changed()

    def name_namespaces(self, names: Mapping[int, str]) -> None:
        """The names of network namespaces, by number."""
        if names != self._namespaces:
            self._namespaces = dict(names)
            self._changed()

    def by_index(self) -> Mapping[int, Interface]:
        """All of them, as they are now; the same object as before if nothing changed."""
        if self._by_index is None:
            self._by_index = dict(self._interfaces)
        return self._by_index

    def table(self) -> InterfaceTable:
        """All of them as columns; the same object as before if nothing changed."""
        if self._table is None:
            names = {key: (each.name, each.alias) for key, each in self._interfaces.items()}
            self._table = interface_table(names, self._namespaces)
        return self._table

    def _changed(self) -> None:
        self._by_index = self._table = None
