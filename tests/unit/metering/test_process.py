from __future__ import annotations

from netobs.metering.process import Metering, Totals
from netobs.records import empty
from tests.unit.metering.flows import FIN, S, flow, many, reasons, rows


def test_totals_of_both_sides() -> None:
    metering = Metering(60 * S, 15 * S)
    due = metering.update(rows(flow(1), flow(1), flow(2, tcp_flags=FIN, octets=7), flow(3, packets=0, octets=0)), 2 * S)
    assert reasons(due) == {2: 3}
    assert metering.taken == Totals(flows=4, packets=3, octets=207)
    assert metering.handed_out == Totals(flows=1, packets=1, octets=7)
    assert len(metering.cache) == 1
    assert reasons(metering.close()) == {1: 4}
    assert metering.handed_out == Totals(flows=2, packets=3, octets=207)


def test_limits_reach_the_cache() -> None:
    metering = Metering(60 * S, 15 * S, max_flows=2, seed=1)
    assert set(reasons(metering.update(many(10), 2 * S)).values()) == {5}
    assert len(metering.cache) == 2
    assert set(reasons(metering.update(empty(0), 16 * S)).values()) == {1}


def test_processes_hash_differently() -> None:
    seeds = {Metering(0, 0).cache._seed for _ in range(4)}
    assert len(seeds) == 4
