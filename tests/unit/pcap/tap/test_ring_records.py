"""From records of rings to a batch: every way of finding them, laps, what is still written, tags, and the order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netobs.pcap.batch import HEADROOM_BYTES, PacketBatch
from netobs.pcap.tap.ring_records import LEAST_RUN, LONGEST_RUN, assemble, walk
from tests.unit.pcap.made_ring import BUSY, Packet, Ring

Told = tuple[int, int, bytes]


def seen(batch: PacketBatch) -> list[Told]:
    """The packets of a batch; checks what holds for each."""
    assert (batch.start % 4 == 0).all()
    assert (batch.start >= HEADROOM_BYTES).all()
    rows = zip(batch.meta["time_ns"].tolist(), batch.meta["length"].tolist(), batch.start, batch.meta["caplen"])
    return [(time_ns, length, bytes(batch.buffer[at : at + size])) for time_ns, length, at, size in rows]


def walked(ring: Ring) -> tuple[list[int], int]:
    """The positions of the records, and where the last one ends."""
    found, stop = walk(memoryview(ring.memory()).cast("I"), ring.begin, ring.end)
    return found.tolist(), stop


@dataclass(frozen=True)
class Read:
    """What becomes of the records of each ring."""

    seen: list[Told]
    counts: list[int]


def read(*rings: Ring, unread: Sequence[int] = ()) -> Read:
    """``unread``: the rings that hold more."""
    buffer, records = bytearray(HEADROOM_BYTES), []
    for ring in rings:
        found, stop = walk(memoryview(ring.memory()).cast("I"), ring.begin, ring.end)
        records.append(found - ring.begin + len(buffer))
        buffer += ring.bytes_from(ring.begin, stop)
    batch, counts = assemble(buffer, records, [number in unread for number in range(len(rings))])
    return Read(seen(batch), counts)


def ring_of(*packets: Packet) -> Ring:
    return Ring([packet.record() for packet in packets])


def positions(ring: Ring) -> list[int]:
    """Where its records begin, and the last one ends."""
    return list(accumulate(map(len, ring.records), initial=ring.begin))


def octets(number: int, size: int) -> bytes:
    return np.random.default_rng(number).bytes(size)


PACKETS = st.builds(
    Packet,
    octets=st.one_of(st.integers(0, 200), st.integers(200, 9000)).map(lambda size: octets(size, size)),
    tci=st.integers(0, 0xFFFF),
    tpid=st.sampled_from([0, 0, 0x8100, 0x88A8]),
    cut=st.integers(0, 10_000),
    room=st.integers(0, 3000),
).map(lambda one: one if len(one.octets) >= 12 or not one.tpid else replace(one, tpid=0))
BEGIN = st.integers(0, 1 << 20).map(lambda words: words * 8)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(BEGIN, st.lists(PACKETS, max_size=60), st.booleans()), min_size=1, max_size=3))
def test_any_records_of_any_rings(made: list[tuple[int, list[Packet], bool]]) -> None:
    """The last record of some is still being written."""
    now, rings, told = 0, [], []
    for begin, packets, is_busy in made:
        records = []
        for packet in packets:
            now += 1
            timed = replace(packet, time_ns=now % 97)
            records.append(timed.record())
            told.append(timed.seen())
        rings.append(Ring(records + [Packet(b"half").record(BUSY)] * is_busy, begin))
    done = read(*rings)
    assert done.counts == [len(packets) for _, packets, _ in made]
    assert done.seen == (sorted(told, key=lambda one: one[0]) if len(rings) > 1 else told)


RUNS = [1, LEAST_RUN - 1, LEAST_RUN, LEAST_RUN + 1, LONGEST_RUN, LONGEST_RUN + 1]


@pytest.mark.parametrize("run", RUNS)
def test_bulk_with_something_else_in_it(run: int) -> None:
    one, other = Packet(octets(1, 60)).record(), Packet(octets(2, 700)).record()
    for records in ([one] * run, [*[one] * run, other], [other, *[one] * run], [*[one] * run, other, *[one] * run]):
        ring = Ring(records, begin=8 * 1234)
        assert walked(ring) == (positions(ring)[:-1], ring.end)


@pytest.mark.parametrize("first", range(0, 104 * 40, 104))
def test_a_ring_begins_again_anywhere(first: int) -> None:
    """Also behind a header, in the middle of a run, and where a record ends."""
    packets = [Packet(octets(number, 64), number) for number in range(40)]
    for begin in range((1 << 16) - first - 8, (1 << 16) - first + 112, 8):
        ring = Ring([packet.record() for packet in packets], begin, size=1 << 16)
        assert walked(ring) == (positions(ring)[:-1], ring.end)
    assert read(ring).seen == [packet.seen() for packet in packets]


@pytest.mark.parametrize("number", [0, 1, LEAST_RUN, 99])
@pytest.mark.parametrize("sizes", [(60,), (60, 1500)])
def test_nothing_is_taken_behind_what_is_still_written(number: int, sizes: tuple[int, ...]) -> None:
    packets = [Packet(octets(at, sizes[at % len(sizes)]), at) for at in range(100)]
    ring = Ring([packet.record(BUSY * (at == number)) for at, packet in enumerate(packets)])
    assert walked(ring) == (positions(ring)[:number], positions(ring)[number])
    assert read(ring).seen == [packet.seen() for packet in packets[:number]]


@pytest.mark.parametrize("sizes", [(60,), (60, 1500)])
def test_no_more_than_asked_for_but_for_a_record(sizes: tuple[int, ...]) -> None:
    ring = ring_of(*(Packet(bytes(sizes[at % len(sizes)])) for at in range(2 * LEAST_RUN)))
    lengths, ends = memoryview(ring.memory()).cast("I"), positions(ring)
    for number, (begin, stop) in enumerate(zip(ends, ends[1:]), 1):
        for end in (begin + 8, stop):
            found, stopped = walk(lengths, 0, end)
            assert (found.tolist(), stopped) == (ends[:number], stop)


def test_nothing_at_all() -> None:
    assert read(Ring([]), Ring([])) == Read([], [0, 0])
    assert walked(Ring([], begin=4096)) == ([], 4096)


def test_payload_that_looks_like_records() -> None:
    packets = [Packet(Packet(bytes(56)).record() * 9, number) for number in range(60)]
    assert read(ring_of(*packets)).seen == [packet.seen() for packet in packets]


def test_packets_of_all_rings_are_in_the_order_of_time() -> None:
    times = [[1, 4, 5, 9], [2, 6, 7], [], [0, 3]]
    rings = [ring_of(*(Packet(octets(at, 60 + at), at) for at in ring)) for ring in times]
    assert [time_ns for time_ns, _, _ in read(*rings).seen] == [*range(8), 9]


@pytest.mark.parametrize(
    ("unread", "taken"), [((), [4, 3, 0, 2]), ((0,), [4, 3, 0, 2]), ((1,), [3, 3, 0, 2]), ((1, 3, 2), [1, 1, 0, 2])]
)
def test_nothing_is_taken_that_something_older_may_follow(unread: tuple[int, ...], taken: list[int]) -> None:
    times = [[1, 4, 5, 9], [2, 6, 7], [], [0, 3]]
    rings = [ring_of(*(Packet(octets(at, 60 + at), at) for at in ring)) for ring in times]
    done = read(*rings, unread=unread)
    assert [time_ns for time_ns, _, _ in done.seen] == sorted(at for ring, n in zip(times, taken) for at in ring[:n])
    assert done.counts == taken


def test_a_tag_of_a_packet_without_ethernet_is_none() -> None:
    packet = Packet(octets(1, 60), tci=5, tpid=0x8100, link=1)
    assert read(ring_of(packet)).seen == [(1, 60, packet.octets)]
