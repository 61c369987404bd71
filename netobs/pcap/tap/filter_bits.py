"""Assigns bits of ``packet_meta.filters`` to selections, and decides when a bit may be reused."""

from __future__ import annotations

from dataclasses import dataclass

from netobs.base.clock import NS_PER_S
from netobs.pcap.selection import Selection

MAX_SELECTIONS = 32
QUIET_NS = NS_PER_S


@dataclass
class _Bit:
    selection: Selection
    users: int = 1
    was_in_force: bool = False
    free_from_ns: int | None = None
    """Without users: when it may be reused; None = programs with it are still in force."""


class FilterBits:
    """Equal selections share a bit, which counts its users. An unused bit waits, because packets with it may still be
    under way. It is free once programs without it have been in force for a second, and all packets from before that
    moment have been read."""

    def __init__(self) -> None:
        self._bits: dict[int, _Bit] = {}

    def acquire(self, selection: Selection) -> int | None:
        """A bit for ``selection``; None if none is left."""
        for number, bit in self._bits.items():
            if bit.selection == selection:  # also one that waits: its packets are wanted again
                bit.users += 1
                bit.free_from_ns = None
                return number
        free = next((number for number in range(MAX_SELECTIONS) if number not in self._bits), None)
        if free is not None:
            self._bits[free] = _Bit(selection)
        return free

    def users(self, number: int) -> int:
        """Number of users of the bit."""
        return self._bits[number].users

    def give_back(self, number: int) -> None:
        """One user less."""
        assert self._bits[number].users > 0
        self._bits[number].users -= 1

    def forget(self, number: int) -> None:
        """The programs for the bit's only user failed. If there never were any, the bit is free at once."""
        if self._bits[number].was_in_force:
            self.give_back(number)
        else:
            del self._bits[number]

    def in_use(self) -> list[tuple[int, Selection]]:
        """The bits with users, in order, to make programs from."""
        return sorted((number, bit.selection) for number, bit in self._bits.items() if bit.users)

    def in_force(self, now_ns: int) -> None:
        """Programs with the bits ``in_use`` have replaced the former programs."""
        for bit in self._bits.values():
            bit.was_in_force |= bit.users > 0
            if not bit.users and bit.free_from_ns is None:
                bit.free_from_ns = now_ns + QUIET_NS

    def all_read(self, now_ns: int) -> None:
        """Every packet that was there at ``now_ns`` has been read."""
        for number, bit in list(self._bits.items()):
            if bit.free_from_ns is not None and bit.free_from_ns <= now_ns:
                del self._bits[number]

    def clear(self) -> None:
        """No packet is under way any more."""
        self._bits.clear()
