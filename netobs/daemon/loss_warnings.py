"""Lines in the log about counters of losses: when one begins to move, each minute while it moves, when it stops."""

from __future__ import annotations

import logging

from netobs.base.clock import NS_PER_S, ClockPair
from netobs.flow.report import Losses, LossWatch

log = logging.getLogger("netobs")

AGAIN_NS = 60 * NS_PER_S
"""A continuing loss is logged again after this time; a loss has stopped if its counter did not move for this time."""


class Moving(LossWatch):
    """A counter that moves at times, and how fast."""

    def __init__(self) -> None:
        super().__init__()
        self.packets_per_s: float | None = None
        """Over the last readings; None: there are not two yet, a second apart."""
        self._since: tuple[int, int] | None = None  # when the present measurement of it began, with how many packets

    def see(self, flows: int, packets: int, octets: int, clock: ClockPair) -> Losses:
        """Reads the present counters."""
        since_ns, before = self._since or (clock.monotonic_ns, packets)
        if self._since is None or clock.monotonic_ns - since_ns >= NS_PER_S:
            if self._since is not None:
                self.packets_per_s = (packets - before) * NS_PER_S / (clock.monotonic_ns - since_ns)
            self._since = clock.monotonic_ns, packets
        return self.observe(flows, packets, octets, clock.realtime_ns)


class LossWarning(Moving):
    """Watches one counter. ``what``: who lost it and why; ``remedy``: what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__()
        self._what = what
        self._remedy = remedy
        self._before: Losses | None = None  # the counter when the present loss began
        self._began_ns = self._said_ns = self._moved_ns = 0

    def tell(self, flows: int, packets: int, octets: int, clock: ClockPair) -> None:
        """Reads the present counters, and logs changes."""
        known, now_ns = self.losses, clock.monotonic_ns
        moved = self.see(flows, packets, octets, clock) is not known
        if moved:
            self._moved_ns = now_ns
        if self._before is None:
            if moved:
                self._before, self._began_ns, self._said_ns = known, now_ns, now_ns
                log.warning("%s: a loss begins: %s; %s", self._what, self._lost(known), self._remedy)
        elif now_ns - self._moved_ns >= AGAIN_NS:
            log.info("%s: the loss has stopped: %s", self._what, self._lost(self._before))
            self._before = None
        elif moved and now_ns - self._said_ns >= AGAIN_NS:
            self._said_ns = now_ns
            seconds = (now_ns - self._began_ns) // NS_PER_S
            log.warning("%s: the loss goes on: %s in %d s; %s", self._what, self._lost(self._before), seconds,
                        self._remedy)  # fmt: skip

    def _lost(self, before: Losses) -> str:
        flows, packets = self.losses.flows - before.flows, self.losses.packets - before.packets
        return f"{flows} flows, {packets} packets" if flows else f"{packets} packets"


class LossWarnings:
    """One ``LossWarning`` for each counter that has ever moved."""

    def __init__(self) -> None:
        self._warnings: dict[str, LossWarning] = {}
        self.is_old = False
        """Whether what is read now was lost before: a former process has warned of it."""

    def of(self, what: str) -> Moving | None:
        """The counter that ``what`` names; None if it has never moved."""
        return self._warnings.get(what)

    def tell(self, what: str, remedy: str, flows: int, packets: int, octets: int, clock: ClockPair) -> None:
        """Reads the counter that ``what`` names. Call it at each reading, so that it sees the end of a loss."""
        if what not in self._warnings:
            if not (flows or packets):
                return
            self._warnings[what] = LossWarning(what, remedy)
        if self.is_old:
            self._warnings[what].see(flows, packets, octets, clock)
        else:
            self._warnings[what].tell(flows, packets, octets, clock)
