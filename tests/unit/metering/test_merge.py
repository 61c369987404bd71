from __future__ import annotations

import numpy as np
import pytest

from netobs.flow.key_hash import FIRST_HASH, Hashes, hash_keys
from netobs.flow.metrics import Merge, named
from netobs.flow.records import (
    CHUNK_ROWS,
    EXTRA,
    EXTRA_RECORD,
    FULL_RECORD,
    INSIGHT,
    KEY,
    METRICS,
    RECORD,
    Records,
    empty,
)
from netobs.metering.cache import FlowCache
from netobs.metering.merge import NO_HASH, UFUNCS, merge, rules
from tests.unit.metering.flows import ACK, FIN, SYN, S, as_set, by_flow, flow, many, number, rows, totals

SEED = 0x1234_5678_9ABC_DEF0


def same_hash(records: Records, seed: int) -> Hashes:
    """The worst hash function: all keys collide."""
    return np.full(len(records), FIRST_HASH + seed, np.uint64)


def few_hashes(records: Records, seed: int) -> Hashes:
    """Every third flow has the same hash."""
    return records["src_addr"][:, 15].astype(np.uint64) % np.uint64(3) + np.uint64(FIRST_HASH + seed)


def _with_extra(records: Records) -> Records:
    wide = empty(len(records), EXTRA_RECORD)
    for name in RECORD.names or ():
        wide[name] = records[name]
    return wide


EARLY = {
    "tcp_options": [6, 0, 1 << 63, 0], "layer2_octets": 1 << 40, "ipv6_headers": 0x23, "flow_label": 5,
    "min_tcp_window": 512, "customer_vlan_id": 8, "customer_priority": 3, "fragment_flags": 0x40, "mpls_depth": 2,
    "mpls_labels": [[1, 2, 3], [4, 5, 6], [0, 0, 0]],
}  # fmt: skip
LATE = {
    "tcp_options": [1 << 8, 7, 0, 1 << 61], "layer2_octets": 99, "ipv6_headers": 0x10, "flow_label": 6,
    "min_tcp_window": 0, "customer_vlan_id": 9, "customer_priority": 1, "fragment_flags": 0x20, "mpls_depth": 3,
    "mpls_labels": [[7, 7, 7], [8, 8, 8], [9, 9, 9]],
}  # fmt: skip
EXPECTED = {
    **EARLY, "tcp_options": [6 | 1 << 8, 7, 1 << 63, 1 << 61], "layer2_octets": (1 << 40) + 99, "ipv6_headers": 0x33,
    "min_tcp_window": 0,
}  # fmt: skip


def test_every_metric_has_one_rule() -> None:
    ways = {*UFUNCS, Merge.FIRST, Merge.CONNECTION, Merge.NONE}
    every = [name for dtype in (METRICS, EXTRA, INSIGHT) for name in dtype.names or ()]
    assert sorted(name for way in ways for name in named(way)) == sorted(every)
    assert set(rules(RECORD).of_first) == set(named(Merge.FIRST)) - set(EXTRA.names or ())
    assert rules(EXTRA_RECORD).of_first == rules(FULL_RECORD).of_first == named(Merge.FIRST)


def test_extra_metrics_merge_by_their_rules() -> None:
    """Two rows of a flow, in either order, alone and beside rows of other flows."""
    early, late = flow(7, first_ns=3 * S, last_ns=4 * S), flow(7, first_ns=5 * S, last_ns=6 * S)
    early, late = (_with_extra(row) for row in (early, late))
    for row, values in ((early, EARLY), (late, LATE)):
        for name, value in values.items():
            row[name] = value
    others = _with_extra(many(20, first=100))
    for eviction in (rows(early, late), rows(late, others, early)):
        found = by_flow(merge(eviction, SEED)[0])[7]
        assert {name: found[name].tolist() for name in EXPECTED} == EXPECTED


def test_extra_metrics_merge_in_the_cache_too() -> None:
    cache = FlowCache(10**18, 10**18, 100, SEED, dtype=EXTRA_RECORD)
    for values in (EARLY, LATE):
        at = {"first_ns": 3 * S, "last_ns": 4 * S} if values is EARLY else {"first_ns": 5 * S, "last_ns": 6 * S}
        row = _with_extra(flow(7, **at))
        for name, value in values.items():
            row[name] = value
        assert not len(cache.update(rows(row, _with_extra(many(20, first=100))), 7 * S))
    found = by_flow(cache.expire_all())[7]
    assert {name: found[name].tolist() for name in EXPECTED} == EXPECTED
    assert cache.update(rows(_with_extra(flow(8))), 8 * S).dtype == EXTRA_RECORD


def test_rows_of_one_flow_become_one() -> None:
    early = flow(7, packets=2, octets=300, first_ns=3 * S, last_ns=4 * S, tcp_flags=SYN, tos=0x10, dot1q_priority=3)
    early["src_mac"], early["dst_mac"] = (1, 1, 1, 1, 1, 1), (2, 2, 2, 2, 2, 2)
    for name, value in (("min_ttl", 60), ("max_ttl", 61), ("min_ip_length", 100), ("max_ip_length", 200)):
        early[name] = value
    late = flow(7, packets=5, octets=9000, first_ns=5 * S, last_ns=6 * S, tcp_flags=ACK | FIN, tos=0x20, errno=16)
    late["src_mac"], late["dst_mac"] = (9, 9, 9, 9, 9, 9), (8, 8, 8, 8, 8, 8)
    for name, value in (("min_ttl", 50), ("max_ttl", 64), ("min_ip_length", 40), ("max_ip_length", 1500)):
        late[name] = value
    expected = early.copy()
    for name, value in (("packets", 7), ("octets", 9300), ("last_ns", 6 * S), ("tcp_flags", SYN | ACK | FIN)):
        expected[name] = value
    for name, value in (("min_ttl", 50), ("max_ttl", 64), ("min_ip_length", 40), ("max_ip_length", 1500)):
        expected[name] = value
    for eviction in (rows(early, late), rows(late, early)):
        merged, hashes = merge(eviction, SEED)
        assert as_set(merged) == as_set(expected)
        assert hashes.tolist() == hash_keys(expected, SEED).tolist()


