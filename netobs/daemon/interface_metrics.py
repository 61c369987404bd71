"""The metrics of interfaces, from columns: a scrape of a host with thousands of them must not hold up the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from netobs.daemon.hooks import Counted, Hook
from netobs.daemon.openmetrics import Family, Sample, labels

if TYPE_CHECKING:
    import numpy.typing as npt

    Columns = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

MOST_INTERFACES = 1000
OTHERS = "others"
SUM_OF_OTHERS = f"; of more than {MOST_INTERFACES} interfaces, those beyond are added up as {OTHERS}"


class Interfaces:
    """Chooses the interfaces with samples of their own: the first ``most`` that it meets, as long as they exist. The
    counters of the rest are one sum for each direction, which never goes down."""

    def __init__(self, most: int = MOST_INTERFACES) -> None:
        self._most = most
        self._chosen: set[tuple[str, int, str]] = set()
        self._hooks: list[Hook] = []
        self._present = 0
        self._labels: list[str] = []
        self._is_chosen: Mask = np.zeros(0, np.bool_)
        self._last: Columns = np.zeros((0, 2), np.int64)
        """What each hook had seen when it was last known; -1: it never was."""
        self._gone: dict[str, Columns] = {}

    def families(self, counted: Counted) -> Iterator[Family]:
        """All metrics of interfaces."""
        if counted.hooks != self._hooks:
            self._follow(counted.hooks)
        self._last[counted.is_known] = counted.seen[counted.is_known]
        yield Family("netobs_interfaces", "gauge", "Interfaces that are measured", [("", self._present)])
        methods: list[Sample] = [
            (f'{written[:-1]},method="{hook.method}"}}', 1)
            for written, hook in compress(zip(self._labels, counted.hooks), self._is_chosen)
            if hook.method
        ]
        about = f"The program on a hook; of at most {MOST_INTERFACES} interfaces"
        yield Family("netobs_interface", "info", about, methods)
        shown, others = self._is_chosen & counted.is_known, self._others()
        written = [*compress(self._labels, shown)]
        for position, (amount, what) in enumerate((("packets", "Packets on the wire"), ("octets", "IP octets"))):
            samples: list[Sample] = [*zip(written, counted.seen[shown, position].tolist())]
            samples += [(name, int(sums[position])) for name, sums in others]
            about = f"{what} that the programs have seen{SUM_OF_OTHERS}"
            yield Family(f"netobs_seen_{amount}", "counter", about, samples)
        shown &= counted.kernel != 0
        ratios = (counted.difference[shown] / counted.kernel[shown]).tolist()
        about = "Difference to the kernel's own packet counters that nothing explains, as a part of these"
        yield Family("netobs_reconciliation_ratio", "gauge", about, [*zip(compress(self._labels, shown), ratios)])

    def _follow(self, hooks: list[Hook]) -> None:
        present = dict.fromkeys(hook.interface for hook in hooks)
        former = {hook.interface for hook in self._hooks}
        self._chosen.intersection_update(present)
        new = [key for key in present if key not in former]
        self._chosen.update(new[: self._most - len(self._chosen)])
        last = {hook[:4]: (seen, chosen) for hook, seen, chosen in zip(self._hooks, self._last, self._is_chosen)}
        self._last = np.full((len(hooks), 2), -1, np.int64)
        for number, hook in enumerate(hooks):
            if hook[:4] in last:
                self._last[number] = last.pop(hook[:4])[0]
        for (*_, direction), (seen, was_chosen) in last.items():
            if not was_chosen and seen[0] >= 0:
                self._gone[direction] = self._gone.get(direction, 0) + seen
        self._hooks, self._present = hooks, len(present)
        self._is_chosen = np.array([hook.interface in self._chosen for hook in hooks], np.bool_)
        self._labels = [labels(interface=hook.name, netns=hook.netns, direction=hook.direction) for hook in hooks]

    def _others(self) -> Iterator[tuple[str, Columns]]:
        """Packets and octets by direction that the rest has seen, if there is or was any."""
        rest = ~self._is_chosen & (self._last[:, 0] >= 0)
        directions = np.array([hook.direction for hook in self._hooks], "U7") if rest.any() else np.zeros(0, "U7")
        for direction in ("ingress", "egress"):
            of_rest = self._last[rest & (directions == direction)] if len(directions) else self._last[:0]
            if len(of_rest) or direction in self._gone:
                sums = of_rest.sum(0) + self._gone.get(direction, 0)
                yield labels(interface=OTHERS, direction=direction), sums
