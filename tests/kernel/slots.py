"""The slots of percpu_array as the kernel has them, to look at and to preset."""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

from lab.prog_run import Programs
from netobs.datapath.layout import FLOW_SLOT


class Slots:
    """All slots in the kernel's memory: shape ``(CPUs, 2 halves, slots)``, dtype FLOW_SLOT."""

    def __init__(self, programs: Programs) -> None:
        self._shape = programs.table.slot_cpus, 2, programs.table.slots
        size = int(np.prod(self._shape)) * FLOW_SLOT.itemsize
        self._memory = mmap.mmap(programs.map_fd("flow_slots"), size, mmap.MAP_SHARED)

    def __enter__(self) -> npt.NDArray[np.void]:
        return np.frombuffer(self._memory, FLOW_SLOT).reshape(self._shape)

    def __exit__(self, *exc: object) -> None:
        """The memory goes with the last array of it."""


def used(programs: Programs) -> list[list[int]]:
    """How many slots are in use: of each CPU, of each half."""
    with Slots(programs) as slots:
        counts: list[list[int]] = np.count_nonzero(slots["used"], axis=2).tolist()
    return counts
