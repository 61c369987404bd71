"""Where the comparison of each hook began: kept for the next process, for as long as the maps are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netobs.base.keeper import Keeper, file_of
from netobs.base.kept_record import KeptRecord
from netobs.base.sparse import SparseArray
from netobs.daemon.comparison import DROPPED, KERNEL, OURS, Sample
from netobs.daemon.hooks import found
from netobs.datapath.interface_counts import InterfaceCounts
from netobs.datapath.layout import INTERFACE_COUNT

if TYPE_CHECKING:
    import numpy.typing as npt

    Keys = npt.NDArray[np.uint64]

NAME, FREED = "baselines", "freed-rows"
"""In the keeper."""
COLUMNS = [*OURS, *KERNEL]


class Baselines:
    """``follow`` -> ``of`` at each reading -> ``write``."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._record = KeptRecord(file_of(keeper, NAME))
        self.map = 0
        """The number of the map that these are of."""
        self._forget_all()

    def _forget_all(self) -> None:
        none = np.zeros((0, len(OURS)), "<i8")
        self.keys: Keys = np.zeros(0, "<u8")
        self._base = Sample(none, none, np.zeros((0, len(KERNEL)), "<i8"))
        self._kernel = self._base.kernel
        """At the last reading: where it was more than it is now, another interface has the number."""
        self._is_changed = False

    def follow(self, counts: InterfaceCounts) -> bool:
        """Of another map, begins anew, or goes on with what the former process has kept if it is of this one. Whether
        it is another."""
        if counts.number == self.map:
            return False
        self._forget_all()
        is_first, self.map = not self.map, counts.number
        kept = self._record.read() if is_first else None
        if kept is not None and kept.get("map") == self.map and kept.get("columns") == COLUMNS:
            self.keys = np.array(kept["keys"], "<u8")
            widths = {name: none.shape[1] for name, none in self._base._asdict().items()}
            self._base = Sample(
                **{name: np.array(kept[name], "<i8").reshape(len(self.keys), width) for name, width in widths.items()}
            )
            self._kernel = np.array(kept["last"], "<i8").reshape(self._base.kernel.shape)
            former = self._keeper.former(FREED) if kept["freed"] else None
            if former is not None:
                counts.freed = SparseArray(INTERFACE_COUNT, former).array
        return True

    def keep_freed(self, counts: InterfaceCounts) -> None:
        """Before rows are given away for the first time: the next process must know what was in them."""
        if counts.freed is None and self._keeper.keeps:
            counts.freed = SparseArray(INTERFACE_COUNT, self._keeper.memory(FREED)).array
            self._is_changed = True

    def forget(self, which: npt.NDArray[np.bool_]) -> None:
        """These of ``keys`` begin anew."""
        if which.any():
            left = ~which
            self.keys, self._base, self._kernel = self.keys[left], self._base.rows(left), self._kernel[left]
            self._is_changed = True

    def of(self, keys: Keys, now: Sample) -> Sample:
        """Of all hooks that are there now, in ascending order; those that have none begin with ``now``."""
        places, there = found(self.keys, keys)
        goes_on = now.kernel[there] >= self._kernel[places[there]]
        there[there] = goes_on[:, :DROPPED].all(1)
        base = Sample(*(columns.copy() for columns in now))
        for columns, former in zip(base, self._base):
            columns[there] = former[places[there]]
        self._is_changed |= not there.all() or len(keys) != len(self.keys)
        self.keys, self._base, self._kernel = keys, base, now.kernel
        return base

    def write(self, counts: InterfaceCounts) -> None:
        """Leaves them for the next process, if they have changed."""
        if self._is_changed and not self._record.is_off:
            self._is_changed = False
            columns = {name: values.ravel().tolist() for name, values in self._base._asdict().items()}
            last, freed = self._kernel.ravel().tolist(), counts.freed is not None
            kept = {"map": self.map, "columns": COLUMNS, "freed": freed, "keys": self.keys.tolist(), "last": last}
            self._record.write({**kept, **columns})

    def close(self, counts: InterfaceCounts) -> None:
        """Leaves the last reading, too."""
        self._is_changed |= bool(self.map) and self.map == counts.number
        self.write(counts)
        self._record.close()
