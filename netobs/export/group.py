"""Policies of groups: which collectors get which flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol

import numpy as np
import numpy.typing as npt

from netobs.base.clock import NS_PER_S
from netobs.export.link.link import log
from netobs.export.session import TransportSession
from netobs.flow.records import FlowBatch, Records
from netobs.flow.tally import Tally

HOLD_NS = 10 * NS_PER_S
"""The first collector takes over again when it has been up for this time, so that one that flaps causes no changes."""

Rows = Optional[npt.NDArray[np.intp]]
"""The numbers of the rows that a collector gets; None: all of them."""
_NOTHING = np.zeros(0, dtype=np.intp)


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


@dataclass
class Member:
    """A collector: its session, its encoder, and its flows that the protocol or Templates cannot carry."""

    name: str
    session: TransportSession[Any, Any]
    encoder: BatchEncoder
    unencodable: Tally = field(default_factory=Tally)
    clamped: int = 0


class Replicate:
    """Every collector gets every flow."""

    holds = False
    """Whether flows wait for a collector that refuses them."""

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self.name = name
        self.members = tuple(members)
        for member in members:
            member.session.holds = self.holds

    def __str__(self) -> str:
        return f'group "{self.name}"'

    def shares(self, records: Records, now_ns: int) -> list[Rows]:
        """The rows of ``records`` for each of ``members``."""
        return [None] * len(self.members)

    def tick(self, now_ns: int) -> None:
        """Periodic checks, about once a second."""


class Balance(Replicate):
    """Each collector gets its share, up or not: the share of a collector that is down waits in its queue."""

    holds = True

    def shares(self, records: Records, now_ns: int) -> list[Rows]:
        return list(balance(records, len(self.members)))

    def tick(self, now_ns: int) -> None:
        for member in self.members:
            member.session.probe(now_ns)


@dataclass
class _Health:
    up_since_ns: int | None = None
    reconnects: int = 0
    known: bool = False  # whether it was up, or failed, at least once

    def observe(self, session: TransportSession[Any, Any], now_ns: int) -> None:
        if not session.available:
            self.up_since_ns = None
        elif self.up_since_ns is None or session.stats.reconnects != self.reconnects:  # it was away in between
            self.up_since_ns = now_ns
        self.reconnects = session.stats.reconnects
        self.known = self.known or session.available or session.stats.bytes > 0 or session.stats.failed_attempts > 0


class Failover(Replicate):
    """The first collector that is up gets every flow. If none is up, the first gets them, and its queue holds them.

    The waiting flows of a collector that is down move to the active one, if both have the same encoder.
    """

    holds = True

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        super().__init__(name, members)
        self._health = [_Health() for _ in members]
        self._active = 0

    def shares(self, records: Records, now_ns: int) -> list[Rows]:
        self.tick(now_ns)
        return [None if number == self._active else _NOTHING for number in range(len(self.members))]

    def tick(self, now_ns: int) -> None:
        for member, health in zip(self.members, self._health):
            member.session.probe(now_ns)
            health.observe(member.session, now_ns)
        self._switch(self._choose(now_ns))
        self._move(now_ns)

    def _choose(self, now_ns: int) -> int:
        up = [number for number, health in enumerate(self._health) if health.up_since_ns is not None]
        if self._active not in up:
            pending = not self._health[self._active].known  # its first connection is under way: wait for that
            return self._active if pending else (up or [0])[0]
        stable = [number for number in up if now_ns - (self._health[number].up_since_ns or 0) >= HOLD_NS]
        return min([self._active, *stable])

    def _switch(self, number: int) -> None:
        if number == self._active:
            return
        before, self._active = self.members[self._active].session, number
        session = self.members[number].session
        if not session.available:
            log.warning("%s: no collector is up; flows wait for %s", self, session)
        elif before.available:
            log.warning("%s: flows go to %s again: it is up", self, session)
        else:
            log.warning("%s: flows go to %s now: %s is down", self, session, before)

    def _move(self, now_ns: int) -> None:
        target = self.members[self._active]
        for member in self.members:
            idle = member is target or member.session.available or member.encoder is not target.encoder
            if not idle and target.session.available:
                target.session.take_over(member.session.surrender(now_ns), now_ns)


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
