"""The PyPI package ipfix, over TCP, and its reader of NetFlow v9: every element is what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Callable

import pytest

from tests.e2e.exchange import Exchange, Stream, streams
from tests.e2e.interop import Columns, as_it_is, element, elements, with_times

pytestmark = pytest.mark.e2e(tools=("make", "tcpdump"), decoders=("ipfix",))

NAMES = elements("ipfix", "full") | elements("netflow9", "full")
MACS = ("sourceMacAddress", "destinationMacAddress")
TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")
SYS_UPTIME = ("flowStartSysUpTime", "flowEndSysUpTime")
PADDED = "ValueError('bad template ID 0')"
"""It takes the padding of an Options Template FlowSet (RFC 3954, 6.1) for one more Template, and gives up."""


def mac(text: str) -> str:
    return bytes.fromhex(text).hex(":")


def text(padded: str) -> str:
    return padded.rstrip("\0")


def nanoseconds(text: str) -> int:
    """UTC, in ns since 1970."""
    return round(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000) * 1_000_000


COLUMNS: Columns = {
    **{name: element(name) for name in NAMES},
    **{name: element(name, mac) for name in MACS},
    **{name: element(name, nanoseconds) for name in TIMES},
}


def options(record: Mapping[str, Any]) -> dict[str, Any]:
    """NULs behind strings of fixed length are left to its user."""
    read: Mapping[str, Callable[[Any], Any]] = {
        **dict.fromkeys(MACS, mac),
        **dict.fromkeys(("interfaceName", "interfaceDescription"), text),
    }
    values = {name: read.get(name, as_it_is)(value) for name, value in record.items()}
    return {name: value for name, value in values.items() if name != "observationDomainId"}


@pytest.mark.parametrize("stream", streams("ipfix"), ids="-".join)
def test_every_field(exchange: Exchange, stream: Stream) -> None:
    errors = exchange.said["ipfix", stream]
    if stream.protocol == "netflow9" and exchange.options["netflow9", stream.options]:
        assert errors == [PADDED]
        return
    records = [with_times(line, *SYS_UPTIME) for line in exchange.shown["ipfix", stream]]
    flows = [record for record in records if "packetDeltaCount" in record]
    shown = [(flow.get("sourceIPv4Address") or flow["sourceIPv6Address"], flow) for flow in flows]
    exchange.check("ipfix", stream, shown, COLUMNS)
    exchange.check_options(stream, [options(record) for record in records if record not in flows])
    assert errors == []
