"""The name of a part of a spool, for all who deal with it while it is on its way."""

from __future__ import annotations

from typing import NamedTuple


class Batch(NamedTuple):
    """The Messages ``start`` to ``stop`` of the segment with this ``serial`` number; its files have the ``number``."""

    serial: int
    number: int
    start: int
    stop: int

    def part(self, start: int, stop: int) -> Batch:
        """Its Messages ``start`` to ``stop``."""
        return Batch(self.serial, self.number, self.start + start, self.start + stop)
