"""Nothing is lost and nothing is counted twice, whatever comes in between.

Threads on all CPUs send random packets of the same flows through the real programs, while the halves are turned, taken
out, or fail to be taken out at random moments. The tables are so small that slots, overflow and ring are all in use.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from lab import frames as f
from lab.prog_run import Hammer, Programs, merged, on_cpu
from netobs.datapath.layout import SLOT_TIME_SHIFT
from netobs.flow.records import Records
from tests.kernel.numbered import mapped

pytestmark = pytest.mark.kernel

CPUS = sorted(os.sched_getaffinity(0))[:4]
TABLES = {"percpu_array": 64, "percpu_hash": 400}  # max_flows; percpu_array has 1,024 slots for each CPU besides
BATCH = 50  # several for one eviction
FLOWS, HOT_FLOWS = 2500, 40
ACTIONS = 100
RESOLUTION_NS = 1 << SLOT_TIME_SHIFT
FLAGS = (f.ACK, f.ACK | f.PSH, f.FIN | f.ACK, f.RST, 0x100, 0)  # of flows with an odd number: SYN also
TTLS = (1, 63, 64, 255)


class Shape(NamedTuple):
    """A packet, and what it adds to its flow."""

    payload: int
    gso_size: int
    packets: int
    min_length: int
    max_length: int

    @property
    def octets(self) -> int:
        return self.payload + 40 * self.packets


SHAPES = (
    Shape(0, 0, 1, 40, 40),
    Shape(1, 0, 1, 41, 41),
    Shape(900, 0, 1, 940, 940),
    Shape(1000, 300, 4, 140, 340),
)
TEMPLATES = [f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(0, bytes(shape.payload)), src="10.0.0.0")) for shape in SHAPES]

SENT = np.dtype([(name, "<i8") for name in ("flow", "flags", "ttl", "shape", "repeat", "before_ns", "after_ns")])
Sent = npt.NDArray[np.void]


class Sender:
    """Sends a random packet with each call, and keeps what it was."""

    def __init__(self, programs: Programs, seed: int) -> None:
        self._run, self._rng = programs.run(), random.Random(seed)
        self.sent: list[tuple[int, ...]] = []

    def __call__(self) -> None:
        rng = self._rng
        self.send(rng.randrange(HOT_FLOWS if rng.random() < 0.4 else FLOWS), rng.choice((1, 1, 1, 3, 30)))

    def send(self, flow: int, repeat: int) -> None:
        rng = self._rng
        flags = rng.choice(FLAGS) | (f.SYN if flow % 2 and rng.random() < 0.2 else 0)
        ttl, shape = rng.choice(TTLS), rng.randrange(len(SHAPES))
        frame = bytearray(TEMPLATES[shape])
        frame[22], frame[28:30], frame[46:48] = ttl, flow.to_bytes(2, "big"), (0x5000 | flags).to_bytes(2, "big")
        self._run.skb.gso_size = SHAPES[shape].gso_size
        self._run.skb.gso_segs = SHAPES[shape].packets if SHAPES[shape].gso_size else 0
        before = time.monotonic_ns()
        self._run(bytes(frame), repeat)
        self.sent.append((flow, flags, ttl, shape, repeat, before, time.monotonic_ns()))


@contextlib.contextmanager
def unreadable(table: Any) -> Iterator[None]:
    """Within the block no hash map of the table can be read."""
    fds = table._fds
    table._fds = {**fds, **dict.fromkeys(table.OVERFLOW, -1)} if isinstance(fds, dict) else [-1] * len(fds)
    try:
        yield
    finally:
        table._fds = fds


class Storm:
    """Senders on all CPUs, and one random action after another meanwhile."""

    def __init__(self, programs: Programs, seed: int, read_ring: bool = True) -> None:
        self._programs, self._rng = programs, random.Random(seed)
        self._senders = [Sender(programs, seed * 1000 + cpu) for cpu in CPUS]
        self._taken: list[Records] = []
        self._read_ring = read_ring
        self.levels = {"slots": 0, "overflow": 0}
        self.failures = 0

    def fill(self, repeat: int) -> None:
        """A packet of each flow, which is more than the table takes, and then ``repeat`` of each."""
        with on_cpu(CPUS[-1]):
            for packets in (1, repeat):
                for flow in range(FLOWS):
                    self._senders[-1].send(flow, packets)

    def run(self) -> None:
        actions = (self.evict, self.evict, self.evict, self._fail, self._turn, self._ring, self._ring)
        with contextlib.ExitStack() as stack:
            hammers = [stack.enter_context(Hammer(*pair)) for pair in zip(CPUS, self._senders)]
            for number in range(ACTIONS):
                hammers[number % len(hammers)].go_on(self._rng.randrange(1, 100))
                self._rng.choice(actions)()
        for _ in range(2):  # one for each half
            self.evict()
        self._read_ring = True
        self._ring()

    def evict(self) -> None:
        self._taken.append(self._programs.datapath.evict(time.monotonic_ns()))
        for level, flows in self._programs.table.occupancy().items():
            self.levels[level] += flows

    def _fail(self) -> None:
        with unreadable(self._programs.table), pytest.raises(OSError, match="batch lookup and delete"):
            self._programs.datapath.evict(time.monotonic_ns())
        self.failures += 1

    def _turn(self) -> None:
        self._programs.datapath.halves.flip(time.monotonic_ns())

    def _ring(self) -> None:
        if self._read_ring:
            self._taken.append(self._programs.datapath.read_ring().records)

    @property
    def sent(self) -> Sent:
        return np.array([entry for sender in self._senders for entry in sender.sent], SENT)

    @property
    def records(self) -> Records:
        return np.concatenate(self._taken)


def per_flow(ufunc: np.ufunc, sent: Sent, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """``ufunc`` over the values of each flow, shape ``(flows that were sent,)``; ``sent`` is sorted by flow."""
    starts = np.flatnonzero(np.diff(sent["flow"], prepend=-1))
    result: npt.NDArray[np.int64] = ufunc.reduceat(values.astype(np.int64), starts)
    return result


def shape_values(sent: Sent, value: Callable[[Shape], int]) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = np.array([value(shape) for shape in SHAPES], np.int64)[sent["shape"]]
    return values


class Expected:
    """What the records of all flows must add up to, in the order of the flows' numbers."""

    def __init__(self, sent: Sent) -> None:
        sent = sent[np.argsort(sent["flow"], kind="stable")]
        self.flows = np.unique(sent["flow"])
        self.values = {
            "packets": per_flow(np.add, sent, shape_values(sent, lambda s: s.packets) * sent["repeat"]),
            "octets": per_flow(np.add, sent, shape_values(sent, lambda s: s.octets) * sent["repeat"]),
            "tcp_flags": per_flow(np.bitwise_or, sent, sent["flags"]),
            "min_ttl": per_flow(np.minimum, sent, sent["ttl"]),
            "max_ttl": per_flow(np.maximum, sent, sent["ttl"]),
            "min_ip_length": per_flow(np.minimum, sent, shape_values(sent, lambda s: s.min_length)),
            "max_ip_length": per_flow(np.maximum, sent, shape_values(sent, lambda s: s.max_length)),
        }
        self.first_after = per_flow(np.minimum, sent, sent["before_ns"])
        self.first_before = per_flow(np.minimum, sent, sent["after_ns"])
        self.last_after = per_flow(np.maximum, sent, sent["before_ns"])
        self.last_before = per_flow(np.maximum, sent, sent["after_ns"])
        self.has_syn = self.values["tcp_flags"] & f.SYN != 0


