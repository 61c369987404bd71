"""libfixbuf's strict reader, over TCP, over TLS and from a file: every element of the default template is as sent."""

from __future__ import annotations

from datetime import datetime, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.e2e.interop import Columns, differences, element, moment, not_compared, observe, templates, totals
from tests.e2e.test_tls import tls
from tests.lab.certificates import Authority
from tests.lab.collectors import IpfixDump
from tests.lab.namespaces import Lab
from tests.lab.streams import StoredStream, TlsIpfixDump

pytestmark = pytest.mark.e2e(tools=("make", "socat", "ipfixDump", "openssl", "tcpdump", "tshark"))

NUMBERS = (
    *("sourceTransportPort", "destinationTransportPort", "protocolIdentifier", "ipClassOfService", "tcpControlBits"),
    *("ingressInterface", "egressInterface", "flowDirection", "octetDeltaCount", "packetDeltaCount", "flowEndReason"),
    *("ipVersion", "ethernetType", "vlanId", "postVlanId", "minimumTTL", "maximumTTL", "minimumIpTotalLength"),
    *("maximumIpTotalLength", "icmpTypeCodeIPv4", "icmpTypeCodeIPv6"),
)
ADDRESSES = ("sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address")
MACS = ("sourceMacAddress", "destinationMacAddress")
TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")


def milliseconds(text: str) -> int:
    """UTC, as ipfixDump prints it, in ns since 1970."""
    at = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    return round(at.timestamp() * 1000) * 1_000_000


def address(text: str) -> str:
    """ipfixDump writes zeros that others leave out."""
    return str(ip_address(text))


COLUMNS: Columns = {
    **{name: element(name, int) for name in NUMBERS},
    **{name: element(name, address) for name in ADDRESSES},
    **{name: element(name) for name in MACS},
    **{name: moment(name, milliseconds) for name in TIMES},
}


def reader(kind: str, lab: Lab, ns: str, directory: Path, authority: Authority) -> IpfixDump:
    if kind == "tls":
        return TlsIpfixDump(lab, ns, directory, authority.issue("collector", "IP:127.0.0.1"), authority.ca)
    return (StoredStream if kind == "file" else IpfixDump)(lab, ns, directory)


@pytest.mark.parametrize("kind", ["tcp", "tls", "file"])
def test_every_field(lab: Lab, tmp_path: Path, kind: str) -> None:
    near, far = lab.pair()
    authority = Authority(tmp_path)
    collector = tls(authority, authority.issue("exporter")) if kind == "tls" else {"transport": "tcp"}
    with reader(kind, lab, far.ns, tmp_path, authority) as dump:
        run = observe(lab, near, far, tmp_path, collector)
        assert dump.faults() == []
        records, stats = dump.records(), dump.stats()
    shown = [(address(record[name]), record) for record in records for name in ADDRESSES[::2] if name in record]
    assert differences(run.flows, shown, COLUMNS) == []
    assert not_compared("ipfix", COLUMNS) == set()
    assert run.account.sent["127.0.0.1"] == totals(run.flows)
    assert stats[1] >= len(run.flows)  # and options
    assert stats[2] >= len(templates("ipfix"))
