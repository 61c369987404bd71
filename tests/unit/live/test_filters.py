from __future__ import annotations

import pytest

from netobs.base.errors import FilterError
from netobs.flow.interface_key import interface_key
from netobs.flow.interface_names import interface_table
from netobs.live.columns import matches
from netobs.live.filters import DEEPEST, LONGEST, parse
from tests.unit.live.rows import row, rows

NAMES = interface_table({1: ("eth0", ""), 2: ("tap1", ""), interface_key(3, 2): ("qr-1", "")}, {3: "qrouter"})
FLOWS = rows(
    row("192.0.2.1", "198.51.100.7", src_port=40000, dst_port=443, protocol=6),
    row("198.51.100.7", "192.0.2.1", src_port=443, dst_port=40000, protocol=6, direction=1),
    row("192.0.2.129", "192.0.2.2", dst_port=8 << 8, protocol=1, ifindex=2),
    row("2001:db8::1", "2001:db8:1::2", src_port=53, dst_port=5353, vlan_id=10),
    row("2001:db8::1", "2001:db8:1::2", protocol=58, dst_port=128 << 8, ifindex=2, netns=3),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host 192.0.2.1", [0, 1]),
        ("src host 192.0.2.1", [0]),
        ("dst host 192.0.2.1", [1]),
        ("net 192.0.2.128/25", [2]),
        ("net 192.0.2.0/24", [0, 1, 2]),
        ("net 0.0.0.0/0", [0, 1, 2]),
        ("net ::/0", [3, 4]),
        ("net 2001:db8::/48", [3, 4]),
        ("dst net 2001:db8::/48", []),
        ("host 2001:db8:1::2 and not proto icmp6", [3]),
        ("port 443", [0, 1]),
        ("src port 443", [1]),
        ("dst port 440-450", [0]),
        ("port 2048", []),
        ("proto 6", [0, 1]),
        ("tcp", [0, 1]),
        ("ICMP or icmp6", [2, 4]),
        ("if eth0", [0, 1, 3]),
        ("if ?a*", [2]),
        ("if qr-1", [4]),
        ("if eth7", []),
        ("vlan 10", [3]),
        ("in and tcp", [0]),
        ("out", [1]),
        ("ip", [0, 1, 2]),
        ("ip6", [3, 4]),
        ("not ip", [3, 4]),
        ("tcp and in or icmp", [0, 2]),
        ("tcp and (in or icmp)", [0]),
        ("not (tcp or vlan 10) and not ip6", [2]),
        ("not not tcp", [0, 1]),
    ],
)
def test_a_filter_takes_these_flows(text: str, expected: list[int]) -> None:
    condition = parse(text)
    assert condition is not None
    assert matches(condition, FLOWS, NAMES).nonzero()[0].tolist() == expected


def test_no_filter_takes_every_flow() -> None:
    assert parse("") is None
    assert parse("  ") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hots 192.0.2.1", "did you mean host?"),
        ("host", "it ends where an address is missing"),
        ("host 192.0.2.300", '"192.0.2.300" is not an address'),
        ("host 192.0.2.0/24", "write net 192.0.2.0/24"),
        ("port 70000", '"70000" is not a port'),
        ("port x", '"x" is not a port'),
        ("vlan 4096", "is not a VLAN"),
        ("proto nix", "is not a protocol"),
        ("src eth0", "expected host, net or port behind src"),
        ("tcp udp", 'expected and, or, or the end before "udp"'),
        ("(tcp", 'it ends where ")" is missing'),
        ("tcp)", "the end before"),
        ("tcp and", "it ends where a condition is missing"),
        ("if", "it ends where the name of an interface is missing"),
        ("(" * (DEEPEST + 1) + "tcp", "parentheses"),
        ("x" * (LONGEST + 1), "the limit is"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert said in str(caught.value)
