"""From perf records to a batch: every way of finding them, parts, tags, losses, and the order."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netobs.pcap.batch import HEADROOM_BYTES, PacketBatch
from netobs.pcap.tap import perf_records
from netobs.pcap.tap.layout import FIRST_OCTETS, PART_OCTETS
from tests.unit.pcap.perf_records import SAMPLE, THROTTLE, Packet, joined, lost, record

PROBED = perf_records.PROBE_BYTES


def seen(batch: PacketBatch) -> list[tuple[int, int, bytes]]:
    """The packets of a batch; checks what holds for each."""
    assert (batch.start % 4 == 0).all()
    assert (batch.start >= HEADROOM_BYTES).all()
    assert (batch.meta["part"] == 0).all()
    rows = zip(batch.meta["time_ns"].tolist(), batch.meta["length"].tolist(), batch.start, batch.meta["caplen"])
    return [(time_ns, length, bytes(batch.buffer[at : at + size])) for time_ns, length, at, size in rows]


@dataclass(frozen=True)
class Read:
    """What becomes of the records of each ring; and where each ring's part of the buffer begins, and the last ends."""

    assembled: perf_records.Assembled
    begins: list[int]
    lost_records: int

    @property
    def seen(self) -> list[tuple[int, int, bytes]]:
        return seen(self.assembled.batch)


def read(*rings: list[bytes], unread: Sequence[int] = ()) -> Read:
    """``unread``: the rings that hold more."""
    buffer = joined([record for ring in rings for record in ring], HEADROOM_BYTES)
    begins = [HEADROOM_BYTES + sum(len(one) for ring in rings[:n] for one in ring) for n in range(len(rings) + 1)]
    walks = [perf_records.walk(buffer, begin, end) for begin, end in zip(begins, begins[1:])]
    lost_records = sum(perf_records.lost_records(buffer, walk.losses) for walk in walks)
    assert [walk.stop for walk in walks] == begins[1:]
    assembled = perf_records.assemble(buffer, walks, [number in unread for number in range(len(rings))])
    return Read(assembled, begins, lost_records)


def octets(number: int, size: int) -> bytes:
    return np.random.default_rng(number).bytes(size)


PACKETS = st.builds(
    Packet,
    octets=st.one_of(st.integers(0, 200), st.integers(200, 9000)).map(lambda size: octets(size, size)),
    tci=st.integers(0, 0xFFFF),
    tpid=st.sampled_from([0, 0, 0x8100, 0x88A8]),
    cut=st.integers(0, 10_000),
).map(lambda one: one if len(one.octets) >= 12 or not one.tpid else Packet(one.octets, cut=one.cut))
OTHERS = st.one_of(st.integers(1, 1 << 40), st.just(record(THROTTLE, bytes(24))))  # a number: so many were lost


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.one_of(PACKETS, OTHERS), max_size=60), min_size=1, max_size=3))
def test_any_records_of_any_rings(rings: list[list[Packet | bytes | int]]) -> None:
    now, made, told = 0, [], []
    for ring in rings:
        ring_records: list[bytes] = []
        for entry in ring:
            now += 1
            if not isinstance(entry, Packet):
                ring_records.append(entry if isinstance(entry, bytes) else lost(entry))
                continue
            packet = Packet(entry.octets, now % 97, entry.tci, entry.tpid, cut=entry.cut)
            told.append(packet)
            ring_records += packet.records()
        made.append(ring_records)
    done = read(*made)
    assert done.assembled.stops == done.begins[1:]
    assert done.assembled.carry_from == [-1] * len(rings)
    assert done.lost_records == sum(entry for ring in rings for entry in ring if isinstance(entry, int))
    expected = [packet.seen() for packet in told]
    assert done.seen == (sorted(expected, key=lambda one: one[0]) if len(rings) > 1 else expected)


