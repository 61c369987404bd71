"""Decides by the reach of collectors which of them gets which flows, and which flows wait, and where."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.export.sink import Reach, Sink
from netobs.flow.records import FlowBatch, Records
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    import numpy.typing as npt

    Rows = Optional[npt.NDArray[np.intp]]
    """The numbers of the rows that a collector gets; None: all of them."""

log = logging.getLogger("netobs.export")

STALL_NS = 2 * NS_PER_S
"""A collector that has accepted nothing for this long counts as down: with a spool, flows wait there."""
HOLD_NS = 10 * NS_PER_S
"""The first collector takes over again when it has been up for this time, so that one that flaps causes no changes."""

_NOTHING = np.zeros(0, dtype=np.intp)


class Keeping(NamedTuple):
    """Where flows may wait: ``spooled``, on the disk; ``grouped``, in the queue, because their group requires it."""

    spooled: bool = False
    grouped: bool = False

    def holds(self, reach: Reach) -> bool:
        """Whether to hold flows back although they could be sent: they would not arrive, and they can wait.

        Meanwhile Templates probe the collector. Flows that cannot wait are sent without success, and counted.
        """
        return reach is Reach.SUSPECT and (self.spooled or self.grouped)

    def stores(self, reach: Reach, stalled_ns: int) -> bool:
        """Whether waiting flows go to the disk; ``stalled_ns``: for how long the collector has accepted nothing."""
        return self.spooled and (reach is not Reach.UP or stalled_ns >= STALL_NS)


class Encoded(Protocol):
    """An encoder's Data Sets, the Flow Records that it could not encode, and those with a substitute interface."""

    @property
    def data_sets(self) -> list[Any]: ...

    @property
    def unencodable(self) -> Tally: ...

    @property
    def clamped(self) -> int: ...


class BatchEncoder(Protocol):
    """Makes Data Sets from Flow Records."""

    def encode(self, batch: FlowBatch) -> Encoded: ...


@dataclass(eq=False, repr=False)
class Member:
    """A collector: its sink and its encoder."""

    name: str
    sink: Sink
    encoder: BatchEncoder


class Replicate:
    """Every collector gets every flow."""

    holds = False
    """Whether flows wait for a collector that refuses them."""
    ticks = False
    """Whether the router calls ``tick``."""

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self.name = name
        self.members = tuple(members)
        for member in members:
            member.sink.hold(self.holds)

    def __str__(self) -> str:
        return f'group "{self.name}"'

    def shares(self, records: Records, now_ns: int) -> list[Rows]:
        """The rows of ``records`` for each of ``members``."""
        return [None] * len(self.members)

    def has_taken(self, number: int) -> bool:
        """Whether the batch with this ``number`` needs none of ``members`` any more."""
        return all(member.sink.last_batch == number for member in self.members)

    def tick(self, now_ns: int) -> None:
        """Periodic checks, about once a second."""


class Balance(Replicate):
    """Each collector gets its share, up or not: the share of a collector that is down waits in its queue."""

    holds = True

    def shares(self, records: Records, now_ns: int) -> list[Rows]:
        return list(balance(records, len(self.members)))


@dataclass(eq=False, repr=False)
class _Health:
    up_since_ns: int | None = None
    reconnects: int = 0

    def observe(self, sink: Sink, now_ns: int) -> None:
        if sink.reach is not Reach.UP:
            self.up_since_ns = None
        elif self.up_since_ns is None or sink.account.reconnects != self.reconnects:  # it was away in between
            self.up_since_ns = now_ns
        self.reconnects = sink.account.reconnects


class Failover(Replicate):
    """The first collector that is up gets every flow. If none is up, the first gets them, and its queue holds them.

    The waiting flows of a collector that is down move to the active one, if both have the same encoder.
    """

    holds = ticks = True

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        super().__init__(name, members)
        self._health = [_Health() for _ in members]
        self._active = 0

    def shares(self, records: Records, now_ns: int) -> list[Rows]:
        self.tick(now_ns)
        return [None if number == self._active else _NOTHING for number in range(len(self.members))]

    def has_taken(self, number: int) -> bool:
        """One is enough, also if another one is active now."""
        return any(member.sink.last_batch == number for member in self.members)

    def tick(self, now_ns: int) -> None:
        for member, health in zip(self.members, self._health):
            health.observe(member.sink, now_ns)
        self._switch(self._choose(now_ns))
        self._move(now_ns)

    def _choose(self, now_ns: int) -> int:
        up = [number for number, health in enumerate(self._health) if health.up_since_ns is not None]
        if self._active not in up:
            pending = self.members[self._active].sink.reach is Reach.CONNECTING  # wait for that
            return self._active if pending else (up or [0])[0]
        stable = [number for number in up if now_ns - (self._health[number].up_since_ns or 0) >= HOLD_NS]
        return min([self._active, *stable])

    def _switch(self, number: int) -> None:
        if number == self._active:
            return
        before, self._active = self.members[self._active].sink, number
        sink = self.members[number].sink
        if sink.reach is not Reach.UP:
            log.warning("%s: no collector is up; flows wait for %s", self, sink)
        elif before.reach is Reach.UP:
            log.warning("%s: flows go to %s again: it is up", self, sink)
        else:
            log.warning("%s: flows go to %s now: %s is down", self, sink, before)

    def _move(self, now_ns: int) -> None:
        target = self.members[self._active]
        for member in self.members:
            stays = member is target or member.sink.reach is Reach.UP or member.encoder is not target.encoder
            if not stays and target.sink.reach is Reach.UP:
                target.sink.take_over(member.sink, now_ns)


GROUPS = {"replicate": Replicate, "balance": Balance, "failover": Failover}
"""By the name of the policy."""


def balance(records: Records, collectors: int) -> list[npt.NDArray[np.intp]]:
    """The row numbers for each collector, in order: each row belongs to exactly one collector."""
    owner = conversation_hash(records) % np.uint64(collectors)
    return [np.flatnonzero(owner == each) for each in range(collectors)]


def conversation_hash(records: Records) -> npt.NDArray[np.uint64]:
    """A number for each of ``records``, shape ``(n,)``, evenly spread over 64 bits.

    It is the same for both directions of a conversation (swapped addresses and ports, same protocol), for every
    interface and VLAN, on any host, in any version. So one collector gets the whole conversation.
    """
    source = _endpoint(records["src_addr"], records["src_port"])
    destination = _endpoint(records["dst_addr"], records["dst_port"])
    return _mix(source + destination + records["protocol"].astype(np.uint64))


def _endpoint(address: npt.NDArray[np.uint8], port: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint64]:
    words = np.ascontiguousarray(address).view("<u8").astype(np.uint64)
    return _mix(_mix(_mix(words[:, 0]) ^ words[:, 1]) ^ port.astype(np.uint64))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A bijection that lets each bit depend on every bit: the finalizer of splitmix64 (Steele, Lea, Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
