"""Memory that user space shares with the running programs: section .bss, ``struct netobs_state``."""

from __future__ import annotations

import mmap

import numpy as np

from netobs.datapath.layout import COUNTING_ENDED, STATE, TURN_SETTLED
from netobs.kernel.moving import TURN_FIRST, TURN_SECOND
from netobs.kernel.object import LoadedObject


class SharedState:
    """The fields of ``struct netobs_state`` as properties, read and written in shared memory."""

    def __init__(self, dtype: np.dtype[np.void] = STATE, writable: bool = True) -> None:
        self._dtype, self._writable = dtype, writable
        self._memory: mmap.mmap | None = None

    def open_maps(self, obj: LoadedObject) -> None:
        """After load."""
        self._memory = obj.shared(".bss", self._dtype.itemsize, self._writable)
        self._state = np.frombuffer(self._memory, dtype=self._dtype, count=1)

    @property
    def active_half(self) -> int:
        """The half of the flow table that packets go to."""
        return int(self._state["active_half"][0]) & 1

    @active_half.setter
    def active_half(self, half: int) -> None:
        self._state["active_half"][0] = int(self._state["active_half"][0]) & COUNTING_ENDED | half

    def end_counting(self) -> None:
        """Makes the programs ignore every packet from now on."""
        self._state["active_half"][0] |= COUNTING_ENDED

    def go_on(self) -> None:
        """Undoes ``end_counting``, if a former process has called it."""
        self._state["active_half"][0] = self.active_half

    @property
    def turn(self) -> int:
        """Which of two programs on a hook counts: ``TURN_FIRST`` or ``TURN_SECOND``; 0 before there were two."""
        return int(self._state["turn"][0]) & ~TURN_SETTLED

    @property
    def turn_is_settled(self) -> bool:
        """As in ``set_turn``."""
        return int(self._state["turn"][0]) in (0, TURN_FIRST | TURN_SETTLED, TURN_SECOND | TURN_SETTLED)

    def set_turn(self, turn: int, settled: bool) -> None:
        """``settled``: no packet is between the two programs that has passed the first before this was its turn."""
        self._state["turn"][0] = turn | TURN_SETTLED * settled

    def set_tick_offset(self, offset_ns: int) -> None:
        """CLOCK_MONOTONIC at jiffy 0, for the programs' coarse clock."""
        self._state["tick_offset_ns"][0] = offset_ns % (1 << 64)  # negative: jiffies begin five minutes before a wrap

    def clock_reading(self) -> tuple[int, int]:
        """(jiffies, ns of CLOCK_MONOTONIC) that the program netobs_clock read last."""
        return int(self._state["clock_jiffies"][0]), int(self._state["clock_ns"][0])

    def close(self) -> None:
        """Releases the shared memory."""
        if self._memory is not None:
            del self._state
            self._memory.close()
            self._memory = None