def in_order(records: Records) -> tuple[Records, npt.NDArray[np.int64]]:
    """The flows, merged, in the order of their numbers; and these."""
    flows = merged(records)
    assert (flows["src_addr"][:, :14] == mapped("10.0.0.0")[:14]).all()
    numbers = flows["src_addr"][:, 14].astype(np.int64) << 8 | flows["src_addr"][:, 15]
    order = np.argsort(numbers)
    return flows[order], numbers[order]


def check_constants(flows: Records) -> None:
    for name, value in (("tos", f.TOS), ("protocol", f.TCP), ("src_port", f.SPORT), ("dst_port", f.DPORT)):
        assert (flows[name] == value).all(), name
    assert (flows["src_mac"] == list(f.mac(f.SRC_MAC))).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("flow_table", TABLES)
def test_each_flow_has_what_was_sent(flow_table: str, seed: int) -> None:
    with Programs(BATCH, max_flows=TABLES[flow_table], flow_table=flow_table, precise_time=True) as programs:
        storm = Storm(programs, seed)
        for _ in range(2):  # each half is full once, however little a slow machine sends later
            storm.fill(repeat=2)
            storm.evict()
        storm.run()
        ledger = programs.ledger()
        assert getattr(programs.table, "stale", 0) == 0
    assert not any(count.packets for count in ledger.reasons.values())
    expected = Expected(storm.sent)
    flows, numbers = in_order(storm.records)
    assert numbers.tolist() == expected.flows.tolist()
    for name, values in expected.values.items():
        assert flows[name].astype(np.int64).tolist() == values.tolist(), name
    assert ledger.seen.packets == expected.values["packets"].sum()
    assert ledger.seen.octets == expected.values["octets"].sum()
    check_constants(flows)
    check_times(flows, expected)
    check_levels(storm, flow_table)


