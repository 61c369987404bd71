"""Which collector has which place among what is kept."""

from __future__ import annotations

import itertools
import logging
import re

import numpy as np

from netobs.base.column import Column
from netobs.base.keeper import Keeper, file_of
from netobs.export.kept.account import KeptAccount
from netobs.export.kept.session import Place
from netobs.export.kept.state import KeptState
from netobs.export.stats import ExportStats

log = logging.getLogger("netobs.export")

_STATE = re.compile(r"q-(\d+)-s")
_BOOT = "q-boot"


class Places:
    """The places of all sessions in ``keeper``: each collector of the configuration asks once for its own."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._former: dict[str, Place] = {}
        self._rest: list[Place] = []
        self._given: dict[int, int] = {}
        numbers = sorted(int(found[1]) for found in map(_STATE.fullmatch, keeper.names()) if found)
        for number in numbers:
            fd = keeper.former(Place(keeper, number, {}).names[0])
            state = KeptState(fd) if fd is not None else None
            if state is None or not state.is_known:
                self._rest.append(Place(keeper, number, {}))
                continue
            identity, hot, _ = state.read()
            self._given[hot.taken_place - 1] = hot.taken_end
            # Killed in a reload: the later one has what waited, or the earlier one.
            if identity["name"] in self._former:
                self._rest.append(self._former[identity["name"]])
            self._former[identity["name"]] = Place(keeper, number, identity)
        self._numbers = itertools.count(max(numbers, default=0) + 1)

    def of(self, name: str, identity: dict[str, str]) -> Place:
        """The place of the collector called ``name``. It finds what the former process has left there for a session of
        the same ``identity``: what makes the same Messages from the same rows."""
        former = self._former.pop(name, None)
        number = next(self._numbers) if former is None else former.number
        return Place(self._keeper, number, {**identity, "name": name}, self._given.get(number, 0))

    def give_up_rest(self) -> None:
        """Drops what belongs to no collector of this configuration, and says how much waited there."""
        for place in (*self._rest, *self._former.values()):
            fd = self._keeper.former(place.names[0])
            state = KeptState(fd) if fd is not None else None
            if state is not None and not state.is_known:
                log.warning("flows that another version of netobs has kept for a collector are lost: this version "
                            "cannot read them")  # fmt: skip
            elif state is not None and (flows := self._waiting_flows(state, place)):
                log.warning('collector "%s" is not in the configuration any more: %d flows that waited for it are lost',
                            place.identity["name"], flows)  # fmt: skip
            for each in place.names:
                self._keeper.drop(each)
        self._rest.clear()
        self._former.clear()

    def _waiting_flows(self, state: KeptState, place: Place) -> int:
        _, hot, cold = state.read()
        if hot.end == self._given.get(place.number):
            return 0
        stats = ExportStats()
        KeptAccount(stats, state).restore(cold)
        gone = stats.not_sent_total().flows + stats.spooled.flows + stats.moved_away.flows
        return stats.seen.flows + stats.taken_over.flows - hot.sent_flows - gone

    def boot_ns(self, now_ns: int) -> int:
        """The start of the exporter, CLOCK_MONOTONIC: ``now_ns``, or that of the first process of this line."""
        kept = Column(np.int64, file_of(self._keeper, _BOOT)).array
        if not kept[0]:
            kept[0] = now_ns
        return int(kept[0])
