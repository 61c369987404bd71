"""Decoded flows as a table."""

from __future__ import annotations

import pytest

from lab.samples import golden_messages
from netobs.collector.decode import Decoder
from netobs.collector.received import Record
from netobs.collector.text_table import FlowTable

COLUMNS = ("start", "duration", "proto", "source", "destination", "if", "dir", "packets", "octets", "flags", "end")


def test_table_of_the_golden_messages() -> None:
    decoder, table = Decoder(), FlowTable()
    flows = [flow for message in golden_messages() for flow in decoder.decode(message).flows]
    lines = [table.title(), *(table.row(flow) for flow in flows)]
    assert lines[0].split() == list(COLUMNS)
    assert [" ".join(line.split()[:6]) for line in lines[1:5]] == [
        "2023-11-14T22:13:11.123Z 7.333 TCP 192.0.2.1:40000 -> 198.51.100.7:443",
        "2023-11-14T22:13:11.123Z 7.333 UDP 192.0.2.1:5353 -> 198.51.100.8:53",
        "2023-11-14T22:13:11.123Z 7.333 ICMP 192.0.2.1 -> 198.51.100.9:8.0",
        "2023-11-14T22:13:11.123Z 7.333 ICMP 192.0.2.2 -> 198.51.100.9:3.1",
    ]
    assert [" ".join(line.split()[6:]) for line in lines[1:5]] == [
        "3 in 10 5400 FS.PA... idle",
        "3 out 10 5400 ........ idle",
        "3 in 10 5400 ........ forced",
        "3 in 10 5400 ........ idle",
    ]
    assert "GRE" in lines[7]
    assert lines[7].endswith("resources")
    assert "[2001:db8::1]:40000" in lines[8]
    assert "fe80::1 " in lines[10]
    assert "[fe80::2]:135.0" in lines[10]


def test_columns_are_aligned() -> None:
    table = FlowTable()
    flow = {"sourceIPv4Address": "192.0.2.1", "destinationIPv4Address": "192.0.2.2", "flowEndReason": 1}
    wide = {"sourceIPv6Address": "2001:db8:1111:2222:3333:4444:5555:6666", "flowEndReason": 1}
    title, first = table.title(), table.row(flow)
    assert title.index("destination") == first.index("192.0.2.2")
    assert title.index("end") == first.index("idle")
    assert table.row(wide).index("idle") == table.row(flow).index("idle") > first.index("idle")


@pytest.mark.parametrize(
    "flow",
    [
        {},
        {"protocolIdentifier": "00aabb", "tcpControlBits": "00", "sourceTransportPort": "00"},
        {"flowStartMilliseconds": "", "flowEndMilliseconds": "00ff"},
        {"flowStartMilliseconds": 2**64 - 1, "flowEndMilliseconds": 2**64 - 1},
        {"flowStartNanoseconds": "2036-02-07T06:28:21.000000000Z"},
    ],
)
def test_what_is_missing_or_impossible_is_a_dash(flow: Record) -> None:
    cells = FlowTable().row(flow).split()
    assert cells[1] == "-"
    assert cells[4] == "->"


def test_nanoseconds_and_unknown_protocol() -> None:
    start, end = "2023-11-14T22:13:20.000000001Z", "2023-11-14T22:13:21.500000001Z"
    flow = {"flowStartNanoseconds": start, "flowEndNanoseconds": end, "protocolIdentifier": 200}
    assert FlowTable().row(flow).split()[:3] == [start, "1.500", "200"]


def test_a_value_of_impossible_length_does_not_widen_the_table() -> None:
    table = FlowTable()
    wide = table.row({"packetDeltaCount": "00" * 4_000, "octetDeltaCount": 5})
    assert "0..." in wide
    assert len(wide) < 200
    assert len(table.title()) < 200
