from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from netobs.flow.key_hash import Hashes
from netobs.flow.records import EXTRA_RECORD, RECORD, Records, empty
from netobs.live.flows import ROW, Flows, Mark, rows_of
from tests.unit.live.rows import numbered, row, rows


def few_hashes(records: Records, seed: int) -> Hashes:
    """Flows collide, but not the same ones for each seed, and none for one seed in five."""
    numbers = np.ascontiguousarray(records["src_addr"][:, 12:]).view(">u4").ravel().astype(np.uint64)
    return numbers if seed % 5 == 0 else numbers % np.uint64(3 + seed % 5)


def totals(flows: Flows) -> dict[bytes, tuple[int, int]]:
    packets, octets = flows.totals()
    return {key.tobytes(): pair for key, pair in zip(flows.keys, zip(packets.tolist(), octets.tolist()))}


def test_rows_are_the_beginning_of_a_record() -> None:
    for dtype in (RECORD, EXTRA_RECORD):
        records = empty(3, dtype)
        records["ifindex"], records["packets"], records["octets"] = (1, 2, 3), (4, 5, 6), (7, 8, 9)
        made = rows_of(records)
        assert made.dtype == ROW
        assert [made[name].tolist() for name in ("ifindex", "packets", "octets")] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_a_total_is_what_was_taken_out_and_what_is_in_the_kernel() -> None:
    flows = Flows()
    flows.set_live(rows(row(packets=3, octets=300), row(packets=2, octets=50)))  # two CPUs
    assert [*totals(flows).values()] == [(5, 350)]
    flows.add(row(packets=6, octets=400))
    flows.set_live(rows())
    assert [*totals(flows).values()] == [(6, 400)]
    flows.set_live(row(packets=1, octets=10))
    assert [*totals(flows).values()] == [(7, 410)]


def test_rows_without_packets_are_slots_that_are_being_filled() -> None:
    flows = Flows()
    flows.set_live(row(packets=0, octets=0))
    assert len(flows) == 0


def test_what_a_client_sees_begins_with_its_first_look() -> None:
    flows = Flows()
    flows.set_live(rows(row(packets=5, octets=500), row(dst="192.0.2.9", packets=1)))
    mark = Mark(flows, 0)
    flows.marks.append(mark)
    assert mark.interval_ns == 0
    assert not mark.since_began.any()
    flows.add(row(packets=7, octets=700))
    flows.set_live(rows(row(dst="192.0.2.3", packets=4), row(packets=1, octets=90)))
    mark.see(flows, 10)
    by_packets = dict(zip(mark.since_began[0].tolist(), mark.new(flows).tolist()))
    assert by_packets == {3: False, -1: False, 4: True}  # -1: its eviction is not there, which cannot be
    assert mark.interval_ns == 10
    flows.set_live(rows(row(dst="192.0.2.3", packets=4), row(packets=1, octets=90)))
    mark.see(flows, 30)
    assert not mark.change[0][mark.since_began[0] > 0].any()
    assert not mark.new(flows).any()
    assert mark.interval_ns == 20


@pytest.mark.parametrize("hashes", [None, few_hashes], ids=["good hashes", "colliding hashes"])
def test_totals_are_exact_over_many_looks_and_evictions(hashes: object) -> None:
    rng = random.Random(15)
    flows = Flows() if hashes is None else Flows(hash_function=few_hashes)
    flows._seed = 1
    expected: Counter[bytes] = Counter()
    live: Counter[bytes] = Counter()
    keys = numbered(60)
    for _ in range(40):
        for number in rng.choices(range(60), k=30):
            expected[keys[number].tobytes()[:48]] += 1
            live[keys[number].tobytes()[:48]] += 1
        if rng.random() < 0.3:
            flows.add(_of(live))
            live.clear()
        flows.set_live(_of(live))
        assert {key: packets for key, (packets, _) in totals(flows).items()} == expected
        assert {key: octets for key, (_, octets) in totals(flows).items()} == {k: 9 * n for k, n in expected.items()}


def _of(counts: Counter[bytes]) -> Records:
    """Each flow in two rows, if it has that many packets, as two CPUs count it."""
    made = []
    for key, packets in counts.items():
        for part in (packets // 2, packets - packets // 2):
            one = np.frombuffer(key + bytes(16), ROW).copy()
            one["packets"], one["octets"] = part, 9 * part
            made.append(one)
    return rows(*made)


def test_flows_that_are_idle_for_the_longest_time_are_forgotten() -> None:
    flows = Flows(most_idle=100)
    mark = Mark(flows, 0)
    flows.marks.append(mark)
    for first in range(0, 300, 50):
        flows.add(numbered(50, first))
        flows.set_live(numbered(10, 1000))
        mark.see(flows, first + 1)
        assert len(flows) <= 110
    assert flows.forgotten == 300 + 10 - len(flows)
    kept = np.ascontiguousarray(flows.keys["src_addr"][:, 14:]).view(">u2").ravel()
    assert {*range(1000, 1010), *range(250, 300)} <= {*kept.tolist()}
    assert len(mark.since_began[0]) == len(flows)
