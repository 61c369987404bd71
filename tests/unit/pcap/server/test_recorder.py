"""What the flight recorder keeps, and for how long."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from lab.packets import ETH0, INTERFACES, OFFSET_NS, SECOND, Packet, all_rows, batch_of, mixed, udp
from netobs.pcap.distribution import ReadContext
from netobs.pcap.server.recorder import PART_BYTES, Recorder, compact

MiB = 1 << 20


def context(now_ns: int = 10 * SECOND) -> ReadContext:
    return ReadContext(now_ns, OFFSET_NS, INTERFACES)


def feed(recorder: Recorder, packets: list[Packet], now_ns: int = 10 * SECOND) -> None:
    batch = batch_of(packets)
    recorder.take(batch, np.flatnonzero(batch.meta["filters"] & 1), context(now_ns))


def octets(recorder: Recorder, now_ns: int, ifindex: int = 0) -> list[bytes]:
    recording, found = recorder.recording(ifindex, now_ns), []
    for batch, rows, _ in recording.parts:
        found += [bytes(batch.buffer[batch.start[row] :][: batch.meta["caplen"][row]]) for row in rows]
    return found


def second(number: int, count: int = 10) -> list[Packet]:
    """``count`` packets that were captured in one second."""
    return [Packet(udp(100, each), time_ns=number * SECOND + each) for each in range(count)]


@pytest.mark.parametrize("gap", [0, 28])
def test_a_copy_has_what_was_chosen(gap: int) -> None:
    packets = mixed(200)
    batch = batch_of(packets, gap)
    rows = np.arange(1, 200, 3)
    copied = compact(batch, rows)
    assert copied.meta.tobytes() == batch.meta[rows].tobytes()
    assert not (copied.start % 4).any()
    for row, start in zip(rows, copied.start):
        assert copied.buffer[start : start + len(packets[row].octets)] == packets[row].octets
    assert len(copied.buffer) <= sum(len(packets[row].octets) + 19 for row in rows)


def test_only_the_last_seconds() -> None:
    recorder = Recorder(3 * SECOND, MiB, 262_144)
    for number in range(1, 8):
        feed(recorder, second(number), number * SECOND)
    now_ns = 7 * SECOND + 5
    recorder.check(now_ns)
    assert recorder.packets == 40  # of the second 4, the part that was captured 3 s ago is kept with the rest
    assert len(octets(recorder, now_ns)) == 35
    assert recorder.account(now_ns).partition(", ")[0].endswith(" of the last 3.0 s")
    recorder.check(20 * SECOND)
    assert (recorder.packets, recorder.bytes, octets(recorder, 20 * SECOND)) == (0, 0, [])


def test_bounded_in_bytes_oldest_go_first() -> None:
    recorder = Recorder(3600 * SECOND, MiB, 262_144)
    for number in range(1, 200):
        feed(recorder, second(number, 100))
        assert recorder.bytes <= MiB
    kept = octets(recorder, 200 * SECOND)
    assert kept == [packet.octets for packet in second(1, 100)] * (recorder.packets // 100)
    assert 60 <= recorder.packets // 100 < 70
    assert recorder.recording(0, 200 * SECOND).since_ns == (200 - recorder.packets // 100) * SECOND


def test_of_a_batch_that_is_larger_than_all_the_end_is_kept() -> None:
    recorder = Recorder(3600 * SECOND, MiB, 262_144)
    packets = second(1, 9000)
    feed(recorder, packets)
    assert MiB * 7 // 8 < recorder.bytes <= MiB
    assert octets(recorder, 2 * SECOND) == [packet.octets for packet in packets[-recorder.packets :]]


def test_a_packet_that_is_larger_than_a_part() -> None:
    recorder = Recorder(3600 * SECOND, MiB, 262_144)
    sizes = [100, 250_000, 100, 250_000, 250_000]
    feed(recorder, [Packet(bytes(size), time_ns=SECOND) for size in sizes])
    assert list(map(len, octets(recorder, 2 * SECOND))) == sizes


@pytest.mark.parametrize("count", [1, 3, 100])
def test_the_bound_is_about_memory_that_is_taken(count: int) -> None:
    recorder = Recorder(3600 * SECOND, MiB, 262_144)
    batch = batch_of(second(1, count))
    rows = all_rows(batch)
    recorder.take(batch, rows, context())  # what there is once
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    counted_before = recorder.bytes
    for _ in range(200):
        recorder.take(batch, rows, context())
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 * taken <= recorder.bytes - counted_before <= 1.3 * taken


def test_of_one_interface() -> None:
    recorder = Recorder(3600 * SECOND, MiB, 262_144)
    packets = mixed(100)
    feed(recorder, packets)
    for index in (2, 3):
        assert octets(recorder, 10 * SECOND, index) == [each.octets for each in packets if each.ifindex == index]


def test_parts_are_bounded_and_a_long_packet_is_whole() -> None:
    recorder = Recorder(3600 * SECOND, 64 * MiB, 262_144)
    sizes = (1000,) * 500 + (200_000,) * 3
    feed(recorder, [Packet(bytes(size), time_ns=5 * SECOND) for size in sizes])
    recording, parts = recorder.recording(0, 10 * SECOND), []
    for batch, rows, _ in recording.parts:
        parts.append(batch.meta["caplen"][rows].tolist())
    assert [size for part in parts for size in part] == list(sizes)
    assert parts[-2:] == [[200_000], [200_000]]
    assert all(sum(part[:-1]) < PART_BYTES for part in parts)
    assert len(parts) == 6


def test_losses_belong_to_what_is_kept() -> None:
    recorder = Recorder(10 * SECOND, MiB, 262_144)
    lost = {2: 5}
    recorder.losses = lambda: lost
    recorder.check(1 * SECOND)
    lost[2], lost[3] = 8, 1
    recorder.check(1 * SECOND + 1)  # less than a second later: noticed the next time
    recorder.check(8 * SECOND)
    assert recorder.recording(0, 9 * SECOND).lost == {2: 8, 3: 1}
    assert recorder.recording(3, 9 * SECOND).lost == {3: 1}
    recorder.check(12 * SECOND)
    assert recorder.recording(0, 12 * SECOND).lost == {2: 3, 3: 1}
    recorder.check(30 * SECOND)
    assert recorder.recording(0, 30 * SECOND).lost == {}


def test_a_full_recorder_forgets_little_at_a_time() -> None:
    recorder = Recorder(60 * SECOND, MiB, 262_144)
    for number in range(5):
        feed(recorder, [Packet(udp(500, each), time_ns=9 * SECOND + each) for each in range(number, number + 1700)])
        assert recorder.bytes <= MiB
    assert recorder.bytes > MiB * 7 // 8
    assert len(octets(recorder, 10 * SECOND)) == recorder.packets


def test_names_are_kept_when_the_interface_is_gone() -> None:
    recorder = Recorder(10 * SECOND, MiB, 262_144)
    feed(recorder, [Packet(udp(100))])
    assert recorder.recording(0, 10 * SECOND).interfaces == {2: ETH0}