def test_of_two_rows_that_start_together_the_first_gives_the_tos() -> None:
    merged, _ = merge(rows(flow(1, tos=4), flow(2), flow(1, tos=8)), SEED)
    assert by_flow(merged)[1]["tos"] == 4


@pytest.mark.parametrize("name", KEY.names or ())
def test_each_part_of_the_key_tells_flows_apart(name: str) -> None:
    other = flow()
    other[name] = 1 if KEY[name].shape == () else (1,) * 16
    merged, hashes = merge(rows(flow(), other, flow()), SEED)
    assert sorted(merged["packets"].tolist()) == [1, 2]
    assert hashes[0] != hashes[1]


def test_cpus_that_never_saw_the_flow_are_ignored() -> None:
    unseen = flow(1, packets=0, octets=0, first_ns=0, last_ns=0)
    merged, _ = merge(rows(unseen, flow(1, min_ttl=64), unseen, flow(2, packets=0)), SEED)
    assert as_set(merged) == as_set(flow(1, min_ttl=64))


def test_empty() -> None:
    for eviction in (empty(0), flow(packets=0)):
        merged, hashes = merge(eviction, SEED)
        assert (len(merged), len(hashes)) == (0, 0)


def test_without_doubles_nothing_is_copied() -> None:
    eviction = many(1000, errno=7)
    merged, _ = merge(eviction, SEED)
    assert np.shares_memory(merged, eviction)
    assert not merged["errno"].any()


def test_what_cannot_be_changed_is_copied() -> None:
    eviction = many(1000, errno=7)
    eviction.flags.writeable = False
    merged, _ = merge(eviction, SEED)
    assert (eviction["errno"] == 7).all()
    assert not merged["errno"].any()
    assert len(merge(many(1000)[::2], SEED)[0]) == 500


@pytest.mark.parametrize("count", [1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 100_000])
def test_every_flow_on_two_cpus(count: int) -> None:
    eviction = rows(many(count), many(count, packets=3, octets=5), many(7, first=count))
    merged, hashes = merge(eviction, SEED)
    assert sorted(map(number, merged)) == list(range(count + 7))
    assert merged["packets"][np.argsort(merged["packets"])].tolist() == [1] * 7 + [4] * count
    assert (merged["octets"] == np.where(merged["packets"] == 4, 105, 100)).all()
    assert (hashes == hash_keys(merged, SEED)).all()
    assert len(np.unique(hashes)) == len(hashes)


def test_one_flow_in_many_rows_of_the_ring_buffer() -> None:
    eviction = np.repeat(flow(5), 200_000)
    eviction["first_ns"] = eviction["last_ns"] = np.random.default_rng(1).permutation(200_000) + 1
    eviction["tos"][eviction["first_ns"] == 1] = 99
    merged, _ = merge(rows(eviction, flow(6)), SEED)
    found = by_flow(merged)[5]
    assert (found["packets"], found["octets"], found["tos"]) == (200_000, 20_000_000, 99)
    assert (found["first_ns"], found["last_ns"]) == (1, 200_000)


def test_keys_with_the_same_hash_stay_apart() -> None:
    eviction = rows(*(flow(i % 10, packets=1 + i) for i in range(30)))
    before = totals(eviction)
    merged, hashes = merge(eviction, 0, same_hash)
    assert {flow_number: int(row["packets"]) for flow_number, row in by_flow(merged).items()} == {
        i: 3 * i + 33 for i in range(10)
    }
    assert totals(merged) == before
    assert sorted(hashes.tolist()) == [NO_HASH] * 9 + [FIRST_HASH]
    merged, hashes = merge(rows(*(flow(i % 10) for i in range(30))), 0, few_hashes)
    assert sorted(map(number, merged)) == list(range(10))
    assert sorted(hashes.tolist()) == [NO_HASH] * 7 + [FIRST_HASH, FIRST_HASH + 1, FIRST_HASH + 2]


def test_hashes_depend_on_the_seed_and_are_spread() -> None:
    eviction = many(100_000)
    hashes = hash_keys(eviction, SEED)
    assert (hash_keys(eviction, SEED) == hashes).all()
    assert not (hash_keys(eviction, SEED + 1) == hashes).any()
    assert len(np.unique(hashes)) == len(hashes)
    for shift in (0, 16, 32, 48):
        share = np.bincount((hashes >> np.uint64(shift)).astype(np.uint16) >> 8, minlength=256)
        assert 250 < share.min() <= share.max() < 550  # 391 on average, deviation 20


def test_no_difference_of_keys_collides_for_all_seeds() -> None:
    """Flipped top bits cancel each other in a chain of multiply and xor, whatever its seed is."""
    left, right = flow(), flow()
    right["dst_addr"][0, [7, 15]] ^= 0x80
    for seed in range(200):
        assert hash_keys(left, seed)[0] != hash_keys(right, seed)[0]
