"""The two halves of a flow table: programs write one; the other is quiet and belongs to user space."""

from __future__ import annotations

from netobs.datapath.state import SharedState
from netobs.kernel.grace import GracePeriod


class Halves:
    """``flip`` says which half packets go to; after ``settle``, nobody writes the other half any more."""

    def __init__(self, state: SharedState, grace: GracePeriod) -> None:
        self.in_use_since_ns = [0, 0]
        """Time since which packets go to each half, which was empty at that time; 0: a former process may have left
        flows there."""
        self._emptied = [False, False]
        self._state = state
        self._grace = grace

    @property
    def active(self) -> int:
        """The half that packets go to."""
        return self._state.active_half

    def flip(self, now_ns: int) -> int:
        """Sends packets to the other half from now on; returns the half that is at rest after ``settle``."""
        quiet = self.active
        if self._emptied[1 - quiet]:
            self.in_use_since_ns[1 - quiet] = now_ns
        self._emptied[quiet] = False
        self._state.active_half = 1 - quiet
        return quiet

    def settle(self) -> None:
        """Waits for the programs that began before the last ``flip``. May be called in a thread.

        :raises CaptureError: no grace period can be waited for.
        """
        self._grace.wait()

    def end_counting(self) -> None:
        """Stops counting; afterwards both halves are quiet.

        :raises CaptureError: no grace period can be waited for.
        """
        self._state.end_counting()
        self._grace.wait()  # a program that has begun still counts its packet

    def emptied(self, half: int) -> None:
        """All of ``half`` was taken out."""
        self._emptied[half] = True
