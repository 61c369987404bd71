"""The flow table, whichever it is: CPUs, halves, times, and what becomes of packets when it is full.

What only one of the tables has is in test_percpu_array.py and test_percpu_hash.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lab import frames as f
from lab.prog_run import Programs, on_cpu
from netobs.datapath.layout import SLOT_TIME_SHIFT
from netobs.datapath.ring import entry
from tests.kernel.flows import flow, readable
from tests.kernel.numbered import TICK_NS, fill, let_pass, mapped, packet, segment, source

pytestmark = pytest.mark.kernel

TABLES = ("percpu_array", "percpu_hash")  # ringbuf keeps nothing in the kernel
RESOLUTION_NS = {"percpu_array": 1 << SLOT_TIME_SHIFT, "percpu_hash": 1}
CAPACITY = 64


@pytest.fixture(scope="module", params=TABLES)
def table(request: pytest.FixtureRequest) -> Iterator[Programs]:
    """As ``programs``, but for the ring buffer alone."""
    with Programs(max_flows=1024, flow_table=request.param) as loaded:
        yield loaded


@pytest.fixture(params=TABLES)
def small(request: pytest.FixtureRequest) -> Iterator[Programs]:
    """A table that takes CAPACITY flows and no more. For percpu_array: of a CPU without slots, all in overflow."""
    cpus = sorted(os.sched_getaffinity(0))
    if request.param == "percpu_array" and cpus[-1] == 0:
        pytest.skip("a CPU besides the first is needed")
    with contextlib.ExitStack() as stack:
        stack.enter_context(on_cpu(cpus[-1]))
        slots_for = int(request.param == "percpu_array")
        yield stack.enter_context(Programs(max_flows=CAPACITY, flow_table=request.param, slots_for=slots_for))


def ring_records(programs: Programs) -> int:
    """How many records the ring holds."""
    return programs.datapath.ring.size_bytes // entry(programs.datapath.record).itemsize


def test_flow_of_all_cpus_is_one(programs: Programs) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with programs.accounting() as observed:
        for cpu in cpus:
            with on_cpu(cpu):
                programs.send(packet(size=cpu), repeat=cpu + 3)
    records = observed[0].records
    assert readable(observed[0].flows) == [
        flow(
            src_addr="10.0.0.0",
            packets=sum(cpu + 3 for cpu in cpus),
            octets=sum((cpu + 3) * (28 + cpu) for cpu in cpus),
            min_ip_length=28 + cpus[0],
            max_ip_length=28 + cpus[-1],
        )
    ]
    times = int(records["first_ns"].min()), int(records["last_ns"].max())
    assert (int(observed[0].flows["first_ns"][0]), int(observed[0].flows["last_ns"][0])) == times


def test_each_cpu_has_a_row(table: Programs) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with table.accounting() as observed:
        for cpu in cpus:
            with on_cpu(cpu):
                table.send(packet(), repeat=cpu + 3)
    assert sorted(observed[0].records["packets"].tolist()) == [cpu + 3 for cpu in cpus]


def test_each_packet_is_a_record_without_a_table() -> None:
    with Programs(flow_table="ringbuf") as programs:
        observed = programs.observe(packet(1), packet(2, size=7), repeat=3)
        assert (
            readable(observed.records) == [flow(src_addr=source(1))] * 3 + [flow(src_addr=source(2), ip_length=35)] * 3
        )
        assert len(programs.datapath.evict(time.monotonic_ns())) == 0


def test_a_flow_of_one_cpu_has_one_row(programs: Programs) -> None:
    cpu = max(os.sched_getaffinity(0))
    with on_cpu(cpu), programs.accounting() as observed:
        fill(programs, 50)
    assert observed[0].records["packets"].tolist() == [1] * 50
    assert len(observed[0].flows) == 50


def test_evicting_an_empty_table_gives_nothing(programs: Programs) -> None:
    programs.evict()
    for _ in range(4):
        assert len(programs.datapath.evict(time.monotonic_ns())) == 0


def test_nothing_is_given_twice(programs: Programs) -> None:
    assert programs.observe(packet(), repeat=5).flows["packets"].tolist() == [5]
    assert len(programs.evict()) == 0
    assert len(programs.evict()) == 0


def test_times_are_coarse_but_never_in_the_future(programs: Programs) -> None:
    before = time.monotonic_ns()
    observed = programs.observe(packet(), repeat=10)
    after = time.monotonic_ns()
    (row,) = observed.flows
    assert before - 2 * TICK_NS <= row["first_ns"] <= row["last_ns"] <= after
    assert after - row["last_ns"] <= after - before + 2 * TICK_NS


def test_times_after_the_moment_that_the_caller_names(table: Programs) -> None:
    """A packet that was counted between the caller's look at the clock and the flip is as good as any."""
    table.evict()
    table.evict()
    for _ in range(4):
        now = time.monotonic_ns()
        let_pass(2 * TICK_NS)
        table.send(packet())
        (row,) = table.datapath.evict(now)
        assert now < row["first_ns"] == row["last_ns"] <= time.monotonic_ns()