def check_times(flows: Records, expected: Expected) -> None:
    first, last = flows["first_ns"].astype(np.int64), flows["last_ns"].astype(np.int64)
    assert (first > expected.first_after - RESOLUTION_NS).all()
    assert (first <= np.where(expected.has_syn, expected.last_before, expected.first_before)).all()
    assert (last > expected.last_after - RESOLUTION_NS).all()
    assert (last <= expected.last_before).all()
    assert 0 < np.count_nonzero(expected.has_syn) < len(flows)


def check_levels(storm: Storm, flow_table: str) -> None:
    """That the storm came everywhere."""
    assert storm.failures > ACTIONS // 20
    assert np.count_nonzero(storm.records["errno"]) > 1000
    if flow_table == "percpu_array":
        assert min(storm.levels.values()) > 100


@pytest.mark.parametrize("flow_table", TABLES)
def test_what_the_ring_does_not_take_is_in_the_ledger(flow_table: str) -> None:
    with Programs(BATCH, max_flows=TABLES[flow_table], flow_table=flow_table, precise_time=True) as programs:
        storm = Storm(programs, seed=4, read_ring=False)
        storm.fill(repeat=1000)  # more than the ring takes
        storm.run()
        ledger = programs.ledger()
    lost = ledger.reasons["ring_full"]
    assert lost.packets > 1000
    assert ledger.not_in_flows == lost
    expected = Expected(storm.sent)
    flows, numbers = in_order(storm.records)
    kept = np.searchsorted(expected.flows, numbers)
    assert (expected.flows[kept] == numbers).all()
    for name, count in (("packets", lost.packets), ("octets", lost.octets)):
        assert int(flows[name].sum()) + count == expected.values[name].sum() == getattr(ledger.seen, name), name
        assert (flows[name] <= expected.values[name][kept]).all(), name
    assert not (flows["tcp_flags"] & ~expected.values["tcp_flags"][kept]).any()
    for name in ("ttl", "ip_length"):
        assert (flows[f"min_{name}"] >= expected.values[f"min_{name}"][kept]).all()
        assert (flows[f"max_{name}"] <= expected.values[f"max_{name}"][kept]).all()
    check_constants(flows)


@pytest.mark.parametrize("flow_table", [*TABLES, "ringbuf"])
def test_when_counting_ends_what_was_seen_is_taken_out_and_nothing_is_seen_later(flow_table: str) -> None:
    with Programs(BATCH, max_flows=TABLES.get(flow_table, 64), flow_table=flow_table, precise_time=True) as programs:
        senders = [Sender(programs, seed=50 + cpu) for cpu in CPUS]
        with contextlib.ExitStack() as storm:
            hammers = [storm.enter_context(Hammer(cpu, sender)) for cpu, sender in zip(CPUS, senders)]
            taken = []
            for _ in range(10):
                for hammer in hammers:
                    hammer.go_on(5)
                taken.append(programs.evict())
            programs.datapath.end_counting()
            seen = programs.ledger().seen
            for hammer in hammers:
                hammer.go_on(20)
            taken += [programs.evict(), programs.evict()]
        assert programs.ledger().seen == seen
        assert len(programs.evict()) == 0
        sent = sum(SHAPES[shape].packets * repeat for sender in senders for _, _, _, shape, repeat, *_ in sender.sent)
    assert 0 < seen.packets < sent
    assert sum(int(rows["packets"].sum()) for rows in taken) == seen.packets
