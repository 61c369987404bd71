from __future__ import annotations

import numpy as np
import pytest

from netobs.flow.key_hash import FIRST_HASH, Hashes
from netobs.flow.records import Records, empty
from netobs.metering.cache import FlowCache
from tests.unit.metering.flows import FIN, RST, SYN, S, as_set, by_flow, flow, many, reasons, rows, totals

IDLE, ACTIVE, END, FORCED, LACK = 1, 2, 3, 4, 5


def make_cache(active_s: int = 60, idle_s: int = 15, max_flows: int = 1_000_000) -> FlowCache:
    return FlowCache(active_s * S, idle_s * S, max_flows, seed=42)


def test_a_flow_waits_and_grows_until_it_is_idle() -> None:
    cache = make_cache()
    assert len(cache.update(flow(1, first_ns=1 * S, last_ns=2 * S, tos=4), 5 * S)) == 0
    assert len(cache.update(flow(1, packets=9, octets=50, first_ns=6 * S, last_ns=8 * S, tos=8), 10 * S)) == 0
    assert len(cache) == 1
    assert len(cache.update(empty(0), 23 * S - 1)) == 0
    due = cache.update(empty(0), 23 * S)
    expected = flow(1, packets=10, octets=150, first_ns=1 * S, last_ns=8 * S, tos=4, flow_end_reason=IDLE)
    assert as_set(due) == as_set(expected)
    assert len(cache) == 0


def test_a_long_flow_is_cut_by_the_active_timeout_and_starts_anew() -> None:
    cache = make_cache()
    exported = []
    for second in range(5, 130, 5):
        part = flow(1, first_ns=(second - 4) * S, last_ns=second * S)
        exported += [
            (second, int(row["packets"]), int(row["flow_end_reason"])) for row in cache.update(part, second * S)
        ]
    # The 13th part completes 60 s since the first packet at 1 s: it is in the record, and the 14th begins the next.
    assert exported == [(65, 13, ACTIVE)]
    assert totals(cache.expire_all()) == (12, 1200)


def test_active_timeout_of_exactly_now() -> None:
    cache = make_cache(idle_s=100)
    assert len(cache.update(flow(1, first_ns=S, last_ns=S), 61 * S - 1)) == 0
    assert reasons(cache.update(empty(0), 61 * S)) == {1: ACTIVE}


@pytest.mark.parametrize("flag", [FIN, RST, FIN | SYN])
def test_fin_and_rst_end_a_flow_at_once(flag: int) -> None:
    cache = make_cache()
    cache.update(rows(flow(1, tcp_flags=SYN), flow(2)), 5 * S)
    due = by_flow(cache.update(rows(flow(1, tcp_flags=flag), flow(3, tcp_flags=flag), flow(4)), 6 * S))
    assert {number: (int(row["packets"]), int(row["flow_end_reason"])) for number, row in due.items()} == {
        1: (2, END),
        3: (1, END),
    }
    assert due[1]["tcp_flags"] == SYN | flag
    assert len(cache) == 2


def test_idle_goes_before_active_and_end_before_both() -> None:
    cache = make_cache()
    due = cache.update(rows(flow(1), flow(2, tcp_flags=FIN), flow(3, last_ns=500 * S)), 500 * S)
    assert reasons(due) == {1: IDLE, 2: END, 3: ACTIVE}


def test_packets_that_come_before_expiry_is_looked_at_keep_a_flow_alive() -> None:
    cache = make_cache()
    cache.update(flow(1), 2 * S)
    assert len(cache.update(flow(1, first_ns=20 * S, last_ns=20 * S), 21 * S)) == 0
    assert reasons(cache.update(empty(0), 35 * S)) == {1: IDLE}


