"""libfixbuf's strict reader, each template over TCP, and over TLS and from a file: every element is as sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Callable

import pytest

from lab.certificates import Authority
from lab.namespaces import Lab
from lab.streams import StoredStream, TlsIpfixDump
from tests.e2e.exchange import Exchange, Stream, streams
from tests.e2e.interop import (
    Columns,
    as_it_is,
    carried,
    differences,
    element,
    elements,
    moment,
    not_compared,
    observe,
    templates,
    totals,
)
from tests.e2e.test_tls import tls

pytestmark = pytest.mark.e2e(tools=("make", "socat", "ipfixDump", "openssl", "tcpdump"))

ADDRESSES = ("sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address")
MACS = ("sourceMacAddress", "destinationMacAddress")
STRINGS = ("interfaceName", "interfaceDescription")
TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")
SENT = elements("ipfix", "full")


def nanoseconds(text: str) -> int:
    """UTC in milliseconds, as ipfixDump prints it, in ns since 1970."""
    at = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    return round(at.timestamp() * 1000) * 1_000_000


def address(text: str) -> str:
    """ipfixDump writes zeros that others leave out."""
    return str(ip_address(text))


def string(text: str) -> str:
    """Behind the length, in octets."""
    found = re.fullmatch(r"\(len: (\d+)\) (.*)", text)
    assert found
    assert len(found[2].encode()) == int(found[1])
    return found[2]


COLUMNS: Columns = {
    **{name: element(name, int) for name in SENT - {*ADDRESSES, *MACS, *STRINGS, *TIMES}},
    **{name: element(name, address) for name in ADDRESSES},
    **{name: element(name) for name in MACS},
    **{name: element(name, string) for name in STRINGS},
    **{name: element(name, nanoseconds) for name in TIMES},
}


def by_source(records: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Those that are flows."""
    return [(address(record[name]), record) for record in records for name in ADDRESSES[::2] if name in record]


OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "sourceMacAddress": as_it_is,
    "samplingProbability": float,
    **dict.fromkeys(STRINGS, lambda text: re.sub(r"^\(len: \d+\) ", "", text)),
}


def options(record: Mapping[str, str]) -> dict[str, Any]:
    """Strings of fixed length come without their NULs."""
    return {name: OPTIONS.get(name, int)(value) for name, value in record.items() if name != "observationDomainId"}


@pytest.mark.parametrize("stream", streams("ipfixdump"), ids="-".join)
def test_every_field(exchange: Exchange, stream: Stream) -> None:
    shown = exchange.shown["ipfixdump", stream]
    exchange.check("ipfixdump", stream, by_source(shown), COLUMNS)
    exchange.check_options(stream, [options(record) for record in shown if "packetDeltaCount" not in record])
    faults, (_, records, known) = exchange.said["ipfixdump", stream]
    assert faults == []
    assert records == len(shown)
    assert known >= len(templates("ipfix", stream.template))


@pytest.mark.parametrize("kind", ["tls", "file"])
def test_another_way_of_reading(lab: Lab, tmp_path: Path, kind: str) -> None:
    near, far = lab.pair()
    authority = Authority(tmp_path)
    collector = tls(authority, authority.issue("exporter")) if kind == "tls" else {"transport": "tcp"}
    reader = (
        TlsIpfixDump(lab, far.ns, tmp_path, authority.issue("collector", "IP:127.0.0.1"), authority.ca)
        if kind == "tls"
        else StoredStream(lab, far.ns, tmp_path)
    )
    with reader as dump:
        run = observe(lab, near, far, tmp_path, collector)
        assert dump.faults() == []
        records = dump.records()
    sent = elements("ipfix")
    columns = {name: COLUMNS[name] for name in sent}
    columns.update({name: moment(name, nanoseconds) for name in TIMES})
    flows = [carried(flow, "ipfix", "default") for flow in run.flows]
    assert differences(flows, by_source(records), columns) == []
    assert not_compared(sent, columns) == set()
    assert run.account.sent["127.0.0.1"] == totals(run.flows)
