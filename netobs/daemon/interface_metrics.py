"""The metrics of interfaces, made of columns: a host may have thousands, and each scrape asks for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netobs.daemon.compared import Compared
from netobs.daemon.hooks import DIRECTIONS, found
from netobs.daemon.openmetrics import MOST_INTERFACES, OTHERS, SUM_OF_OTHERS, Family, Sample, labels

if TYPE_CHECKING:
    import numpy.typing as npt

ABOUT_METHOD = f"The program on a hook; of at most {MOST_INTERFACES} interfaces"
ABOUT_RATIO = "Difference to the kernel's own packet counters that nothing explains, as a part of these"
AMOUNTS = (("packets", "Packets on the wire"), ("octets", "IP octets"))
WAYS = {value: name for name, value in DIRECTIONS.items()}


class Hook(NamedTuple):
    """A hook with a program. ``key``: as ``count_key``; ``netns``: the name of its network namespace, "" for the
    daemon's own."""

    key: int
    netns: str
    name: str
    method: str


class InterfaceMetrics:
    """``families`` at each scrape. The first ``most`` interfaces that it meets have samples of their own, as long as
    they exist. The counters of the rest are one sum for each direction. It does not go down where an interface goes, or
    its counter begins anew, or is not known for a while."""

    def __init__(self, most: int = MOST_INTERFACES) -> None:
        self._most = most
        self._named: set[tuple[int, str, str]] = set()
        self._hooks: Sequence[Hook] = ()
        self._count = 0
        self._keys: npt.NDArray[np.uint64] = np.zeros(0, "<u8")
        self._labels: list[str] = []
        self._methods: list[Sample] = []
        self._rest: dict[tuple[int, str, str], int] = {}
        """Hooks of the rest: key, namespace and name of the interface, and the place in ``_rest_seen``."""
        self._rest_keys = self._keys
        self._rest_seen: npt.NDArray[np.int64] = np.zeros((0, 2), "<i8")
        self._gone = {way: np.zeros(2, "<i8") for way in WAYS}
        self._counted: set[int] = set()
        """The directions in which the rest was ever counted."""

    def families(self, hooks: Sequence[Hook], its: Compared) -> Iterator[Family]:
        """The metrics of ``hooks``, which are in ascending order of their keys."""
        if hooks != self._hooks:
            self._follow(hooks)
        yield Family("netobs_interfaces", "gauge", "Interfaces that are measured", [("", self._count)])
        yield Family("netobs_interface", "info", ABOUT_METHOD, self._methods)
        places, there = found(its.keys, self._keys)
        places, names = places[there], [*compress(self._labels, there)]
        others = self._others(its)
        for column, (amount, what) in enumerate(AMOUNTS):
            samples: list[Sample] = [*zip(names, its.seen[places, column].tolist())]
            samples += [(name, int(sums[column])) for name, sums in others]
            about = f"{what} that the programs have seen{SUM_OF_OTHERS}"
            yield Family(f"netobs_seen_{amount}", "counter", about, samples)
        ratios = its.ratios()[places]
        known = ~np.isnan(ratios)
        ratio_samples = [*zip(compress(names, known), ratios[known].tolist())]
        yield Family("netobs_reconciliation_ratio", "gauge", ABOUT_RATIO, ratio_samples)

    def _follow(self, hooks: Sequence[Hook]) -> None:
        """The hooks are others than at the last scrape."""
        self._hooks = hooks
        present = dict.fromkeys((each.key >> 1, each.netns, each.name) for each in hooks)
        self._named.intersection_update(present)
        rest = {(key >> 1, netns, name) for key, netns, name in self._rest}
        new = [key for key in present if key not in self._named and key not in rest]
        self._named.update(new[: self._most - len(self._named)])
        self._count = len(present)
        own = [each for each in hooks if (each.key >> 1, each.netns, each.name) in self._named]
        self._keys = np.array([each.key for each in own], "<u8")
        self._labels = [labels(interface=each.name, netns=each.netns, direction=WAYS[each.key & 1]) for each in own]
        self._methods = [
            (f'{written[:-1]},method="{each.method}"}}', 1) for written, each in zip(self._labels, own) if each.method
        ]
        self._follow_rest(
            [each for each in hooks if (each.key >> 1, each.netns, each.name) not in self._named], present
        )

    def _follow_rest(self, rest: list[Hook], present: Iterable[tuple[int, str, str]]) -> None:
        """What a hook has counted stays as long as its interface is ``present``, as the hook may come back."""
        former, before, there = self._rest, self._rest_seen, set(present)
        stays = [hook for hook in former if (hook[0] >> 1, *hook[1:]) in there]
        self._rest = {hook: place for place, hook in enumerate(dict.fromkeys([*(each[:3] for each in rest), *stays]))}
        self._rest_keys = np.array([key for key, _, _ in self._rest], "<u8")
        self._rest_seen = np.zeros((len(self._rest), 2), "<i8")
        for hook, place in former.items():
            if hook in self._rest:
                self._rest_seen[self._rest[hook]] = before[place]
            else:
                self._gone[hook[0] & 1] += before[place]

    def _others(self, its: Compared) -> list[tuple[str, Any]]:
        """Labels, packets and octets of the rest, for each direction that has been counted."""
        places, there = found(its.keys, self._rest_keys)
        seen, ways = self._rest_seen.copy(), self._rest_keys & np.uint64(1)
        seen[there] = its.seen[places[there]]
        begins_anew = (seen < self._rest_seen).any(1)
        for way in WAYS:
            self._gone[way] += self._rest_seen[begins_anew & (ways == way)].sum(0)
        self._rest_seen = seen
        self._counted.update(ways[there].tolist())
        return [
            (labels(interface=OTHERS, direction=WAYS[way]), gone + seen[ways == way].sum(0))
            for way, gone in self._gone.items()
            if way in self._counted
        ]
