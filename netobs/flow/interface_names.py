"""Names of interfaces as columns, for encoding a batch of Flow Records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.flow.interface_key import NETNS_SHIFT

if TYPE_CHECKING:
    import numpy.typing as npt

    Texts = npt.NDArray[np.bytes_]
else:
    Texts = np.ndarray
"""Strings in UTF-8, as a numpy array of bytes: one each, padded with NULs to the longest."""


class InterfaceTable(NamedTuple):
    """Interfaces by ``interface_key``. ``keys``: shape ``(n,)``, uint64, ascending.

    ``names`` and ``aliases``: shape ``(n + 1,)``; the last one is empty and stands for every other interface.
    ``namespaces``: names of network namespaces by number; the last one is empty and stands for every other number.
    """

    keys: npt.NDArray[np.uint64]
    names: Texts
    aliases: Texts
    namespaces: Texts = np.array([b""])

    def positions(self, netns: npt.NDArray[np.uint16], ifindex: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
        """Where in ``names`` and ``aliases`` the interfaces are, the same shape."""
        count = len(self.keys)
        if not count:
            return np.zeros(len(ifindex), dtype=np.intp)
        wanted = netns.astype(np.uint64) << np.uint64(NETNS_SHIFT) | ifindex
        found = np.minimum(self.keys.searchsorted(wanted), count - 1)
        return np.where(self.keys[found] == wanted, found, count)

    def namespace_positions(self, netns: npt.NDArray[np.uint16]) -> npt.NDArray[np.intp]:
        """Where in ``namespaces`` the names are, the same shape."""
        return np.minimum(netns, len(self.namespaces) - 1).astype(np.intp)


def interface_table(
    interfaces: Mapping[int, tuple[str, str]], namespaces: Mapping[int, str] | None = None
) -> InterfaceTable:
    """A table of ``interfaces`` (name and alias by ``interface_key``) and ``namespaces`` (name by number). Invalid
    Unicode becomes "?" (RFC 7011, 6.1.6)."""
    order = sorted(interfaces)
    names, aliases = ([_utf8(interfaces[key][part]) for key in order] for part in (0, 1))
    named = namespaces or {}
    spaces = [_utf8(named.get(number, "")) for number in range(max(named, default=-1) + 1)]
    return InterfaceTable(
        np.array(order, dtype=np.uint64), np.array([*names, b""]), np.array([*aliases, b""]), np.array([*spaces, b""])
    )


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


NO_INTERFACES = interface_table({})
