"""The PyPI package netflow: every element of IPFIX, NetFlow v9 and v5 is what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from tests.e2e.exchange import Exchange, Stream, streams
from tests.e2e.interop import CISCO, Columns, element, elements, with_times

pytestmark = pytest.mark.e2e(tools=("make", "tcpdump"), decoders=("netflow",))

VARIABLE_LENGTH = {
    "full": "strings of variable length in each record: PaddingCalculationError ends the library's thread",
    "strict": "strings of variable length in options records: the same",
}


PADDED = {"samplingInterval", "samplingAlgorithm"}
"""In NetFlow v9 it takes the padding behind this options record, and what follows it, for one more of them."""


def ipv4(number: int) -> str:
    return str(IPv4Address(number))


def ipv6(number: int) -> str:
    return str(IPv6Address(number))


def mac(number: int) -> str:
    return number.to_bytes(6, "big").hex(":")


def nanoseconds(milliseconds: int) -> int:
    return milliseconds * 1_000_000


READ = {
    **dict.fromkeys(("sourceIPv4Address", "destinationIPv4Address", "ipNextHopIPv4Address"), ipv4),
    **dict.fromkeys(("sourceIPv6Address", "destinationIPv6Address"), ipv6),
    **dict.fromkeys(("sourceMacAddress", "destinationMacAddress"), mac),
    **dict.fromkeys(("flowStartMilliseconds", "flowEndMilliseconds"), nanoseconds),
}
NETFLOW9 = {name: CISCO[name] for name in elements("netflow9", "full")}
NETFLOW5 = {
    **{name: CISCO[name] for name in elements("netflow5") & CISCO.keys()},
    "sourceTransportPort": "SRC_PORT",
    "destinationTransportPort": "DST_PORT",
    "protocolIdentifier": "PROTO",
    "ingressInterface": "INPUT",
    "egressInterface": "OUTPUT",
    "ipClassOfService": "TOS",
    "octetDeltaCount": "IN_OCTETS",
    "packetDeltaCount": "IN_PACKETS",
    "ipNextHopIPv4Address": "NEXT_HOP",
    "bgpSourceAsNumber": "SRC_AS",
    "bgpDestinationAsNumber": "DST_AS",
    "sourceIPv4PrefixLength": "SRC_MASK",
    "destinationIPv4PrefixLength": "DST_MASK",
}
NO_ADDRESS = {name: read for name, read in READ.items() if "IP" not in name}  # v9: it makes text of addresses itself
COLUMNS: dict[str, Columns] = {
    "ipfix": {name: element(name, READ.get(name, int)) for name in elements("ipfix", "default")},
    "netflow9": {
        field: element(name, NO_ADDRESS.get(name, str if "Address" in name else int))
        for name, field in NETFLOW9.items()
    },
    "netflow5": {field: element(name, READ.get(name, int)) for name, field in NETFLOW5.items()},
}
SOURCES = {
    "ipfix": ("sourceIPv4Address", "sourceIPv6Address"),
    "netflow9": ("IPV4_SRC_ADDR", "IPV6_SRC_ADDR"),
    "netflow5": ("IPV4_SRC_ADDR",),
}
NOT_SHOWN = {"netflow5": {"paddingOctets": "skipped"}}


def text(value: Any) -> Any:
    """A string of fixed length: NetFlow v9's as one number, IPFIX's with its NULs."""
    if isinstance(value, int):
        value = value.to_bytes(64, "big").strip(b"\0").decode()
    return value.rstrip("\0")


def options(record: Mapping[str, Any]) -> dict[str, Any]:
    names = {field: name for name, field in CISCO.items()}
    found = {names.get(field, field): value for field, value in record.items()}
    found.update({name: text(found[name]) for name in ("interfaceName", "interfaceDescription") if name in found})
    return {name: value for name, value in found.items() if name not in {"observationDomainId", "System"}}


@pytest.mark.parametrize("stream", streams("netflow"), ids="-".join)
def test_every_field(exchange: Exchange, stream: Stream) -> None:
    errors = exchange.said["netflow", stream]
    if stream.protocol == "ipfix" and stream.template in VARIABLE_LENGTH:
        assert set(errors) == {"PaddingCalculationError()"}
        return
    sources = SOURCES[stream.protocol]
    records = [with_times(line, "FIRST_SWITCHED", "LAST_SWITCHED") for line in exchange.shown["netflow", stream]]
    shown = []
    for record in records:
        for name in set(sources) & record.keys():
            address = record[name]
            version = ipv6 if "6" in name.replace("IPv4", "") else ipv4
            shown.append((address if isinstance(address, str) else version(address), record))
    exchange.check("netflow", stream, shown, COLUMNS[stream.protocol], NOT_SHOWN.get(stream.protocol, ()))
    flows = [record for _, record in shown]
    if stream.protocol != "netflow5":
        about = [options(record) for record in records if record not in flows]
        if stream.protocol == "netflow9" and about:
            _, surplus = (record for record in about if record.keys() == PADDED)
            about.remove(surplus)
        exchange.check_options(stream, about)
    assert errors == []