@pytest.mark.parametrize("size", [60, 1500])
def test_lost_records_are_counted(size: int) -> None:
    packets = [Packet(octets(number, size), number) for number in range(300)]
    ring = [lost(3), *(one for packet in packets for one in packet.records()), lost(4)]
    ring[150:150] = [lost(1), record(THROTTLE, bytes(24)), lost(2)]
    done = read(ring)
    assert done.lost_records == 10
    assert done.seen == [packet.seen() for packet in packets]


def alike(size: int) -> bytes:
    """Octets each word of which could begin a sample."""
    return struct.pack("<IHH", SAMPLE, 1, 56) * (size // 8)


@pytest.mark.parametrize("every", [1, 20])
def test_payload_that_looks_like_records(every: int) -> None:
    """At ``every`` 1, there is too much of it to look at all words."""
    packets = [
        Packet(bytes(4) + (alike(400) if number % every == 0 else octets(number, 96)), number) for number in range(600)
    ]
    done = read([one for packet in packets for one in packet.records()])
    assert done.seen == [packet.seen() for packet in packets]


@pytest.mark.parametrize("size", [60, 500, 9000])
@pytest.mark.parametrize("count", [1, 500])
def test_a_record_that_is_cut_short_stays(size: int, count: int) -> None:
    packets = [Packet(octets(number, size), number) for number in range(count + 1)]
    ring = [one for packet in packets for one in packet.records()]
    buffer = joined(ring)
    for missing in (8, 16, len(ring[-1]) - 8):
        walk = perf_records.walk(buffer, HEADROOM_BYTES, len(buffer) - missing)
        assert walk.stop == len(buffer) - len(ring[-1])
        assert seen(perf_records.assemble(buffer, [walk], [False]).batch) == [packet.seen() for packet in packets[:-1]]


@pytest.mark.parametrize("size", [100, 4000])
def test_a_record_may_be_cut_after_any_word(size: int) -> None:
    """Also behind its header alone, where the buffer ends."""
    made = [record for number in range(3) for record in Packet(bytes(size), time_ns=number).records()]
    buffer = joined(made, HEADROOM_BYTES)
    ends = [HEADROOM_BYTES + sum(map(len, made[:number])) for number in range(4)]
    for end in range(HEADROOM_BYTES, len(buffer) + 1, 8):
        walk = perf_records.walk(buffer[:end], HEADROOM_BYTES, end)
        assert walk.stop == max(each for each in ends if each <= end)
        assert walk.samples.tolist() == [each for each in ends[:-1] if each < walk.stop]


@pytest.mark.parametrize("between", [record(THROTTLE, bytes(24)), lost(3), Packet(octets(9, 2100)).records()[0]])
@pytest.mark.parametrize("first", [1, 2, 40])
def test_bulk_with_something_else_in_it(between: bytes, first: int) -> None:
    bulk = [Packet(octets(number, 2000), number) for number in range(100)]
    ring = [record for packet in bulk for record in packet.records()]
    got = read([*ring[:first], between, *ring[first:]])
    others = [packet for packet in got.seen if packet[1] != 2000]
    assert [packet for packet in got.seen if packet[1] == 2000] == [packet.seen() for packet in bulk]
    assert (len(others), got.lost_records) == (between[0] == SAMPLE and 1, 3 if between == lost(3) else 0)


def test_nothing_at_all() -> None:
    nothing = read([], [])
    assert (nothing.seen, nothing.assembled.carry_from, nothing.lost_records) == ([], [-1, -1], 0)
    only_losses = read([lost(5)])
    assert (only_losses.seen, only_losses.lost_records) == ([], 5)


LONG = [FIRST_OCTETS + 1, FIRST_OCTETS + PART_OCTETS, FIRST_OCTETS + PART_OCTETS + 1, 262_144]


@pytest.mark.parametrize("tpid", [0, 0x8100])
def test_parts_are_joined(tpid: int) -> None:
    packets = [Packet(octets(size, size), number, 5, tpid) for number, size in enumerate([FIRST_OCTETS, *LONG, 60])]
    done = read([one for packet in packets for one in packet.records()])
    assert done.seen == [packet.seen() for packet in packets]
    assert (done.assembled.carry_from, done.assembled.incomplete_packets) == ([-1], 0)


@pytest.mark.parametrize("kept", [[0], [0, 1], [0, 2], [1, 2], [2]])
def test_what_lacks_a_part_is_left_out(kept: list[int]) -> None:
    long = Packet(octets(1, FIRST_OCTETS + PART_OCTETS + 9), 5)
    before, after = Packet(octets(2, 70), 4), Packet(octets(3, 80), 6)
    parts = [long.records()[part] for part in kept]
    done = read([*before.records(), *parts, *after.records()], after.records())
    assert done.seen == [before.seen(), after.seen(), after.seen()]
    assert (done.assembled.carry_from, done.assembled.incomplete_packets) == ([-1, -1], int(0 in kept))


def test_parts_of_another_packet_are_not_taken() -> None:
    one, other = (Packet(octets(number, FIRST_OCTETS + 100), number) for number in (1, 2))
    done = read([one.records()[0], other.records()[1]])
    assert (done.seen, done.assembled.carry_from, done.assembled.incomplete_packets) == ([], [-1], 1)


def test_a_packet_that_is_still_being_written_waits() -> None:
    long, before = Packet(octets(1, FIRST_OCTETS + PART_OCTETS + 9), 5), Packet(octets(2, 70), 4)
    first, second, third = long.records()
    done = read([*before.records(), first, second], before.records())
    assert done.seen == [before.seen(), before.seen()]
    assert done.assembled.carry_from == [done.begins[0] + len(before.records()[0]), -1]
    carried = bytes(done.assembled.batch.buffer[done.assembled.carry_from[0] : done.begins[1]])
    assert read([carried, third]).seen == [long.seen()]


def test_packets_of_all_rings_are_in_the_order_of_time() -> None:
    times = [[1, 4, 5, 9], [2, 6, 7], [], [0, 3]]
    rings = [[Packet(octets(at, 60 + at), at).records()[0] for at in ring] for ring in times]
    assert [time_ns for time_ns, _, _ in read(*rings).seen] == [*range(8), 9]


@pytest.mark.parametrize(
    ("unread", "taken"), [((), [4, 3, 0, 2]), ((0,), [4, 3, 0, 2]), ((1,), [3, 3, 0, 2]), ((1, 3, 2), [1, 1, 0, 2])]
)
def test_nothing_is_taken_that_something_older_may_follow(unread: tuple[int, ...], taken: list[int]) -> None:
    times = [[1, 4, 5, 9], [2, 6, 7], [], [0, 3]]
    rings = [[Packet(octets(at, 60 + at), at).records()[0] for at in ring] for ring in times]
    done = read(*rings, unread=unread)
    assert [time_ns for time_ns, _, _ in done.seen] == sorted(at for ring, n in zip(times, taken) for at in ring[:n])
    sizes = [sum(map(len, ring[:count])) for ring, count in zip(rings, taken)]
    assert done.assembled.stops == [begin + size for begin, size in zip(done.begins, sizes)]


def test_a_packet_that_waits_for_its_end_and_for_others() -> None:
    """It is neither taken twice nor left out: its records stay where they are."""
    long, old = Packet(octets(1, FIRST_OCTETS + 9), 8), Packet(octets(2, 70), 4)
    done = read(long.records(), old.records(), unread=[1])
    assert (done.seen, done.assembled.stops, done.assembled.carry_from) == (
        [old.seen()], [done.begins[0], done.begins[2]], [-1, -1],
    )  # fmt: skip


def test_a_tag_of_a_packet_without_ethernet_is_none() -> None:
    packet = Packet(octets(1, 60), tci=5, tpid=0x8100, link=1)
    assert read(packet.records()).seen == [(1, 60, packet.octets)]
