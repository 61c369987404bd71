"""Where the comparison of each hook began: kept for the next process, for as long as the maps are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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


class Held(NamedTuple):
    """The baselines of the hooks ``keys``, in ascending order. ``kernel``: its counters at the last reading: where they
    were more than they are now, another interface has the number."""

    keys: Keys
    base: Sample
    kernel: npt.NDArray[np.int64]

    def after(self, keys: Keys, now: Sample) -> Held:
        """Of all hooks that are there now, in ascending order; those that have none begin with ``now``. For any
        thread."""
        places, there = found(self.keys, keys)
        goes_on = now.kernel[there] >= self.kernel[places[there]]
        there[there] = goes_on[:, :DROPPED].all(1)
        base = Sample(*(columns.copy() for columns in now))
        for columns, former in zip(base, self.base):
            columns[there] = former[places[there]]
        return Held(keys, base, now.kernel)


class Baselines:
    """``follow`` -> ``take`` at each reading what comes after ``held`` -> ``write``."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._record = KeptRecord(file_of(keeper, NAME))
        self.map = 0
        """The number of the map that these are of."""
        self._forget_all()

    def _forget_all(self) -> None:
        none = np.zeros((0, len(OURS)), "<i8")
        base = Sample(none, none, np.zeros((0, len(KERNEL)), "<i8"))
        self.held = Held(np.zeros(0, "<u8"), base, base.kernel)
        """Another object after each change."""
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
            keys = np.array(kept["keys"], "<u8")
            base = Sample(*(
                np.array(kept[name], "<i8").reshape(len(keys), none.shape[1])
                for name, none in self.held.base._asdict().items()
            ))  # fmt: skip
            self.held = Held(keys, base, np.array(kept["last"], "<i8").reshape(base.kernel.shape))
            former = self._keeper.former(FREED) if kept["freed"] else None
            if former is not None:
                counts.freed = SparseArray(INTERFACE_COUNT, former).array
        return True

    def keep_freed(self, counts: InterfaceCounts) -> None:
        """Before rows are given away for the first time: the next process must know what was in them."""
        if counts.freed is None and self._keeper.keeps:
            counts.freed = SparseArray(INTERFACE_COUNT, self._keeper.memory(FREED)).array
            self._is_changed = True

    @property
    def keys(self) -> Keys:
        """Of the hooks that have a baseline."""
        return self.held.keys

    def forget(self, which: npt.NDArray[np.bool_]) -> None:
        """These of ``keys`` begin anew."""
        left = ~which
        self.held = Held(self.held.keys[left], self.held.base.rows(left), self.held.kernel[left])
        self._is_changed |= bool(which.any())

    def take(self, held: Held) -> None:
        """Goes on with ``held``."""
        pairs = zip((held.keys, *held.base), (self.held.keys, *self.held.base))
        self._is_changed |= not all(np.array_equal(*pair) for pair in pairs)
        self.held = held

    def write(self, counts: InterfaceCounts) -> None:
        """Leaves them for the next process, if they have changed."""
        if self._is_changed and not self._record.is_off:
            self._is_changed = False
            columns = {name: values.ravel().tolist() for name, values in self.held.base._asdict().items()}
            last, freed = self.held.kernel.ravel().tolist(), counts.freed is not None
            kept = {"map": self.map, "columns": COLUMNS, "freed": freed, "keys": self.keys.tolist(), "last": last}
            self._record.write({**kept, **columns})

    def close(self, counts: InterfaceCounts) -> None:
        """Leaves the last reading, too."""
        self._is_changed |= bool(self.map) and self.map == counts.number
        self.write(counts)
        self._record.close()