@pytest.mark.parametrize("flow_table", TABLES)
def test_precise_times(flow_table: str) -> None:
    resolution = RESOLUTION_NS[flow_table]
    with Programs(max_flows=64, precise_time=True, flow_table=flow_table) as programs:
        moments = []
        for _ in range(2):
            moments.append(let_pass(2 * resolution))
            programs.send(packet())
        moments.append(time.monotonic_ns())
        (row,) = programs.evict()
        assert moments[0] - resolution < row["first_ns"] < moments[1] - resolution < row["last_ns"] < moments[2]


def test_full_table_sheds_into_the_ring(small: Programs) -> None:
    with small.accounting() as observed:
        fill(small, 100)
        small.send(packet(0), repeat=9)  # has its place
        small.send(packet(99), repeat=3)  # has none: a record for each packet
    records = observed[0].records
    shed = records[records["errno"] != 0]
    assert set(shed["errno"].tolist()) == {errno.E2BIG}
    assert len(records) - len(shed) == CAPACITY
    assert shed["packets"].tolist() == [1] * (100 - CAPACITY + 3)
    packets = {row["src_addr"]: row["packets"] for row in readable(observed[0].flows)}
    assert len(packets) == 100
    assert (packets["10.0.0.0"], packets["10.0.0.99"], packets["10.0.0.50"]) == (10, 4, 1)


def test_ring_record_is_complete(small: Programs) -> None:
    fill(small, CAPACITY)
    tagged = f.ethernet(*f.tag(f.Q, 7, f.IPV4, f.ipv4(f.TCP, f.tcp(f.SYN), src="10.9.9.9"), priority=3))
    before = time.monotonic_ns()
    small.send(tagged, "netobs_egress")
    reading = small.datapath.read_ring()
    assert reading.table_full
    assert readable(reading.records) == [
        flow(
            src_addr="10.9.9.9",
            protocol=f.TCP,
            tcp_flags=f.SYN,
            ip_length=40,
            direction=1,
            vlan_id=7,
            dot1q_priority=3,
            errno=errno.E2BIG,
        )
    ]
    (row,) = reading.records
    assert before - 2 * TICK_NS <= row["first_ns"] == row["last_ns"] <= time.monotonic_ns()


def test_full_table_has_room_again_after_an_eviction(small: Programs) -> None:
    for _ in range(3):
        with small.accounting() as observed:
            fill(small, CAPACITY)
        assert observed[0].records["errno"].tolist() == [0] * CAPACITY


def test_full_ring_goes_to_the_ledger(small: Programs) -> None:
    excess, room = 1000, ring_records(small)
    with small.accounting() as observed:
        fill(small, CAPACITY)
        small.send(packet(99, size=4), repeat=room + excess)
        small.send(packet(99, size=1000), gso_size=300, gso_segs=4)
    assert observed[0].reasons == {"ring_full": (excess + 4, excess * 32 + 4 * 28 + 1000)}
    assert len(observed[0].records) == CAPACITY + room


def test_ring_goes_round(small: Programs) -> None:
    """Records lie across the end of the buffer, whose size is no multiple of theirs."""
    most = ring_records(small) * 2 // 3
    fill(small, CAPACITY)
    for number in range(1000, 1003):
        small.send(packet(number), repeat=most)
        small.send(packet(number, size=1))
        records = small.datapath.read_ring().records
        assert len(records) == most + 1
        assert (records["packets"] == 1).all()
        assert (records["octets"][:-1] == 28).all()
        assert records["octets"][-1] == 29
        assert np.unique(records["src_addr"], axis=0).tolist() == [mapped(source(number))]
    assert len(small.datapath.read_ring().records) == 0


@pytest.mark.parametrize("sampling", [2, 10, 1000])
def test_sampling_is_random_and_accounted_for(sampling: int) -> None:
    runs = 20_000
    with Programs(max_flows=CAPACITY, sampling=sampling) as programs:
        observed = programs.observe(packet(size=2), repeat=runs)
        sampled = int(observed.records["packets"].sum())
        assert observed.reasons == {"not_sampled": (runs - sampled, (runs - sampled) * 44)}
        # Six standard deviations: once in 500 million tests by chance.
        assert abs(sampled - runs / sampling) < 6 * (runs / sampling * (1 - 1 / sampling)) ** 0.5


def test_super_packet_that_is_not_sampled_counts_its_segments() -> None:
    with Programs(max_flows=CAPACITY, sampling=65535) as programs:
        frame = segment(f.ACK) + bytes(300)
        observed = programs.observe(frame, repeat=20, gso_size=100, gso_segs=3)
        sampled = int(observed.records["packets"].sum())
        assert observed.reasons["not_sampled"][0] == 60 - sampled
