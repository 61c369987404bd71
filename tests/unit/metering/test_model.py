"""The flow cache against a model of it in plain Python: random evictions, timeouts and steps of the clock."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netobs.flow.key_hash import FIRST_HASH, Hashes, hash_keys
from netobs.flow.records import Records, empty
from netobs.metering.cache import FlowCache
from tests.unit.metering.flows import FIN, RST, as_set, flow, key, rows

Part = tuple[dict[str, Any], int, int]

FIELDS = st.fixed_dictionaries(
    {
        "number": st.integers(0, 12),
        "packets": st.integers(0, 5),
        "octets": st.integers(0, 2**40),
        "tcp_flags": st.sampled_from([0, 0, 0, 2, 16, FIN, RST]),
        "errno": st.integers(0, 255),
        "src_mac": st.tuples(*[st.integers(0, 255)] * 6),
        "dst_mac": st.tuples(*[st.integers(0, 255)] * 6),
        **{name: st.integers(0, 255) for name in ("tos", "dot1q_priority", "min_ttl", "max_ttl")},
        **{name: st.integers(0, 65535) for name in ("min_ip_length", "max_ip_length")},
    }
)
PARTS = st.lists(st.tuples(FIELDS, st.integers(0, 30), st.integers(0, 30)), max_size=25)
EVICTIONS = st.lists(st.tuples(st.integers(0, 20), PARTS), max_size=12)
"""For each eviction: the time since the one before and its rows: fields, age of the first packet, duration."""


def make(parts: list[Part], now: int) -> Records:
    """The rows of an eviction at ``now``."""
    made = []
    for fields, age, duration in parts:
        first = max(now - age, 0)
        made.append(flow(**fields, first_ns=first, last_ns=min(first + duration, now)))
    return rows(*made)


def add(flows: dict[bytes, np.void], row: np.void) -> None:
    """Add ``row`` to the flow that it belongs to."""
    known = flows.get(key(row))
    if known is None:
        known = flows[key(row)] = row.copy()
        known["errno"] = 0
        return
    if row["first_ns"] < known["first_ns"]:
        for name in ("first_ns", "tos", "dot1q_priority", "src_mac", "dst_mac"):
            known[name] = row[name]
    known["packets"] += row["packets"]
    known["octets"] += row["octets"]
    known["tcp_flags"] |= row["tcp_flags"]
    for name in ("min_ttl", "min_ip_length"):
        known[name] = min(known[name], row[name])
    for name in ("last_ns", "max_ttl", "max_ip_length"):
        known[name] = max(known[name], row[name])


class Model:
    """What ``FlowCache`` promises as long as it has room, one row at a time."""

    def __init__(self, active: int, idle: int) -> None:
        self.active, self.idle = active, idle
        self.flows: dict[bytes, np.void] = {}

    def update(self, records: Records, now: int) -> Records:
        merged: dict[bytes, np.void] = {}
        for row in records[records["packets"] > 0]:
            add(merged, row)
        for row in merged.values():
            add(self.flows, row)
        due = {flow_key: self.reason(row, now) for flow_key, row in self.flows.items()}
        out = [self.flows.pop(flow_key) for flow_key, reason in due.items() if reason]
        for row in out:
            row["flow_end_reason"] = due[key(row)]
        return np.array(out, empty(0).dtype)

    def reason(self, row: np.void, now: int) -> int:
        if row["tcp_flags"] & (FIN | RST):
            return 3
        if self.active == 0:
            return 2
        if int(row["last_ns"]) + self.idle <= now:
            return 1
        return 2 if int(row["first_ns"]) + self.active <= now else 0


def few_hashes(records: Records, seed: int) -> Hashes:
    """Four hashes for all keys."""
    return hash_keys(records, seed) % np.uint64(4) + np.uint64(FIRST_HASH)


def count(books: Counter[tuple[bytes, str]], records: Records) -> None:
    """Enter packets and octets by Flow Key."""
    for row in records:
        books[key(row), "packets"] += int(row["packets"])
        books[key(row), "octets"] += int(row["octets"]) if row["packets"] else 0


@settings(deadline=None)  # other work on the machine must not fail the test
@given(EVICTIONS, st.integers(0, 60), st.integers(0, 30), st.integers(0, 2**64 - 1))
def test_cache_does_as_the_model(evictions: list[tuple[int, list[Part]]], active: int, idle: int, seed: int) -> None:
    cache, model, now = FlowCache(active, idle, 1000, seed), Model(active, idle), 0
    for step, parts in evictions:
        now += step
        expected = model.update(make(parts, now), now)
        assert as_set(cache.update(make(parts, now), now)) == as_set(expected)
        assert len(cache) == len(model.flows)
        assert cache.created == len(cache) + cache.expired.sum()
    for row in model.flows.values():
        row["flow_end_reason"] = 4
    assert as_set(cache.expire_all()) == as_set(np.array([*model.flows.values()], empty(0).dtype))


@settings(deadline=None)  # other work on the machine must not fail the test
@given(EVICTIONS, st.integers(0, 60), st.integers(1, 30), st.integers(0, 8), st.booleans())
def test_nothing_is_lost_under_pressure(
    evictions: list[tuple[int, list[Part]]], active: int, idle: int, max_flows: int, collide: bool
) -> None:
    cache = FlowCache(active, idle, max_flows, 1, few_hashes if collide else hash_keys)
    taken: Counter[tuple[bytes, str]] = Counter()
    handed_out: Counter[tuple[bytes, str]] = Counter()
    now = 0
    for step, parts in evictions:
        now += step
        count(taken, make(parts, now))
        due = cache.update(make(parts, now), now)
        count(handed_out, due)
        assert len(cache) <= max_flows
        assert cache.created == len(cache) + cache.expired.sum()
        assert set(due["flow_end_reason"].tolist()) <= {1, 2, 3, 5}
        # Only a key that shares its hash may be handed out twice: from the cache, and past it.
        assert collide or len({key(row) for row in due}) == len(due)
    count(handed_out, cache.expire_all())
    assert +handed_out == +taken
