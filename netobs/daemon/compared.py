"""The last comparison as columns, a row for each hook: the state document and the metrics show these numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netobs.daemon import comparison
from netobs.daemon.comparison import Difference, Sample

if TYPE_CHECKING:
    import numpy.typing as npt

    Keys = npt.NDArray[np.uint64]
    Columns = npt.NDArray[np.int64]

UNKNOWN: dict[str, Any] = dict.fromkeys(("seen", "skbs", "kernel", "difference"))


class Comparison(NamedTuple):
    """The last comparison, of the hooks ``keys``."""

    keys: Keys
    base: Sample
    now: Sample
    difference: Difference
    known: npt.NDArray[np.bool_]
    at_ns: int


class Compared(NamedTuple):
    """What is known of the hooks ``keys`` (``count_key``, ascending) since their baselines. ``seen``, ``skbs`` and
    ``kernel``: packets and octets, int64, shape ``(n, 2)``."""

    keys: Keys
    seen: Columns
    skbs: Columns
    kernel: Columns
    difference: Difference

    def ratios(self) -> npt.NDArray[np.float64]:
        """The difference as a part of the kernel's packets, shape ``(n,)``; NaN where it has counted none."""
        packets = self.kernel[:, 0]
        none = np.full(len(packets), np.nan)
        ratios: npt.NDArray[np.float64] = np.divide(self.difference.packets, packets, out=none, where=packets != 0)
        return ratios


def compared(last: Comparison | None) -> Compared:
    """The hooks of ``last`` whose counts are known; no row without a comparison. For any thread."""
    if last is None:
        pairs, one = np.zeros((0, 2), "<i8"), np.zeros(0, "<i8")
        return Compared(np.zeros(0, "<u8"), pairs, pairs, pairs, Difference(one, one, one))
    ours, kernel = (last.now.after - last.base.after)[last.known], (last.now.kernel - last.base.kernel)[last.known]
    seen = ours[:, (comparison.PACKETS, comparison.OCTETS)]
    skbs = ours[:, (comparison.SKBS, comparison.LEAST)]
    difference = Difference(*(column[last.known] for column in last.difference))
    return Compared(last.keys[last.known], seen, skbs, kernel[:, :2], difference)


def by_hook(last: Comparison | None) -> dict[int, dict[str, Any]]:
    """What is known of each hook, by ``count_key``, for the state document; ``UNKNOWN`` of others. For any thread."""
    its = compared(last)
    columns = (column.tolist() for column in (its.keys, its.seen, its.skbs, its.kernel, *its.difference))
    return {
        key: {
            "seen": _pair(*seen),
            "skbs": _pair(*skbs),
            "kernel": _pair(*kernel),
            "difference": {"packets": packets, "octets": None if dropped else octets, "dropped_after": dropped},
        }
        for key, seen, skbs, kernel, packets, octets, dropped in zip(*columns)
    }


def _pair(packets: int, octets: int) -> dict[str, int]:
    return {"packets": packets, "octets": octets}
