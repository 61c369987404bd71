"""Programs that count only when it is their turn, for hooks on which there are two for a moment; see
netobs/kernel/moving.py."""

from __future__ import annotations

from netobs.datapath.datapath import Datapath
from netobs.datapath.namespace_programs import NamespacePrograms
from netobs.kernel.moving import TURN_FIRST, TURN_NEVER, TURN_SECOND


class Turns:
    """``Turns`` of netobs.kernel.moving. All of one datapath share the word that says whose turn it is."""

    def __init__(self, datapath: Datapath, number: int = 0) -> None:
        """``number``: of the network namespace, as in ``Datapath.open_again``."""
        self._datapath, self._number = datapath, number
        self._programs: dict[int, NamespacePrograms] = {}

    @property
    def turn(self) -> int:
        state = self._datapath.state
        if not state.turn_is_settled:
            self.pass_to(state.turn)
        return state.turn

    def begin(self, turn: int) -> None:
        self._datapath.state.set_turn(turn, settled=True)

    def pass_to(self, turn: int) -> None:
        grace = self._datapath.grace
        grace.wait()  # packets on their way have passed both programs, or none
        self._datapath.state.set_turn(turn, settled=False)
        grace.wait()
        self._datapath.state.set_turn(turn, settled=True)

    def _of(self, turn: int) -> NamespacePrograms:
        if turn not in self._programs:
            self._programs[turn] = NamespacePrograms(self._datapath, self._number, turn)
        return self._programs[turn]

    def program_fd(self, name: str, turn: int) -> int:
        return self._of(turn).program_fd(name)

    def load(self) -> None:
        """Loads the programs for Ethernet: in a thread, perhaps, before ``program_fd`` is called.

        :raises CaptureError: they cannot be loaded.
        """
        for turn in (TURN_FIRST, TURN_SECOND, TURN_NEVER):
            self._of(turn).load_usual()

    def close(self) -> None:
        while self._programs:
            self._programs.popitem()[1].close()
