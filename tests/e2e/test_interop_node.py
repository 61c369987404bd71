"""The npm package node-netflowv9: every element of NetFlow v9 and v5 is what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any

import pytest

from tests.e2e.exchange import Exchange, Stream, streams
from tests.e2e.interop import ANYTHING, CISCO, Columns, as_it_is, element, elements, with_times

pytestmark = pytest.mark.e2e(tools=("make", "tcpdump", "node"), decoders=("node",))


def ipv6(text: str) -> str:
    return str(IPv6Address(bytes.fromhex(text)))


def mac(text: str) -> str:
    return bytes.fromhex(text).hex(":")


READ = {
    **dict.fromkeys(("sourceIPv6Address", "destinationIPv6Address"), ipv6),
    **dict.fromkeys(("sourceMacAddress", "destinationMacAddress"), mac),
}
NETFLOW5 = {
    **{name: CISCO[name].lower() for name in elements("netflow5") & CISCO.keys()},
    "sourceTransportPort": "ipv4_src_port",
    "destinationTransportPort": "ipv4_dst_port",
    "ipNextHopIPv4Address": "ipv4_next_hop",
    "bgpSourceAsNumber": "in_as",
    "bgpDestinationAsNumber": "out_as",
    "sourceIPv4PrefixLength": "src_mask",
    "destinationIPv4PrefixLength": "dst_mask",
}
COLUMNS: dict[str, Columns] = {
    "netflow9": {
        **{CISCO[name].lower(): element(name, READ.get(name, as_it_is)) for name in elements("netflow9", "full")},
        "fsId": ANYTHING,
    },
    "netflow5": {field: element(name) for name, field in NETFLOW5.items()},
}
NOT_SHOWN = {"paddingOctets": "skipped"}


def options(record: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.lower(): name for name, field in CISCO.items()}
    ours = {"isOption", "scope_system", "fsId"}
    return {names[field]: value for field, value in record.items() if field not in ours}


@pytest.mark.parametrize("stream", streams("node"), ids="-".join)
def test_every_field(exchange: Exchange, stream: Stream) -> None:
    records = [with_times(line, "first_switched", "last_switched") for line in exchange.shown["node", stream]]
    flows = [record for record in records if "isOption" not in record]
    shown = [(flow.get("ipv4_src_addr") or ipv6(flow["ipv6_src_addr"]), flow) for flow in flows]
    exchange.check("node", stream, shown, COLUMNS[stream.protocol], NOT_SHOWN)
    if stream.protocol != "netflow5":
        exchange.check_options(stream, [options(record) for record in records if record not in flows])
    assert exchange.said["node", stream] == []