def test_active_timeout_zero_exports_each_eviction() -> None:
    cache = make_cache(active_s=0)
    for _ in range(2):
        due = cache.update(rows(flow(1), flow(2, tcp_flags=RST), flow(1), flow(3, first_ns=99 * S)), 50 * S)
        assert reasons(due) == {1: ACTIVE, 2: END, 3: ACTIVE}
        assert by_flow(due)[1]["packets"] == 2
        assert len(cache) == 0
    assert (cache.created, cache.expired.tolist()) == (6, [0, 0, 4, 2, 0, 0])


def test_the_rest_is_handed_out_at_the_end() -> None:
    cache = make_cache()
    cache.update(many(5000), 2 * S)
    rest = cache.expire_all()
    assert (len(rest), len(cache)) == (5000, 0)
    assert (rest["flow_end_reason"] == FORCED).all()
    assert len(cache.expire_all()) == 0
    # The cache is as good as new, and what it handed out does not change any more.
    assert len(cache.update(many(5000, packets=9), 2 * S)) == 0
    assert (rest["packets"] == 1).all()
    assert (cache.expire_all(LACK)["flow_end_reason"] == LACK).all()
    assert cache.expired.tolist() == [0, 0, 0, 0, 5000, 5000]


def test_a_full_cache_passes_new_flows_on_and_keeps_the_known() -> None:
    cache = make_cache(max_flows=100)
    assert len(cache.update(many(100), 2 * S)) == 0
    due = cache.update(rows(many(100), many(50, first=100), flow(999, tcp_flags=FIN)), 3 * S)
    assert reasons(due) == {**dict.fromkeys(range(100, 150), LACK), 999: END}
    assert len(cache) == 100
    assert set(cache.expire_all()["packets"].tolist()) == {2}


def test_flows_that_leave_make_room_in_the_same_eviction() -> None:
    cache = make_cache(max_flows=100)
    cache.update(rows(many(60), many(40, first=60, last_ns=10 * S)), 10 * S)
    due = reasons(cache.update(many(70, first=100, first_ns=16 * S, last_ns=16 * S), 16 * S))
    assert sorted(number for number, reason in due.items() if reason == IDLE) == list(range(60))
    assert sum(reason == LACK for reason in due.values()) == 10
    assert len(cache) == 100


def test_a_key_that_collides_with_a_cached_one_is_exported_at_once() -> None:
    def by_port(records: Records, seed: int) -> Hashes:
        return records["src_port"].astype(np.uint64) + np.uint64(FIRST_HASH + seed)

    cache = FlowCache(60 * S, 15 * S, 1000, 0, by_port)
    assert len(cache.update(rows(flow(1, src_port=7), flow(2, src_port=8)), 2 * S)) == 0
    due = cache.update(rows(flow(3, src_port=7), flow(2, src_port=8), flow(4, src_port=8, tcp_flags=FIN)), 3 * S)
    assert reasons(due) == {3: LACK, 4: END}
    assert totals(rows(due, cache.expire_all())) == (5, 500)
    assert cache.created == cache.expired.sum()


def test_statistics() -> None:
    cache = make_cache()
    cache.update(rows(many(10), many(5, first=10, tcp_flags=FIN)), 2 * S)
    cache.update(many(3, last_ns=20 * S), 20 * S)
    assert (cache.created, len(cache), cache.expired.tolist()) == (15, 3, [0, 7, 0, 5, 0, 0])


def test_big_evictions() -> None:
    cache = make_cache()
    small = cache.nbytes
    assert small < 1 << 20
    for second in (2, 3, 4):
        assert len(cache.update(many(200_000, first_ns=second * S, last_ns=second * S), second * S)) == 0
    assert len(cache) == 200_000
    due = cache.update(many(200_000, first=100_000, packets=2, first_ns=18 * S, last_ns=18 * S), 19 * S)
    assert len(due) == 100_000
    assert (due["packets"] == 3).all()
    found = by_flow(cache.expire_all())
    assert {int(found[number]["packets"]) for number in range(100_000, 200_000)} == {5}
    assert {int(found[number]["packets"]) for number in range(200_000, 300_000)} == {2}
    assert cache.nbytes == small
