"""When a flow starts does not depend on which CPU or table saw a packet, nor on when evictions fall.

Python does the kernel's part here (``starts_anew`` of bpf/flow.bpf.h), a packet at a time; tests/kernel/test_start.py
asks the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netobs.flow.records import Records
from netobs.metering.cache import FlowCache
from tests.unit.metering.flows import ACK, FIN, RST, SYN, S, by_flow, flow, rows, start_of

TICK_NS = 1 << 10
ENDS = FIN | RST
RING = -1  # as a CPU: the packet is a record of its own
LONG_NS = 5000 * S  # longer than the times of a part repeat


@dataclass(frozen=True)
class Packet:
    """A packet of flow ``number``, ``after`` units of time behind the one before."""

    number: int
    after: int
    flags: int
    where: int
    evicted: bool
    """Whether an eviction comes after it."""


PACKETS = st.lists(
    st.builds(
        Packet,
        number=st.integers(0, 1),
        after=st.integers(0, 3),
        flags=st.sampled_from([ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST, SYN | FIN]),
        where=st.sampled_from([0, 0, 1, RING]),
        evicted=st.sampled_from([False, False, False, True]),
    ),
    max_size=14,
)


@dataclass
class Part:
    """What one CPU knows of a flow: the fields that decide."""

    first: int
    last: int
    end: int
    syn: int
    flags: int
    tos: int
    packets: int = 1

    def add(self, time: int, flags: int, tos: int) -> None:
        if flags & ENDS and not self.flags & ENDS:
            self.end = time
        if flags & SYN:
            self.syn = time
            if self.flags & ENDS and time > self.end:
                self.first, self.tos = time, tos
        self.flags, self.last, self.packets = self.flags | flags, time, self.packets + 1

    def row(self, number: int) -> Records:
        times = {"first_ns": self.first * TICK_NS, "last_ns": self.last * TICK_NS}
        marks = {"end": self.end % 2**32, "syn": self.syn % 2**32}
        return flow(number, packets=self.packets, tcp_flags=self.flags, tos=self.tos, **times, **marks)


@dataclass
class Host:
    """CPUs and a ring in front of a flow cache, and what must come out of it."""

    cache: FlowCache = field(default_factory=lambda: FlowCache(10**18, 10**18, 100, seed=1))
    parts: dict[tuple[int, int], Part] = field(default_factory=dict)
    ring: list[Records] = field(default_factory=list)
    seen: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def packet(self, number: int, time: int, flags: int, where: int) -> None:
        self.seen.setdefault(number, []).append((time, flags))
        tos, fresh = len(self.seen[number]), Part(time, time, time, time, flags, len(self.seen[number]))
        if where == RING:
            self.ring.append(fresh.row(number))
        elif (number, where) in self.parts:
            self.parts[number, where].add(time, flags, tos)
        else:
            self.parts[number, where] = fresh

    def evict(self, now: int) -> None:
        eviction = [part.row(number) for (number, _), part in self.parts.items()] + self.ring
        self.parts, self.ring = {}, []
        due = by_flow(self.cache.update(rows(*eviction), now * TICK_NS))
        over = {number for number, packets in self.seen.items() if any(flags & ENDS for _, flags in packets)}
        assert set(due) == over
        for number in over:
            self.check(due[number], self.seen.pop(number))

    def finish(self) -> None:
        for number, row in by_flow(self.cache.expire_all()).items():
            self.check(row, self.seen.pop(number))
        assert self.seen == {}

    def check(self, row: np.void, packets: list[tuple[int, int]]) -> None:
        assert row["packets"] == len(packets)
        assert row["first_ns"] == start_of(packets) * TICK_NS
        assert row["last_ns"] == packets[-1][0] * TICK_NS


@settings(deadline=None, max_examples=400)  # other work on the machine must not fail the test
@given(PACKETS, st.integers(0, 2**33))
def test_the_start_is_that_of_the_rule(packets: list[Packet], begin: int) -> None:
    host, now = Host(), begin + 1
    for packet in packets:
        now += packet.after
        host.packet(packet.number, now, packet.flags, packet.where)
        if packet.evicted:
            host.evict(now)
    host.evict(now)
    host.finish()


def run(*packets: tuple[int, int, int]) -> Any:
    """The one record of (time, flags, CPU) of packets that one eviction brings; their ToS are 1, 2, ..."""
    host = Host()
    for time, flags, where in packets:
        host.packet(7, time, flags, where)
    eviction = [part.row(7) for part in host.parts.values()] + host.ring
    (row,) = [*host.cache.update(rows(*eviction), 10**9), *host.cache.expire_all()]
    return row


def test_a_syn_that_is_sent_again_leaves_the_start() -> None:
    for where in (0, 1, RING):
        assert run((10, SYN, 0), (20, SYN, where), (30, ACK, 0))["first_ns"] == 10 * TICK_NS


def test_the_first_packet_is_the_syn_of_the_new_connection() -> None:
    for first, second in ((0, 0), (0, 1), (1, 0), (RING, 1), (0, RING), (RING, RING)):
        row = run((10, ACK, first), (20, FIN, first), (30, SYN, second), (40, ACK, second))
        assert (row["first_ns"], row["tos"]) == (30 * TICK_NS, 3)


def test_a_syn_of_the_cache_is_never_taken_for_a_later_one() -> None:
    """The times of a part repeat after 73 minutes, and a record stays in the cache for up to a day."""
    host, begin = Host(), 10
    host.packet(7, begin, SYN, 0)
    host.evict(begin)
    for step in range(1, 4):
        host.packet(7, begin + step * LONG_NS // TICK_NS, ACK, 0)
        host.evict(begin + step * LONG_NS // TICK_NS)
    later = begin + 4 * 2**32 - 5  # as a time of a part, 5 before the SYN
    host.packet(7, later, FIN, 0)
    host.packet(7, later + 10, ACK, 1)
    host.evict(later + 10)
    assert host.seen == {}
