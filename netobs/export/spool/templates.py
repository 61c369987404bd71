"""Decides which files of a spool a collector can read: those with its own Templates, or with parts of them.

Files outlive the template file and the release that wrote them. Their contents are sent with their original Template
IDs, after their own Templates.
"""

from __future__ import annotations

from netobs.export.spool.segment import Damaged

_TEMPLATE_SET = b"\0\2"
_ENTERPRISE_BIT = 0x80


class Readable:
    """``sets``: the collector's own Templates, see ``sets_of``. Raises Damaged if they are not Templates."""

    def __init__(self, sets: bytes) -> None:
        self._own = sets
        self._records = _records(sets)
        self._elements = [_elements(record) for record in self._records.values()]

    def takes(self, sets: bytes) -> bool:
        """Whether files with the Templates ``sets`` can be sent; if so, their IDs count as used.

        Each must have the elements of one of the collector's own Templates, in the same lengths, in any order, or some
        of them, because the collector may not know other elements. And no ID may already have another content.
        Raises Damaged.
        """
        if sets == self._own:
            return True
        found = _records(sets)
        if any(self._records.get(number, record) != record for number, record in found.items()):
            return False
        if not all(any(_elements(record) <= own for own in self._elements) for record in found.values()):
            return False
        self._records.update(found)
        return True


def _records(sets: bytes) -> dict[int, bytes]:
    """By Template ID, the Field Specifiers of each Template (RFC 7011, 3.4.1). Raises Damaged."""
    if sets[:2] != _TEMPLATE_SET:
        raise Damaged
    found: dict[int, bytes] = {}
    at = len(_TEMPLATE_SET)
    while at < len(sets):
        number, count = int.from_bytes(sets[at : at + 2], "big"), int.from_bytes(sets[at + 2 : at + 4], "big")
        at = start = at + 4
        for _ in range(count):
            at += 8 if sets[at : at + 1] >= bytes([_ENTERPRISE_BIT]) else 4
        if at > len(sets) or not count:
            raise Damaged
        found[number] = sets[start:at]
    return found


def _elements(record: bytes) -> frozenset[bytes]:
    """The Field Specifiers of a Template, one by one."""
    found, at = set(), 0
    while at < len(record):
        end = at + (8 if record[at] & _ENTERPRISE_BIT else 4)
        found.add(record[at:end])
        at = end
    return frozenset(found)
