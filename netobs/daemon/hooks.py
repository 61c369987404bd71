"""The hooks that have programs, and what the programs and the kernel counted there, as columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netobs.datapath.interface_counts import COUNTED, EGRESS, INGRESS, count_key
from netobs.datapath.layout import INTERFACE_NETNS_SHIFT
from netobs.flow.interface_key import interface_key
from netobs.kernel.observation_points import ObservationPoints

if TYPE_CHECKING:
    import numpy.typing as npt

    Keys = npt.NDArray[np.uint64]
    Rows = npt.NDArray[np.void]

DIRECTIONS = {"ingress": INGRESS, "egress": EGRESS}
NOT_COMPARED = {("ifb", "ingress")}
"""The kernel counts there what is sent to the device, and no program at ingress sees it (drivers/net/ifb.c)."""
DROPS_AS_RECEIVED = ("ifb", "egress")
"""What was sent to the device and no action redirected to it, it drops, as received (drivers/net/ifb.c: ifb_xmit)."""


class Hooks(NamedTuple):
    """Those that have programs, in ascending order of ``keys``; ``names``: as in the log; ``drops_as_received``: see
    ``DROPS_AS_RECEIVED``."""

    keys: Keys
    has_ethernet: npt.NDArray[np.bool_]
    drops_as_received: npt.NDArray[np.bool_]
    names: list[str]

    def only(self, which: npt.NDArray[np.bool_]) -> Hooks:
        """These hooks."""
        columns = (self.keys[which], self.has_ethernet[which], self.drops_as_received[which])
        return Hooks(*columns, [*compress(self.names, which)])

    @property
    def interfaces(self) -> Keys:
        """As ``interface_key``."""
        return self.keys >> np.uint64(1)

    @property
    def are_egress(self) -> npt.NDArray[np.bool_]:
        egress: npt.NDArray[np.bool_] = (self.keys & np.uint64(1)) == EGRESS
        return egress

    @property
    def netns(self) -> Keys:
        return self.keys >> np.uint64(INTERFACE_NETNS_SHIFT)


def hooks_of(every: Iterable[ObservationPoints]) -> Hooks:
    """Those that can be compared."""
    listed = sorted(
        (
            count_key(one.interface.netns, one.interface.index, DIRECTIONS[one.direction]),
            one.interface.has_ethernet,
            (one.interface.kind, one.direction) == DROPS_AS_RECEIVED,
            f"{points.label}{one.interface.name} {one.direction}",
        )
        for points in every
        for one in points.placed()
        if (one.interface.kind, one.direction) not in NOT_COMPARED
    )
    keys, ethernet, received, names = zip(*listed) if listed else ((), (), (), ())
    return Hooks(np.array(keys, "<u8"), np.array(ethernet, bool), np.array(received, bool), [*names])


@dataclass
class Reading:
    """``before``, ``after``: what the programs counted (dtype ``COUNTED``) before and after the kernel was asked about
    the host's interfaces; ``last``: after it was asked about all others. ``stats``: the kernel's counters, by the
    number of the network namespace; ``drops``: those of the host's queues."""

    before: Rows
    after: Rows
    stats: list[tuple[int, Rows]]
    drops: Rows
    last: Rows = field(default_factory=lambda: np.zeros(0, COUNTED))

    def kernel(self) -> tuple[Keys, Rows]:
        """All interfaces, in ascending order of the keys."""
        keys = [interface_keys(netns, rows["ifindex"]) for netns, rows in self.stats]
        every, rows = np.concatenate(keys), np.concatenate([rows for _, rows in self.stats])
        order = np.argsort(every)
        return every[order], rows[order]


def interface_keys(netns: int, ifindex: npt.NDArray[Any]) -> Keys:
    return ifindex.astype("<u8") + np.uint64(interface_key(netns, 0))


def found(keys: Keys, wanted: Keys) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each of ``wanted`` is in ``keys``, which ascend, and whether it is there."""
    places = np.searchsorted(keys, wanted)
    places[places == len(keys)] = 0
    return places, keys[places] == wanted if len(keys) else np.zeros(len(wanted), bool)


def counted_of(rows: Rows, keys: Keys) -> Rows:
    """Of each of ``keys``; zeros where nothing was counted yet."""
    places, there = found(rows["key"], keys)
    counted = np.zeros(len(keys), COUNTED)
    counted[there] = rows[places[there]]
    return counted
