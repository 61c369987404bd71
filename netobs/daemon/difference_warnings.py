"""Lines in the log where the kernel's counters of an interface and netobs's go apart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.config.text import folded

if TYPE_CHECKING:
    import numpy.typing as npt

log = logging.getLogger("netobs")

LEAST_PACKETS, LEAST_SHARE = 300, 0.01
READINGS = 2
"""Packets on their way, or in a device's ring, are in one of two readings only."""
AGAIN_NS = 600 * NS_PER_S

MORE = "the kernel counts packets there that netobs does not see, %d of %d"
LESS = "netobs sees packets there that the kernel does not count, %d of %d"
MORE_REMEDY = "an XDP or TC program may take them first, or a socket may go round TC; see netobs(8), INTERFACE COUNTERS"
LESS_REMEDY = "a TC program or a queue behind netobs may drop them; see netobs(8), INTERFACE COUNTERS"


class Growth(NamedTuple):
    """Between two readings, of the hooks ``keys``: how much the ``difference`` grew (negative: netobs has more), and
    how many ``packets`` there were. Shape ``(n,)`` each."""

    keys: npt.NDArray[np.uint64]
    names: list[str]
    difference: npt.NDArray[np.int64]
    packets: npt.NDArray[np.int64]

    def summary(self, which: list[int]) -> tuple[str, int, int]:
        """The names of these hooks, and their sums."""
        names = folded(self.names[each] for each in which)
        return names, abs(int(self.difference[which].sum())), int(self.packets[which].sum())


class DifferenceWarnings:
    """``tell`` at each reading: one line for all hooks on which a difference begins, and none again for a while."""

    def __init__(self) -> None:
        self._readings: dict[int, int] = {}
        self._said_ns: dict[int, int] = {}

    def tell(self, growth: Growth, now_ns: int) -> None:
        """Logs what lasts for ``READINGS`` readings, on each hook at most once in ``AGAIN_NS``."""
        least = np.maximum(LEAST_PACKETS, LEAST_SHARE * growth.packets)
        odd = np.flatnonzero(abs(growth.difference) >= least).tolist()
        self._readings = {key: self._readings.get(key, 0) + 1 for key in growth.keys[odd].tolist()}
        self._said_ns = {key: said for key, said in self._said_ns.items() if now_ns - said < AGAIN_NS}
        due = [
            each for each in odd
            if self._readings[key := int(growth.keys[each])] >= READINGS and key not in self._said_ns
        ]  # fmt: skip
        self._said_ns.update(dict.fromkeys(growth.keys[due].tolist(), now_ns))
        for sign, what, remedy in ((1, MORE, MORE_REMEDY), (-1, LESS, LESS_REMEDY)):
            which = [each for each in due if sign * growth.difference[each] > 0]
            if which:
                log.warning(f"%s: {what}; %s", *growth.summary(which), remedy)
