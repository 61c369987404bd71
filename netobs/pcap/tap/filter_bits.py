"""Assigns bits of ``packet_meta.filters`` to selections, and decides when a bit may be reused."""

from __future__ import annotations

from netobs.base.clock import NS_PER_S
from netobs.pcap.selection import Selection

MAX_SELECTIONS = 32
QUIET_NS = NS_PER_S


class FilterBits:
    """A bit that is not in force any more waits, because packets with it may still be under way. It is free once
    programs without it have been in force for a second, and all packets from before that moment have been read."""

    def __init__(self) -> None:
        self._in_force: dict[int, Selection] = {}
        self._waiting: dict[int, tuple[Selection, int]] = {}  # and from when on it is free

    def choose(self, selection: Selection) -> int | None:
        """A bit for ``selection``, which may be one that waits if its packets were the same; None if none is left."""
        for number, (former, _) in self._waiting.items():
            if former == selection:
                return number
        taken = {*self._in_force, *self._waiting}
        return next((number for number in range(MAX_SELECTIONS) if number not in taken), None)

    def put_in_force(self, selections: dict[int, Selection], now_ns: int) -> None:
        """Programs for ``selections``, by bit, have replaced the former programs."""
        for number, selection in self._in_force.items():
            self._waiting[number] = selection, now_ns + QUIET_NS
        self._in_force = dict(selections)
        for number in selections:
            self._waiting.pop(number, None)

    def all_read(self, now_ns: int) -> None:
        """Every packet that was there at ``now_ns`` has been read."""
        self._waiting = {number: each for number, each in self._waiting.items() if each[1] > now_ns}

    def clear(self) -> None:
        """No packet is under way any more."""
        self._in_force, self._waiting = {}, {}
