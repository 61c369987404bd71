"""The flow table: CPUs, halves, batches, times, and what becomes of packets when it is full."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from netobs.capture import libbpf
from netobs.capture.percpu_hash import CLOCK_SLACK_NS
from netobs.capture.ring import ENTRY
from netobs.metering.merge import merge
from netobs.records import KEY, METRICS, Records
from tests.kernel import frames as f
from tests.kernel.flows import flow, readable
from tests.kernel.programs import Programs, get, on_cpu, put

pytestmark = pytest.mark.kernel

CLOCK_MONOTONIC_COARSE = 6
TICK_NS = int(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)


def packet(number: int = 0, size: int = 0) -> bytes:
    """A UDP packet of flow ``number``."""
    source = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(size)), src=source))


def segment(flags: int) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(flags)))


@pytest.fixture
def small() -> Iterator[Programs]:
    with Programs(max_flows=64) as loaded:
        yield loaded


def ring_records(programs: Programs) -> int:
    """How many records the ring holds."""
    return programs.capture.ring.size_bytes // ENTRY.itemsize


def _fill(programs: Programs, flows: int, first: int = 0) -> None:
    run = programs.run()
    for number in range(first, first + flows):
        run(packet(number))


def test_each_cpu_has_a_row_and_merge_makes_one_of_them(programs: Programs) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with programs.accounting() as observed:
        for cpu in cpus:
            with on_cpu(cpu):
                programs.send(packet(size=cpu), repeat=cpu + 3)
    records = observed[0].records
    assert sorted(records["packets"].tolist()) == [cpu + 3 for cpu in cpus]
    octets = sum((cpu + 3) * (28 + cpu) for cpu in cpus)
    first, last = int(records["first_ns"].min()), int(records["last_ns"].max())
    merged, _ = merge(records, seed=1)
    assert readable(merged) == [
        flow(
            src_addr="10.0.0.0",
            packets=sum(cpu + 3 for cpu in cpus),
            octets=octets,
            min_ip_length=28 + cpus[0],
            max_ip_length=28 + cpus[-1],
        )
    ]
    assert (int(merged["first_ns"][0]), int(merged["last_ns"][0])) == (first, last)


def test_a_flow_of_one_cpu_has_one_row(programs: Programs) -> None:
    cpu = max(os.sched_getaffinity(0))
    with on_cpu(cpu), programs.accounting() as observed:
        _fill(programs, 50)
    assert observed[0].records["packets"].tolist() == [1] * 50


def test_packets_go_to_the_other_half_after_an_eviction(programs: Programs) -> None:
    halves = [programs.map_fd(name) for name in programs.table.MAPS]
    values_bytes = libbpf.possible_cpus() * METRICS.itemsize
    programs.evict()
    places = []
    for _ in range(3):
        programs.send(packet())
        key = _key_of_flow_0()
        places.append([get(fd, key, values_bytes) is not None for fd in halves])
        (row,) = programs.evict()
        assert row["packets"] == 1
        assert all(get(fd, key, values_bytes) is None for fd in halves)
    assert places[0] != places[1]
    assert places[0] == places[2]
    assert sorted(places[0]) == [False, True]


def _key_of_flow_0() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    key = np.zeros(1, KEY)
    key["src_addr"], key["dst_addr"] = _mapped("10.0.0.0"), _mapped(f.DST4)
    key["src_port"], key["dst_port"], key["protocol"] = f.SPORT, f.DPORT, f.UDP
    key["ethertype"], key["ifindex"] = f.IPV4, 1
    return key.view("u1")


def _mapped(address: str) -> list[int]:
    return [0] * 10 + [255, 255] + [int(part) for part in address.split(".")]


def test_evicting_an_empty_table_gives_nothing(programs: Programs) -> None:
    programs.evict()
    for _ in range(4):
        assert len(programs.capture.evict(time.monotonic_ns())) == 0


def test_nothing_is_given_twice(programs: Programs) -> None:
    programs.send(packet(), repeat=5)
    assert programs.evict()["packets"].tolist() == [5]
    assert len(programs.evict()) == 0
    assert len(programs.evict()) == 0


@pytest.mark.parametrize("batch", [1, 3, 64, 1000])
def test_more_flows_than_a_batch(batch: int) -> None:
    """A batch of 1 is smaller than some bucket, which the kernel answers with ENOSPC."""
    with Programs(batch=batch, max_flows=4096) as programs:
        for _ in range(2):
            with programs.accounting() as observed:
                _fill(programs, 2000)
            records = observed[0].records
            assert len(np.unique(records["src_addr"], axis=0)) == 2000
            assert len(records) == int(records["packets"].sum()) == 2000
        if batch != 3:  # whether some bucket has four is up to the hash
            assert (len(programs.table._keys) > batch) == (batch == 1)


def test_times_are_coarse_but_never_in_the_future(programs: Programs) -> None:
    before = time.monotonic_ns()
    programs.send(packet(), repeat=10)
    after = time.monotonic_ns()
    (row,) = programs.evict()
    assert before - 2 * TICK_NS <= row["first_ns"] <= row["last_ns"] <= after
    assert after - row["last_ns"] <= after - before + 2 * TICK_NS


def test_precise_times() -> None:
    with Programs(max_flows=64, precise_time=True) as programs:
        moments = [time.monotonic_ns()]
        for _ in range(2):
            programs.send(packet())
            moments.append(time.monotonic_ns())
        (row,) = programs.evict()
        assert moments[0] < row["first_ns"] < moments[1] < row["last_ns"] < moments[2]


def test_syn_begins_the_flow_anew() -> None:
    with Programs(max_flows=64, precise_time=True) as programs:
        programs.send(segment(f.ACK))
        middle = time.monotonic_ns()
        programs.send(segment(f.SYN))
        after_syn = time.monotonic_ns()
        programs.send(segment(f.ACK))
        (row,) = programs.evict()
        assert middle < row["first_ns"] < after_syn < row["last_ns"]
        assert (row["packets"], row["tcp_flags"]) == (3, f.SYN | f.ACK)


def test_full_table_sheds_into_the_ring(small: Programs) -> None:
    with small.accounting() as observed:
        _fill(small, 100)
        small.send(packet(0), repeat=9)  # has its place
        small.send(packet(99), repeat=3)  # has none: a record for each packet
    records = observed[0].records
    shed = records[records["errno"] != 0]
    assert set(shed["errno"].tolist()) == {errno.E2BIG}
    assert len(records) - len(shed) == 64
    assert shed["packets"].tolist() == [1] * (100 - 64 + 3)
    merged, _ = merge(records, seed=1)
    packets = {row["src_addr"]: row["packets"] for row in readable(merged)}
    assert len(packets) == 100
    assert (packets["10.0.0.0"], packets["10.0.0.99"], packets["10.0.0.50"]) == (10, 4, 1)


def test_ring_record_is_complete(small: Programs) -> None:
    _fill(small, 64)
    tagged = f.ethernet(*f.tag(f.Q, 7, f.IPV4, f.ipv4(f.TCP, f.tcp(f.SYN), src="10.9.9.9"), priority=3))
    before = time.monotonic_ns()
    small.send(tagged, "netobs_egress")
    reading = small.capture.read_ring()
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
            _fill(small, 64)
        assert observed[0].records["errno"].tolist() == [0] * 64


def test_full_ring_goes_to_the_ledger(small: Programs) -> None:
    excess, room = 1000, ring_records(small)
    with small.accounting() as observed:
        _fill(small, 64)
        small.send(packet(99, size=4), repeat=room + excess)
        small.send(packet(99, size=1000), gso_size=300, gso_segs=4)
    assert observed[0].reasons == {"ring_full": (excess + 4, excess * 32 + 4 * 28 + 1000)}
    assert len(observed[0].records) == 64 + room


def test_ring_goes_round(small: Programs) -> None:
    """Records lie across the end of the buffer, whose size is no multiple of theirs."""
    most = ring_records(small) * 2 // 3
    _fill(small, 64)
    for number in range(1000, 1005):
        small.send(packet(number), repeat=most)
        small.send(packet(number, size=1))
        records = small.capture.read_ring().records
        assert len(records) == most + 1
        assert (records["packets"] == 1).all()
        assert (records["octets"][:-1] == 28).all()
        assert records["octets"][-1] == 29
        assert np.unique(records["src_addr"], axis=0).tolist() == [_mapped(f"10.0.{number >> 8}.{number & 255}")]
    assert len(small.capture.read_ring().records) == 0


@pytest.mark.parametrize("sampling", [2, 10, 1000])
def test_sampling_is_random_and_accounted_for(sampling: int) -> None:
    runs = 20_000
    with Programs(max_flows=64, sampling=sampling) as programs:
        observed = programs.observe(packet(size=2), repeat=runs)
        sampled = int(observed.records["packets"].sum())
        assert observed.reasons == {"not_sampled": (runs - sampled, (runs - sampled) * 44)}
        # Six standard deviations: once in 500 million tests by chance.
        assert abs(sampled - runs / sampling) < 6 * (runs / sampling * (1 - 1 / sampling)) ** 0.5


def test_super_packet_that_is_not_sampled_counts_its_segments() -> None:
    with Programs(max_flows=64, sampling=65535) as programs:
        frame = segment(f.ACK) + bytes(300)
        observed = programs.observe(frame, repeat=20, gso_size=100, gso_segs=3)
        sampled = int(observed.records["packets"].sum())
        assert observed.reasons["not_sampled"][0] == 60 - sampled


def _stale_row(programs: Programs, last_ns: int) -> None:
    """Puts an element into the quiet half as if a CPU's value of an older life of it had been left there."""
    values = np.zeros(libbpf.possible_cpus(), METRICS)
    values["packets"][0], values["octets"][0] = 1000, 28000
    values["first_ns"][0] = values["last_ns"][0] = last_ns
    quiet = 1 - int(programs.table._bss["active_half"][0])
    put(programs.map_fd(programs.table.MAPS[quiet]), _key_of_flow_0(), values)


