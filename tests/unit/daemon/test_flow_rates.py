"""Exported flows by protocol, interface and direction, against a count by hand."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from netobs.base.clock import NS_PER_S, ClockPair
from netobs.daemon.flow_rates import IDLE_NS, FlowRates
from netobs.daemon.openmetrics import text
from netobs.flow.interface_names import InterfaceTable, interface_table
from netobs.flow.records import INSIGHT_RECORD, FlowBatch, Records, empty, in_dtype

ETH = interface_table({2: ("eth0", ""), 3: ("eth1", "")})


def batch(rows: Records, table: InterfaceTable = ETH, at_s: int = 1000) -> FlowBatch:
    return FlowBatch(rows, ClockPair(at_s * NS_PER_S, at_s * NS_PER_S), table)


def flows(*rows: tuple[int, int, int], packets: int = 2, octets: int = 300) -> Records:
    """Interface index, direction and protocol of each."""
    records = empty(len(rows))
    for name, column in zip(("ifindex", "direction", "protocol"), zip(*rows)):
        records[name] = column
    records["packets"], records["octets"] = packets, octets
    return records


def said(rates: FlowRates) -> dict[tuple[str, str, str, str], int]:
    """Name, interface, direction and protocol of each sample."""
    pattern = (
        r'netobs_flow_(\w+)_total\{interface="([^"]*)"(?:,netns="[^"]*")?,direction="(\w+)",protocol="(\w+)"\} (\d+)'
    )
    return {(a, b, c, d): int(value) for a, b, c, d, value in re.findall(pattern, text(rates.families(), True))}


def test_each_combination_is_counted() -> None:
    rates = FlowRates()
    rates.add(batch(flows((2, 0, 6), (2, 0, 6), (2, 1, 17), (3, 0, 1), (9, 0, 89))))
    rates.add(batch(flows((2, 0, 6), packets=5, octets=1000)))
    assert said(rates) == {
        ("records", "others", "ingress", "other"): 1,
        ("records", "eth0", "ingress", "tcp"): 3,
        ("records", "eth0", "egress", "udp"): 1,
        ("records", "eth1", "ingress", "icmp"): 1,
        ("packets", "others", "ingress", "other"): 2,
        ("packets", "eth0", "ingress", "tcp"): 9,
        ("packets", "eth0", "egress", "udp"): 2,
        ("packets", "eth1", "ingress", "icmp"): 2,
        ("octets", "others", "ingress", "other"): 300,
        ("octets", "eth0", "ingress", "tcp"): 1600,
        ("octets", "eth0", "egress", "udp"): 300,
        ("octets", "eth1", "ingress", "icmp"): 300,
    }


def test_what_was_measured_of_tcp() -> None:
    """Of TCP only, and only if it was measured at all: 0 retransmissions are not an unknown number of them."""
    rates = FlowRates()
    records = in_dtype(flows((2, 0, 6), (2, 0, 6), (2, 0, 17)), INSIGHT_RECORD)
    records["rtt_samples"], records["rtt_sum"] = [3, 2, 0], [300, 100, 0]
    records["retransmitted_packets"] = [4, 0, 0]
    rates.add(batch(records))
    lines = {line for line in text(rates.families(), True).splitlines() if line.startswith("netobs_tcp_")}
    where = '{interface="eth0",direction="ingress",protocol="tcp"}'
    assert lines == {
        f"netobs_tcp_rtt_samples_total{where} 5",
        f"netobs_tcp_rtt_microseconds_total{where} 400",
        f"netobs_tcp_retransmitted_packets_total{where} 4",
        f"netobs_tcp_out_of_order_packets_total{where} 0",
        f"netobs_tcp_zero_window_packets_total{where} 0",
    }


def test_all_protocols_and_many_interfaces() -> None:
    random = np.random.default_rng(1)
    table = interface_table({index: (f"tap{index}", "") for index in (*range(1, 100), 4_000_000)})
    records = empty(10_000)
    records["ifindex"] = random.choice([*range(1, 110), 4_000_000], len(records))
    records["direction"], records["protocol"] = random.integers(0, 2, 10_000), random.integers(0, 256, 10_000)
    records["packets"], records["octets"] = random.integers(1, 9, 10_000), random.integers(40, 1 << 40, 10_000)
    rates = FlowRates()
    for part in np.array_split(records, 3):
        rates.add(batch(part, table))
    words = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmp6", 132: "sctp"}
    expected: Counter[tuple[str, str, str, str]] = Counter()
    for row in records:
        known = row["ifindex"] < 100 or row["ifindex"] == 4_000_000
        name = f"tap{row['ifindex']}" if known else "others"
        place = name, ("ingress", "egress")[row["direction"]], words.get(int(row["protocol"]), "other")
        for kind, amount in (("records", 1), ("packets", row["packets"]), ("octets", row["octets"])):
            expected[(kind, *place)] += int(amount)
    assert said(rates) == dict(expected)


def test_equal_interfaces_of_two_namespaces_are_told_apart() -> None:
    table = interface_table({2: ("eth0", ""), (5 << 32) + 2: ("eth0", "")}, {0: "", 5: "blue"})
    records = flows((2, 0, 6), (2, 0, 6), (2, 0, 6))
    records["netns"] = (0, 5, 5)
    rates = FlowRates()
    rates.add(batch(records, table))
    lines = [line for line in text(rates.families(), True).splitlines() if line.startswith("netobs_flow_records_total")]
    assert sorted(lines) == [
        'netobs_flow_records_total{interface="eth0",direction="ingress",protocol="tcp"} 1',
        'netobs_flow_records_total{interface="eth0",netns="blue",direction="ingress",protocol="tcp"} 2',
    ]


def test_beyond_the_most_interfaces_the_rest_is_added_up() -> None:
    table = interface_table({index: (f"tap{index}", "") for index in range(1, 6)})
    rates = FlowRates(most=2)
    rates.add(batch(flows((1, 0, 6), (2, 0, 6)), table))
    rates.add(batch(flows((1, 0, 6), (3, 0, 6), (4, 0, 6), (5, 0, 6)), table))
    found = {place[1]: count for place, count in said(rates).items() if place[0] == "records"}
    assert found == {"tap1": 2, "tap2": 1, "others": 3}


def test_an_interface_without_flows_gives_way_and_no_flow_is_lost() -> None:
    table = interface_table({index: (f"tap{index}", "") for index in range(1, 5)})
    rates, later_s = FlowRates(most=2), 1000 + IDLE_NS // NS_PER_S
    rates.add(batch(flows((1, 0, 6), (2, 0, 6)), table))
    rates.add(batch(flows((2, 0, 6)), table, at_s=1001))
    rates.add(batch(flows((3, 0, 6)), table, at_s=later_s))  # tap1 has had none since
    rates.add(batch(flows((2, 0, 6), (1, 0, 6)), table, at_s=later_s))
    found = {place[1]: count for place, count in said(rates).items() if place[0] == "records"}
    assert found == {"tap2": 3, "tap3": 1, "others": 2}


def test_a_name_keeps_its_counters_when_the_table_changes() -> None:
    rates = FlowRates()
    rates.add(batch(flows((2, 0, 6))))
    rates.add(batch(flows((7, 0, 6)), interface_table({7: ("eth0", "")})))
    assert {place[1]: count for place, count in said(rates).items() if place[0] == "records"} == {"eth0": 2}
