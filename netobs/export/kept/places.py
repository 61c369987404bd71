"""Which collector has which place among what is kept."""

from __future__ import annotations

import itertools
import logging
import re

import numpy as np

from netobs.base.column import Column
from netobs.base.keeper import Keeper
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
        numbers = sorted(int(found[1]) for found in map(_STATE.fullmatch, keeper.names()) if found)
        for number in numbers:
            fd = keeper.former(Place(keeper, number, {}).names[0])
            state = KeptState(fd) if fd is not None else None
            identity = state.read()[0] if state is not None and state.is_known else {"name": f" {number}"}
            self._former[identity["name"]] = Place(keeper, number, identity)
        self._numbers = itertools.count(max(numbers, default=0) + 1)

    def of(self, name: str, identity: dict[str, str]) -> Place:
        """The place of the collector called ``name``. It finds what the former process has left there for a session of
        the same ``identity``: what makes the same Messages from the same rows."""
        former = self._former.pop(name, None)
        number = next(self._numbers) if former is None else former.number
        return Place(self._keeper, number, {"name": name, **identity})

    def give_up_rest(self) -> None:
        """Drops what belongs to no collector of this configuration, and says how much waited there."""
        for name, place in self._former.items():
            fd = self._keeper.former(place.names[0])
            state = KeptState(fd) if fd is not None else None
            if state is not None and not state.is_known:
                log.warning("flows that another version of netobs has kept for a collector are lost: this version "
                            "cannot read them")  # fmt: skip
            elif state is not None and (flows := _waiting_flows(state)):
                log.warning('collector "%s" is not in the configuration any more: %d flows that waited for it are lost',
                            name, flows)  # fmt: skip
            for each in place.names:
                self._keeper.drop(each)
        self._former.clear()

    def boot_ns(self, now_ns: int) -> int:
        """The start of the exporter, CLOCK_MONOTONIC: ``now_ns``, or that of the first process of this line."""
        fd = self._keeper.former(_BOOT)
        kept = Column(np.int64, self._keeper.memory(_BOOT) if fd is None else fd).array
        if not kept[0]:
            kept[0] = now_ns
        return int(kept[0])


def _waiting_flows(state: KeptState) -> int:
    _, hot, cold = state.read()
    stats = ExportStats()
    KeptAccount(stats, state).restore(cold)
    gone = stats.not_sent_total().flows + stats.spooled.flows + stats.moved_away.flows
    return stats.seen.flows + stats.taken_over.flows - hot.sent_flows - gone
