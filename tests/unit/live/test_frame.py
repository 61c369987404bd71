from __future__ import annotations

from typing import Any

import pytest

from netobs.base.errors import NetobsError
from netobs.flow.interface_key import interface_key
from netobs.flow.interface_names import interface_table
from netobs.flow.records import Records
from netobs.live.flows import Flows, Mark
from netobs.live.frame import frame
from netobs.live.query import BY, DEFAULT_BY, Query, parse
from tests.unit.live.rows import numbered, row, rows

S = 1_000_000_000
NAMES = interface_table({1: ("eth0", ""), interface_key(3, 2): ("qr-1", "")}, {3: "qrouter"})
WEB: dict[str, Any] = {"dst": "198.51.100.7", "src_port": 40000, "dst_port": 443, "protocol": 6}
TRAFFIC = rows(
    row("192.0.2.1", packets=10, octets=9000, **WEB),
    row("192.0.2.2", packets=20, octets=8000, **WEB),
    row("192.0.2.77", "192.0.2.2", dst_port=8 << 8 | 3, protocol=1, packets=40, octets=4000, vlan_id=7),
    row("2001:db8::1", "2001:db8:1::2", src_port=53, packets=1, octets=70, ifindex=2, netns=3, direction=1),
)


def seen(live: Records, interval_ns: int = 2 * S, before: Records | None = None, **query: Any) -> dict[str, Any]:
    """The second frame of a client that began when ``before`` was in the kernel."""
    flows = Flows()
    flows.set_live(rows() if before is None else before)
    mark = Mark(flows, 5 * S)
    flows.marks.append(mark)
    flows.set_live(live)
    mark.see(flows, 5 * S + interval_ns)
    return frame(flows, mark, Query(**query), NAMES)


def test_each_flow_as_it_is_measured() -> None:
    made = seen(TRAFFIC)
    assert made["by"] == [*DEFAULT_BY]
    assert made["groups"] == 4
    assert made["interval_s"] == 2.0
    first, second, icmp, ipv6 = made["rows"]
    assert first == {
        "proto": "TCP", "src": "192.0.2.1", "sport": 40000, "dst": "198.51.100.7", "dport": 443, "if": "eth0",
        "dir": "ingress", "bits_per_s": 36000, "packets_per_s": 5.0, "new_flows_per_s": 0.5, "packets": 10,
        "octets": 9000, "flows": 1,
    }  # fmt: skip
    assert second["src"] == "192.0.2.2"
    assert (icmp["proto"], icmp["dport"]) == ("ICMP", "8.3")
    assert (ipv6["src"], ipv6["if"], ipv6["dir"]) == ("2001:db8::1", "qrouter/qr-1", "egress")
    assert made["totals"] == {
        "bits_per_s": 4 * 21070, "packets_per_s": 35.5, "new_flows_per_s": 2.0, "packets": 71, "octets": 21070,
        "flows": 4,
    }  # fmt: skip


def test_the_first_look_has_no_rates() -> None:
    flows = Flows()
    flows.set_live(TRAFFIC)
    mark = Mark(flows, S)
    made = frame(flows, mark, Query(), NAMES)
    assert made["interval_s"] is None
    assert made["rows"] == []
    assert made["totals"]["bits_per_s"] is None


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("bits", ["192.0.2.1", "192.0.2.2", "192.0.2.77", "2001:db8::1"]),
     ("packets", ["192.0.2.77", "192.0.2.2", "192.0.2.1", "2001:db8::1"])],
)  # fmt: skip
def test_sorted(sort: str, expected: list[str]) -> None:
    assert [each["src"] for each in seen(TRAFFIC, by=("src",), sort=sort)["rows"]] == expected


def test_sorted_by_new_flows() -> None:
    many = numbered(5, packets=1, octets=1, protocol=6)
    made = seen(rows(TRAFFIC, many), by=("proto",), sort="flows")
    assert next((each["proto"], each["new_flows_per_s"], each["flows"]) for each in made["rows"]) == ("TCP", 3.5, 7)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ((), {(): 71}),
        (("dst",), {("198.51.100.7",): 30, ("192.0.2.2",): 40, ("2001:db8:1::2",): 1}),
        (("proto",), {("TCP",): 30, ("ICMP",): 40, ("UDP",): 1}),
        (("srcnet",), {("192.0.2.0/26",): 30, ("192.0.2.64/26",): 40, ("2001:db8::/32",): 1}),
        (("dstnet", "vlan"), {("198.51.100.0/26", 0): 30, ("192.0.2.0/26", 7): 40, ("2001:db8::/32", 0): 1}),
        (("if", "dir"), {("eth0", "ingress"): 70, ("qrouter/qr-1", "egress"): 1}),
        (("sport",), {(40000,): 30, (0,): 40, (53,): 1}),
        (("dport",), {(443,): 30, ("8.3",): 40, (0,): 1}),
    ],
)
def test_grouped(by: tuple[str, ...], expected: dict[tuple[Any, ...], int]) -> None:
    made = seen(TRAFFIC, by=by, prefixes=(26, 32))
    assert {tuple(each[word] for word in by): each["packets"] for each in made["rows"]} == expected
    assert made["groups"] == len(expected)


def test_a_port_is_not_taken_for_an_icmp_message() -> None:
    same = rows(row(dst_port=0x0803, protocol=17), row(dst_port=0x0803, protocol=1))
    assert {each["dport"] for each in seen(same, by=("dport",))["rows"]} == {2051, "8.3"}


def test_filtered_totals_and_rows() -> None:
    made = seen(TRAFFIC, by=("src",), filter="port 443", rows=1)
    assert [each["src"] for each in made["rows"]] == ["192.0.2.1"]
    assert (made["groups"], made["totals"]["packets"], made["totals"]["flows"]) == (2, 30, 2)


def test_a_flow_without_packets_since_the_client_began_is_not_shown() -> None:
    assert [each["src"] for each in seen(TRAFFIC, before=TRAFFIC[1:])["rows"]] == ["192.0.2.1"]


def test_nothing_at_all() -> None:
    made = seen(rows())
    assert (made["rows"], made["groups"], made["totals"]["bits_per_s"]) == ([], 0, 0)


def test_as_many_groups_as_flows() -> None:
    made = seen(numbered(20_000), rows=3)
    assert (made["groups"], len(made["rows"])) == (20_000, 3)


def test_a_query_keeps_what_is_not_given() -> None:
    first = parse({"by": ["dst", "src"], "filter": " tcp ", "rows": 7})
    assert first == Query(by=("src", "dst"), filter="tcp", rows=7)
    assert parse({"sort": "flows", "unknown": 1}, first) == first._replace(sort="flows")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"by": ["source"]}, 'by: there is no "source"'),
        ({"by": "src"}, "by: expected a list"),
        ({"by": ["src"] * (len(BY) + 1)}, "by: expected a list"),
        ({"by": [["src"]]}, "by: there is no"),
        ({"sort": "bit"}, "did you mean bits?"),
        ({"sort": None}, "sort: there is no"),
        ({"filter": "hots 192.0.2.1"}, "did you mean host?"),
        ({"filter": 5}, "filter: expected a text"),
        ({"rows": 0}, "rows: expected a whole number, 1 to 1000"),
        ({"rows": True}, "rows: expected a whole number"),
        ({"prefixes": [24]}, "prefixes: expected two lengths"),
        ({"prefixes": [33, 64]}, "prefixes: expected a whole number, 8 to 32"),
        ({"interval": 1.5}, "interval: expected a whole number"),
    ],
)
def test_a_wrong_query_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(NetobsError) as caught:
        parse(given)
    assert said in str(caught.value)
