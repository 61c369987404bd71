"""``flow_table = "percpu_array"``: slots, the overflow hash behind them, and the ring buffer behind that."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lab import frames as f
from lab.prog_run import Programs, merged, on_cpu
from netobs.datapath.layout import SLOT_OCTETS_BITS
from netobs.datapath.percpu_array import LEAST_SLOTS
from netobs.flow.records import Records
from tests.kernel.flows import flow, readable
from tests.kernel.numbered import fill, packet, segment, source
from tests.kernel.slots import Slots, used

pytestmark = pytest.mark.kernel

CPUS = sorted(os.sched_getaffinity(0))
CAPACITY = 64  # of the overflow hash, for all CPUs together
MOST_PACKETS, MOST_OCTETS = 1 << 27, 1 << SLOT_OCTETS_BITS - 1  # with so many, a slot takes no more
two_cpus = pytest.mark.skipif(CPUS[-1] == 0, reason="a CPU besides the first is needed")


@pytest.fixture
def array() -> Iterator[Programs]:
    """LEAST_SLOTS slots for each CPU, and little overflow."""
    with Programs(max_flows=CAPACITY) as loaded:
        yield loaded


@pytest.fixture
def lopsided() -> Iterator[Programs]:
    """Slots for the first CPU only: what the last one sees goes to the overflow hash."""
    with Programs(max_flows=CAPACITY, slots_for=1) as loaded:
        yield loaded


def shed(records: Records) -> Records:
    from_ring: Records = records[records["errno"] != 0]
    return from_ring


def test_slots_then_overflow_then_ring(array: Programs) -> None:
    flows = 3000
    for _ in range(3):  # both halves, and one of them again
        with on_cpu(CPUS[-1]), array.accounting() as observed:
            fill(array, flows)
            fill(array, flows)
        levels = array.table.occupancy()
        in_ring = shed(observed[0].records)
        assert 0.98 * LEAST_SLOTS < levels["slots"] <= LEAST_SLOTS
        assert levels["overflow"] == CAPACITY
        assert set(in_ring["errno"].tolist()) == {errno.E2BIG}
        assert (in_ring["packets"] == 1).all()
        assert len(in_ring) == 2 * (flows - levels["slots"] - CAPACITY)
        assert observed[0].flows["packets"].tolist() == [2] * flows
        assert observed[0].reasons == {}


EXTREME = [
    f.ethernet(
        *f.tag(f.Q, 0xABC, f.IPV4, f.ipv4(f.TCP, f.tcp(0xFFF), src="255.254.253.252", tos=255, ttl=0), priority=7),
        src="ff:01:02:03:04:fe",
        dst="fe:04:03:02:01:ff",
    ),
    f.ethernet(f.IPV6, f.ipv6(f.TCP, f.tcp(f.ACK), src="ffff::fffe", dst="fffd:0:0:fffc::", hop_limit=255)),
    f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(sport=0xFFFF, dport=0xFFFE))),
    f.ethernet(f.IPV4, f.ipv4(f.ICMP, f.icmp(0xFF, 0xFE))),
    f.ethernet(f.IPV6, f.ipv6(f.ICMPV6, f.icmp(0xFD, 0xFC))),
    f.ethernet(f.IPV4, f.ipv4(255, b"\xff" * 8)),
    f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(3600)))),
]


@two_cpus
def test_record_is_the_same_from_slots_and_overflow(lopsided: Programs) -> None:
    """A slot keeps a flow in another form: all of it comes back."""
    rows = []
    for cpu in (CPUS[0], CPUS[-1]):
        with on_cpu(cpu):
            observed = lopsided.observe(*EXTREME, program="netobs_egress", repeat=3)
        rows.append(sorted(readable(observed.records), key=repr))
    assert rows[0] == rows[1]
    assert len(rows[0]) == len(EXTREME)


@two_cpus
def test_record_is_the_same_from_the_ring(lopsided: Programs) -> None:
    with on_cpu(CPUS[-1]), lopsided.accounting() as observed:
        fill(lopsided, CAPACITY)  # from here on, each packet is a record
        for frame in EXTREME:
            lopsided.send(frame, "netobs_egress", repeat=3)
    from_ring = merged(shed(observed[0].records))
    assert len(from_ring) == len(EXTREME)
    with on_cpu(CPUS[0]):
        from_slots = lopsided.observe(*EXTREME, program="netobs_egress", repeat=3).records
    assert sorted(readable(from_ring), key=repr) == sorted(readable(from_slots), key=repr)


@two_cpus
def test_cpu_without_slots_uses_the_overflow(lopsided: Programs) -> None:
    """It came online after the table was sized."""
    with lopsided.accounting() as observed:
        for cpu, packets in ((CPUS[0], 4), (CPUS[-1], 5)):
            with on_cpu(cpu):
                lopsided.send(packet(), repeat=packets)
    assert lopsided.table.occupancy() == {"slots": 1, "overflow": 1}
    assert observed[0].records["packets"].tolist() == [4, 5]
    assert readable(observed[0].flows) == [flow(src_addr=source(0), packets=9, octets=9 * 28) | _lengths(28)]


def _lengths(octets: int) -> dict[str, int]:
    return {"min_ip_length": octets, "max_ip_length": octets}


@two_cpus
@pytest.mark.parametrize("batch", [1, 3, 64, 1000])
def test_more_flows_in_the_overflow_than_a_batch(batch: int) -> None:
    """A batch of 1 is smaller than some bucket, which the kernel answers with ENOSPC."""
    with Programs(batch=batch, max_flows=4096, slots_for=1) as programs, on_cpu(CPUS[-1]):
        for _ in range(3):
            with programs.accounting() as observed:
                fill(programs, 2000)
            assert programs.table.occupancy() == {"slots": 0, "overflow": 2000}
            assert len(observed[0].flows) == len(observed[0].records) == 2000
        if batch != 3:  # whether some bucket has four is up to the hash
            assert (len(programs.table._overflow._keys) > batch) == (batch == 1)


def test_packets_go_to_the_other_half_after_an_eviction(array: Programs) -> None:
    with on_cpu(CPUS[-1]):
        array.evict()
        places = []
        for _ in range(3):
            array.send(packet(), repeat=2)
            places.append(used(array))
            assert array.evict()["packets"].tolist() == [2]
            assert np.sum(used(array)) == 0
    assert [sorted(halves) for halves in places[0]] == [[0, int(cpu == CPUS[-1])] for cpu in range(len(places[0]))]
    assert places[1] == [halves[::-1] for halves in places[0]]
    assert places[0] == places[2]


def test_slot_of_a_former_flow_keeps_nothing_of_it(array: Programs) -> None:
    """Only its mark of use is taken off when it is emptied."""
    with on_cpu(CPUS[-1]):
        for number in range(3000):
            array.send(segment(0xFFF, number=number), repeat=3, gso_size=1, gso_segs=7)
        array.evict()
        array.evict()
        for _ in range(2):
            observed = array.observe(*[packet(number) for number in range(3000, 3400)])
            expected = [flow(src_addr=source(number)) for number in range(3000, 3400)]
            assert sorted(readable(observed.records), key=repr) == sorted(expected, key=repr)


@two_cpus
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_failed_eviction_of_the_overflow_loses_nothing(lopsided: Programs, failures: int) -> None:
    table = lopsided.table
    fds = table._fds
    try:
        for failure in range(failures):
            _send_on_both_cpus(lopsided, number=failure)
            table._fds = {**fds, **dict.fromkeys(table.OVERFLOW, -1)}
            with pytest.raises(OSError, match="batch lookup and delete"):
                lopsided.datapath.evict(time.monotonic_ns())
    finally:
        table._fds = fds
    _send_on_both_cpus(lopsided, number=failures)
    rows = np.concatenate([lopsided.evict(), lopsided.evict()])
    assert sorted(rows["packets"].tolist()) == [2] * (failures + 1) + [3] * (failures + 1)
    assert len(merged(rows)) == failures + 1
    assert len(lopsided.evict()) == len(lopsided.evict()) == 0


def _send_on_both_cpus(programs: Programs, number: int) -> None:
    for cpu, packets in ((CPUS[0], 2), (CPUS[-1], 3)):
        with on_cpu(cpu):
            programs.send(packet(number), repeat=packets)


def _preset(programs: Programs, packets: int, octets: int) -> None:
    """Sets the counters of the one slot that is in use."""
    with Slots(programs) as slots:
        one = np.nonzero(slots["used"])
        assert len(one[0]) == 1
        slots["counters"][one] = packets << SLOT_OCTETS_BITS | octets


@pytest.mark.parametrize(
    ("packets", "octets", "more"),
    [
        (MOST_PACKETS - 3, 10**9, 2),
        (MOST_PACKETS - 2, 10**9, 1),
        (MOST_PACKETS - 1, 10**9, 0),
        (1000, MOST_OCTETS - 2 * 44, 1),
        (1000, MOST_OCTETS - 2 * 44 + 1, 1),
        (1000, MOST_OCTETS - 44 - 1, 1),
        (1000, MOST_OCTETS - 1, 0),
        (MOST_PACKETS - 1, MOST_OCTETS - 1, 0),
    ],
)
def test_counters_near_their_end_go_on_in_the_overflow(array: Programs, packets: int, octets: int, more: int) -> None:
    """``more``: packets that still find room for themselves; the one that fills the slot comes on top."""
    with on_cpu(CPUS[-1]):
        array.send(packet(size=1))
        _preset(array, packets, octets)
        array.send(packet(size=16), repeat=20)
        array.send(packet(1))
        rows = array.evict()
    assert array.table.occupancy() == {"slots": 2, "overflow": 1}
    beyond = 20 - more - 1
    assert sorted(rows["packets"].tolist()) == sorted([packets + more + 1, beyond, 1])
    whole = merged(rows)
    (row,) = whole[whole["packets"] > 1]
    assert (row["packets"], row["octets"]) == (packets + 20, octets + 20 * 44)
    assert (row["min_ip_length"], row["max_ip_length"]) == (29, 44)


def test_largest_super_packets_at_the_end_of_the_counters(array: Programs) -> None:
    """What comes on top of the last value that a slot takes neither wraps nor runs into the packets."""
    frame, segments = f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(f.ACK, bytes(3000)))), 65535
    octets = 3040 + (segments - 1) * 40
    with on_cpu(CPUS[-1]):
        array.send(frame)
        _preset(array, MOST_PACKETS - 1, MOST_OCTETS - 1)
        array.send(frame, repeat=3, gso_size=1, gso_segs=segments)
        rows = array.evict()
    assert array.table.occupancy() == {"slots": 1, "overflow": 1}
    assert sorted(rows["packets"].tolist()) == [2 * segments, MOST_PACKETS - 1 + segments]
    (row,) = merged(rows)
    assert (row["packets"], row["octets"]) == (MOST_PACKETS - 1 + 3 * segments, MOST_OCTETS - 1 + 3 * octets)


def test_type_and_code_of_icmp_are_the_second_port(array: Programs) -> None:
    frames = [
        f.ethernet(f.IPV4, f.ipv4(protocol, payload))
        for protocol, payload in (
            (f.UDP, f.udp(dport=0x0301)),
            (f.ICMP, f.icmp(3, 1)),
            (f.SCTP, f.ports(12, dport=0x0301)),
        )
    ]
    rows = {row["protocol"]: row for row in readable(array.observe(*frames).records)}
    assert [rows[p]["dst_port"] for p in (f.UDP, f.ICMP, f.SCTP)] == [0x0301] * 3


def test_slot_that_ends_the_half_is_followed_by_the_first(array: Programs) -> None:
    """The places of a flow go round; none of them lies in the other half, which is at rest."""
    with on_cpu(CPUS[-1]):
        for _ in range(2):
            fill(array, 5000)
            halves = used(array)[CPUS[-1]]
            assert min(halves) == 0
            assert max(halves) > 0.98 * LEAST_SLOTS
            array.evict()