def _evict_twice(programs: Programs) -> Records:
    return np.concatenate([programs.evict(), programs.evict()])


def test_values_from_before_the_last_eviction_are_dropped(programs: Programs) -> None:
    _evict_twice(programs)
    stale = programs.table.stale
    _stale_row(programs, last_ns=1)
    assert len(_evict_twice(programs)) == 0
    assert programs.table.stale == stale + 1


def test_values_of_now_are_kept(programs: Programs) -> None:
    _evict_twice(programs)
    stale = programs.table.stale
    _stale_row(programs, last_ns=time.monotonic_ns())
    assert _evict_twice(programs)["packets"].tolist() == [1000]
    assert programs.table.stale == stale


def test_values_are_kept_if_the_caller_names_an_earlier_time(programs: Programs) -> None:
    """A packet that was counted between the caller's look at the clock and the flip is not stale."""
    _evict_twice(programs)
    for _ in range(4):
        now = time.monotonic_ns()
        programs.send(packet())
        assert len(programs.capture.evict(now)) == 1


def test_failed_eviction_loses_nothing(programs: Programs) -> None:
    """Flows that it left are older than the stale-entry rule allows, and are no stale entries."""
    _evict_twice(programs)
    fds, stale = programs.table._fds, programs.table.stale
    programs.send(packet(), repeat=7)
    try:
        programs.table._fds = [-1, -1]
        with pytest.raises(OSError, match="batch lookup and delete"):
            programs.evict()
    finally:
        programs.table._fds = fds
    programs.send(packet(1), repeat=2)
    later = time.monotonic_ns() + 10 * CLOCK_SLACK_NS
    rows = np.concatenate([programs.capture.evict(later), programs.capture.evict(later)])
    assert sorted(rows["packets"].tolist()) == [2, 7]
    assert programs.table.stale == stale
