"""When a flow starts: a SYN that is sent again leaves the start, one after a FIN or RST begins a new connection.

The answer is the same from slots, overflow and ring, on whichever CPU, and wherever evictions fall.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lab import frames as f
from lab.prog_run import Programs, merged, on_cpu
from netobs.datapath.layout import SLOT_TIME_SHIFT
from netobs.flow.records import Records
from netobs.metering.cache import FlowCache
from tests.kernel.flows import readable
from tests.kernel.numbered import fill, let_pass, mapped, segment, source
from tests.unit.metering.flows import start_of

pytestmark = pytest.mark.kernel

CPUS = sorted(os.sched_getaffinity(0))
CAPACITY = 64
RESOLUTION_NS = 1 << SLOT_TIME_SHIFT
FLOW = 5000
FLAGS = (f.ACK, f.ACK, f.SYN, f.SYN | f.ACK, f.FIN | f.ACK, f.RST, f.SYN | f.FIN)
TRIALS, MOST_PACKETS = 60, 9
needs_cpus = pytest.mark.skipif(CPUS[-1] == 0, reason="a CPU besides the first is needed")


@pytest.fixture(scope="module")
def levels() -> Iterator[Programs]:
    """The first CPU has slots; what the last one sees goes to the overflow, and to the ring where that is full."""
    with Programs(max_flows=CAPACITY, slots_for=1, precise_time=True) as loaded:
        yield loaded


class Conversation:
    """Packets of one flow, and the moments between which each was sent."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self.moments: list[tuple[int, int, int]] = []

    def send(self, flags: int, cpu: int = CPUS[0], *, tos: int = 0) -> None:
        before = let_pass(2 * RESOLUTION_NS)
        packet = f.ipv4(f.TCP, f.tcp(flags), src=source(FLOW), tos=tos)
        with on_cpu(cpu):
            self._programs.send(f.ethernet(f.IPV4, packet))
        self.moments.append((before, let_pass(2 * RESOLUTION_NS), flags))

    def check(self, row: np.void) -> None:
        """That ``row`` has all packets that were sent since the last check, and the start and end of them."""
        start = start_of([(number, flags) for number, (_, _, flags) in enumerate(self.moments)])
        assert row["packets"] == len(self.moments)
        for name, (before, after, _) in (("first_ns", self.moments[start]), ("last_ns", self.moments[-1])):
            assert before - RESOLUTION_NS < row[name] < after, (name, self.moments)
        self.moments = []


def of_the_flow(records: Records) -> Records:
    rows: Records = records[(records["src_addr"] == mapped(source(FLOW))).all(axis=1)]
    return rows


SEQUENCES = {
    "sent again": (f.SYN, f.SYN, f.SYN),
    "behind an ack": (f.ACK, f.SYN, f.ACK),
    "answer sent again": (f.SYN | f.ACK, f.SYN | f.ACK, f.ACK),
    "after a fin": (f.ACK, f.FIN | f.ACK, f.ACK, f.SYN, f.ACK),
    "after a rst": (f.SYN, f.RST, f.SYN, f.ACK),
    "before a fin": (f.ACK, f.SYN, f.FIN | f.ACK),
    "with a fin": (f.ACK, f.SYN | f.FIN, f.ACK),
}


@needs_cpus
@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("level", ["slots", "overflow", "ring"])
def test_start(levels: Programs, level: str, name: str) -> None:
    cpu = CPUS[0] if level == "slots" else CPUS[-1]
    with on_cpu(CPUS[-1]):
        fill(levels, CAPACITY if level == "ring" else 0)
    conversation = Conversation(levels)
    for number, flags in enumerate(SEQUENCES[name]):
        conversation.send(flags, cpu, tos=number)
    expected = start_of(list(enumerate(SEQUENCES[name])))
    (row,) = merged(of_the_flow(levels.evict()))
    conversation.check(row)
    assert row["tos"] == expected


@needs_cpus
def test_a_row_of_the_table_has_the_start_already(levels: Programs) -> None:
    for cpu in (CPUS[0], CPUS[-1]):
        conversation = Conversation(levels)
        for flags in SEQUENCES["after a fin"]:
            conversation.send(flags, cpu)
        (row,) = levels.evict()
        conversation.check(row)


@needs_cpus
def test_random_conversations(levels: Programs) -> None:
    rng, cache = random.Random(2675), FlowCache(10**18, 10**18, 1000, seed=1)
    anew = 0
    for _ in range(TRIALS):
        conversation, full = Conversation(levels), rng.random() < 0.5
        for _ in range(rng.randrange(1, MOST_PACKETS)):
            if full:
                with on_cpu(CPUS[-1]):
                    fill(levels, CAPACITY)
            conversation.send(rng.choice(FLAGS), rng.choice((CPUS[0], CPUS[-1])))
            if rng.random() < 0.2:
                anew += check_due(levels, cache, conversation)
        anew += check_due(levels, cache, conversation)
        (row,) = of_the_flow(cache.expire_all()) if conversation.moments else (None,)
        if row is not None:
            conversation.check(row)
    assert anew > TRIALS // 10


def check_due(levels: Programs, cache: FlowCache, conversation: Conversation) -> bool:
    """Evicts. A flow with a FIN or RST is due: whether it has started anew."""
    due = of_the_flow(cache.update(levels.evict(), time.monotonic_ns()))
    if not len(due):
        assert not any(flags & (f.FIN | f.RST) for _, _, flags in conversation.moments)
        return False
    anew = start_of([(number, flags) for number, (_, _, flags) in enumerate(conversation.moments)]) > 0
    conversation.check(due[0])
    return anew


def test_the_papers_table_has_the_papers_rule() -> None:
    with Programs(max_flows=CAPACITY, precise_time=True, flow_table="percpu_hash") as programs:
        before = let_pass(2)
        programs.send(segment(f.ACK))
        middle = let_pass(2)
        programs.send(segment(f.SYN))
        programs.send(segment(f.ACK))
        (row,) = programs.evict()
    assert before < middle < row["first_ns"] < row["last_ns"]
    assert readable(np.array([row]))[0]["packets"] == 3
