"""Names of interfaces as columns, for encoding a batch of Flow Records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Texts = npt.NDArray[np.bytes_]
"""Strings in UTF-8, as a numpy array of bytes: one each, padded with NULs to the longest."""


@dataclass(frozen=True)
class InterfaceTable:
    """Interfaces by index. ``index``: shape ``(n,)``, uint32, ascending.

    ``names`` and ``aliases``: shape ``(n + 1,)``; the last one is empty and stands for every other index.
    """

    index: npt.NDArray[np.uint32]
    names: Texts
    aliases: Texts

    def positions(self, ifindex: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
        """Where in ``names`` and ``aliases`` the interfaces ``ifindex`` are, the same shape."""
        count = len(self.index)
        if not count:
            return np.zeros(len(ifindex), dtype=np.intp)
        found = np.minimum(self.index.searchsorted(ifindex), count - 1)
        return np.where(self.index[found] == ifindex, found, count)


def interface_table(interfaces: Mapping[int, tuple[str, str]]) -> InterfaceTable:
    """A table of ``interfaces``: name and alias by index. Invalid Unicode becomes "?" (RFC 7011, 6.1.6)."""
    order = sorted(interfaces)
    names, aliases = ([interfaces[index][part].encode("utf-8", "replace") for index in order] for part in (0, 1))
    return InterfaceTable(np.array(order, dtype=np.uint32), np.array([*names, b""]), np.array([*aliases, b""]))


NO_INTERFACES = interface_table({})
