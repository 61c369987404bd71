from __future__ import annotations

from typing import Any

import pytest

from netobs.cli.top_page import ASCII_BARS, BARS, has_loss, page, sparkline
from netobs.cli.top_screen import grouped
from netobs.live.query import DEFAULT_BY


def row(**labels: Any) -> dict[str, Any]:
    numbers = {"bits_per_s": 12_345_678, "packets_per_s": 1500.0, "new_flows_per_s": 2.0, "packets": 9, "octets": 10**9}
    return {**labels, **numbers, "flows": 3}


def frame(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "time_s": 1_796_095_926.5, "interval_s": 1.0, "by": [*DEFAULT_BY], "sort": "bits", "filter": "", "groups": 1234,
        "totals": row(), "rows": [*rows], "incomplete": None,
        "condition": {"interfaces": 2, "up": 1, "collectors": 1, "lost_packets": 0, "not_sent_packets": 0},
    }  # fmt: skip
    return {**whole, **changes}


IPV4 = {
    "proto": "TCP",
    "src": "192.0.2.1",
    "sport": 40000,
    "dst": "198.51.100.7",
    "dport": 443,
    "if": "eth0",
    "dir": "ingress",
}
IPV6 = {**IPV4, "src": "2001:db8:1111:2222:3333:4444:5555:6666", "dst": "2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa"}


def test_each_flow_with_ports_and_rates() -> None:
    shown = page(frame(row(**IPV4)), [])
    assert shown.title.split() == [
        "proto", "source", "destination", "interface", "dir", "bits/s", "packets/s", "new/s", "flows", "octets",
    ]  # fmt: skip
    assert "TCP   192.0.2.1:40000 198.51.100.7:443 eth0      in     12.3 M    1.50 k         2" in shown.rows[0]
    assert "12.3 Mbit/s  1.50 k packets/s  2 new flows/s" in shown.head[0]
    assert shown.head[1].startswith("1,234 groups of 3 flows  by proto, src,")
    assert shown.head[2] == "2 interfaces; 1 of 1 collectors up; packets lost: 0 before a flow, 0 not sent"
    assert shown.problem == ""


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("sort", ["bits", "packets", "flows"])
def test_it_fits_and_shows_what_it_is_sorted_by(width: int, sort: str) -> None:
    shown = page(frame(row(**IPV6), row(**IPV4), sort=sort, filter="x" * 300, incomplete="y" * 300), [1.0] * 60, width)
    assert max(map(len, shown.lines())) <= width
    rate = {"bits": "12.3 M", "packets": "1.50 k", "flows": "2"}[sort]
    assert all(rate in line for line in shown.rows)
    assert all(line.startswith("TCP") for line in shown.rows)


def test_no_name_moves_the_cursor() -> None:
    shown = page(frame(row(**{**IPV4, "if": "a\x1b[2Jb"}), filter="\x1b]0;x\x07"), [], 80)
    assert "\x1b" not in "".join(shown.lines())


def test_what_is_not_known_is_not_shown_as_0() -> None:
    unknown = {**row(**IPV4), "bits_per_s": None, "packets_per_s": None, "new_flows_per_s": None}
    shown = page(frame(unknown, totals=unknown, condition=None), [])
    assert shown.head[0].split()[1:] == ["-/s", "-", "packets/s", "-", "new", "flows/s"]
    assert len(shown.head) == 2


def test_alone_there_are_no_collectors() -> None:
    shown = page(frame(condition={"interfaces": 1, "lost_packets": 7}), [])
    assert shown.head[2] == "1 interface; alone; packets lost: 7 before a flow"
    assert has_loss(frame(condition={"interfaces": 1, "lost_packets": 7}))
    assert not has_loss(frame())
    assert has_loss(frame(condition={"interfaces": 1, "up": 0, "collectors": 1, "lost_packets": 0}))


def test_bars_are_as_high_as_their_numbers() -> None:
    assert sparkline([0, 1, 50, 100]) == " ▁▄█"
    assert sparkline([0, 100], ASCII_BARS) == " @"
    assert sparkline([]) == sparkline([0, 0]) == ""
    assert len(sparkline([0.4, 0.2, 10**12])) == 3
    assert len(BARS) == len(ASCII_BARS)


@pytest.mark.parametrize(
    ("by", "keys", "expected"),
    [
        (DEFAULT_BY, "a", {"proto", "sport", "dst", "dport", "if", "dir"}),
        (("src",), "a", set()),
        ((), "v", {"vlan"}),
        (("src", "sport"), "n", {"srcnet", "sport"}),
        (("srcnet",), "n", {"src"}),
        (("srcnet",), "a", set()),
        (("proto",), "n", {"proto", "srcnet", "dstnet"}),
        (("srcnet", "dstnet"), "d", {"srcnet"}),
        ((), "adotriwv", {"src", "dst", "sport", "dport", "proto", "if", "dir", "vlan"}),
        (("vlan",), "c", {*DEFAULT_BY}),
    ],
)
def test_keys_choose_the_groups(by: tuple[str, ...], keys: str, expected: set[str]) -> None:
    for key in keys:
        by = grouped(by, key)
    assert {*by} == expected
