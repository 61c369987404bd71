from __future__ import annotations

from netobs.flow.interface_key import interface_key
from netobs.flow.records import empty
from netobs.metering.process import Metering, Totals
from tests.unit.metering.flows import FIN, S, flow, many, reasons, rows


def test_totals_of_both_sides() -> None:
    metering = Metering(60 * S, 15 * S)
    due = metering.update(rows(flow(1), flow(1), flow(2, tcp_flags=FIN, octets=7), flow(3, packets=0, octets=0)), 2 * S)
    assert reasons(due) == {2: 3}
    assert metering.taken == Totals(flows=4, packets=3, octets=207)
    assert metering.handed_out == Totals(flows=1, packets=1, octets=7)
    assert len(metering.cache) == 1
    assert reasons(metering.expire_all()) == {1: 4}
    assert metering.handed_out == Totals(flows=2, packets=3, octets=207)


def test_limits_reach_the_cache() -> None:
    metering = Metering(60 * S, 15 * S, max_flows=2, seed=1)
    assert set(reasons(metering.update(many(10), 2 * S)).values()) == {5}
    assert len(metering.cache) == 2
    assert set(reasons(metering.update(empty(0), 16 * S)).values()) == {1}


def test_processes_hash_differently() -> None:
    seeds = {Metering(0, 0).cache._seed for _ in range(4)}
    assert len(seeds) == 4


def test_other_limits_hold_for_what_is_in_the_cache() -> None:
    metering = Metering(60 * S, 15 * S, seed=1)
    metering.update(rows(flow(1, first_ns=1 * S, last_ns=1 * S), flow(2, first_ns=1 * S, last_ns=5 * S)), 5 * S)
    assert len(metering.set_limits(60 * S, 2 * S, 2)) == 0
    assert reasons(metering.update(flow(3, first_ns=6 * S, last_ns=6 * S), 6 * S)) == {1: 1}
    assert len(metering.cache) == 2
    assert len(metering.set_limits(60 * S, 600 * S, 1)) == 0
    assert reasons(metering.update(empty(0), 60 * S)) == {}
    assert reasons(metering.update(flow(4, first_ns=61 * S, last_ns=61 * S), 61 * S)) == {2: 2, 4: 5}
    assert metering.taken.packets == metering.handed_out.packets + 1


def test_without_an_active_timeout_nothing_stays_behind() -> None:
    metering = Metering(60 * S, 15 * S, seed=1)
    metering.update(rows(flow(1), flow(2)), 2 * S)
    assert reasons(metering.set_limits(0, 15 * S, 10)) == {1: 2, 2: 2}
    assert len(metering.cache) == 0
    assert metering.taken == metering.handed_out


def test_the_flows_of_one_interface_are_handed_out_when_another_gets_its_index() -> None:
    metering = Metering(60 * S, 15 * S, seed=1)
    metering.update(rows(many(500, ifindex=7), many(500, first=500, ifindex=8), flow(7, ifindex=8)), 2 * S)
    due = metering.end_interface(7)
    assert set(due["ifindex"].tolist()) == {7}
    assert reasons(due) == dict.fromkeys(range(500), 4)
    assert len(metering.end_interface(7)) == 0
    metering.update(rows(flow(3, ifindex=7), flow(7, ifindex=8)), 3 * S)
    left = metering.expire_all()
    assert left["packets"][left["ifindex"] == 7].tolist() == [1]
    assert int(left["packets"].sum()) == 503
    assert metering.taken.packets == metering.handed_out.packets == 1003


def test_a_namespace_that_has_gone_hands_out_its_flows_and_no_others() -> None:
    """Equal flows of equal interface indexes; only the namespace of the interface differs."""
    metering = Metering(60 * S, 15 * S, seed=1)
    metering.update(rows(*(flow(1, ifindex=7, netns=netns) for netns in (0, 1, 511))), 2 * S)
    assert len(metering.cache) == 3
    assert metering.end_interface(interface_key(511, 7))["netns"].tolist() == [511]
    due = metering.end_namespace(1)
    assert (due["netns"].tolist(), due["flow_end_reason"].tolist()) == ([1], [4])
    assert len(metering.end_namespace(1)) == 0
    assert metering.expire_all()["netns"].tolist() == [0]
    assert metering.handed_out.packets == 3
