"""nfcapd and nfdump: every element of the default template that nfdump shows is what was sent."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conversations import Flow
from tests.e2e.interop import (
    ABSENT,
    ANYTHING,
    Columns,
    Shows,
    always,
    differences,
    element,
    moment,
    not_compared,
    observe,
    only_ipv4,
    options_messages,
    totals,
)
from tests.e2e.test_exact import like_ethernet
from tests.lab.collectors import Nfcapd, Tshark
from tests.lab.namespaces import Lab

pytestmark = pytest.mark.e2e(tools=("make", "nfcapd", "nfdump", "tcpdump", "tshark"))

ICMP = (1, 58)
COMPLAINTS = re.compile(
    r"sequence|template|length|size|bytes|error|warn|corrupt|unexpected|invalid|skip", re.IGNORECASE
)
# Of an interface's options record nfcapd 1.7.1 reads the description, and says that the name's 16 octets are left.
HARMLESS = re.compile(r"^(Ident: |Init (v9|IPFIX): Max number of |Process? ifvrf data record - 16 extra bytes$)|^$")


def milliseconds(text: str) -> int:
    """Local time, as nfdump prints it, in ns since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1000) * 1_000_000


def flags(flow: Flow) -> Any:
    if flow["protocolIdentifier"] in ICMP:
        return ABSENT
    return "".join(name if flow["tcpControlBits"] >> bit & 1 else "." for bit, name in enumerate("FSRPAUEC"))[::-1]


def port(name: str) -> Shows:
    return Shows(name, lambda flow: ABSENT if flow["protocolIdentifier"] in ICMP else flow[name])


def icmp(elements: str, part: str) -> Shows:
    """nfdump shows the type and the code of ICMP in place of the ports."""

    def expected(flow: Flow) -> Any:
        if flow["protocolIdentifier"] not in ICMP:
            return ABSENT
        return divmod(flow["destinationTransportPort"], 256)[part == "code"]

    return Shows(elements, expected)


COMMON: Columns = {
    "src4_addr": element("sourceIPv4Address"),
    "dst4_addr": element("destinationIPv4Address"),
    "proto": element("protocolIdentifier"),
    "src_port": port("sourceTransportPort"),
    "dst_port": port("destinationTransportPort"),
    "src_tos": element("ipClassOfService"),
    "tcp_flags": Shows("tcpControlBits", flags),
    "input_snmp": element("ingressInterface"),
    "output_snmp": element("egressInterface"),
    "in_packets": element("packetDeltaCount"),
    "in_bytes": element("octetDeltaCount"),
    # What nfdump shows by itself.
    "type": always("FLOW"),
    "export_sysid": always(1),
    "received": ANYTHING,
    **dict.fromkeys(("src_mask", "dst_mask", "fwd_status", "dst_tos"), always(0)),
    **dict.fromkeys(("src_net", "dst_net"), always("")),
    "ip4_router": always("127.0.0.1"),
    "label": always("<none>"),
}
TEMPLATED: Columns = {
    **COMMON,
    "sampled": always(1),  # at a known rate, 1 in 1: the counts are as they were sent
    "src6_addr": element("sourceIPv6Address"),
    "dst6_addr": element("destinationIPv6Address"),
    "direction": element("flowDirection"),
    "in_src_mac": element("sourceMacAddress"),
    "in_dst_mac": element("destinationMacAddress"),
    **dict.fromkeys(("out_src_mac", "out_dst_mac"), always("00:00:00:00:00:00")),
    "src_vlan": element("vlanId"),
    "dst_vlan": element("postVlanId"),
}
COLUMNS: dict[str, Columns] = {
    "ipfix": {
        **TEMPLATED,
        "first": moment("flowStartMilliseconds", milliseconds),
        "last": moment("flowEndMilliseconds", milliseconds),
        "icmp_type": icmp("icmpTypeCodeIPv4 icmpTypeCodeIPv6", "type"),
        "icmp_code": icmp("icmpTypeCodeIPv4 icmpTypeCodeIPv6", "code"),
    },
    "netflow9": {
        **TEMPLATED,
        "first": moment("flowStartSysUpTime", milliseconds),
        "last": moment("flowEndSysUpTime", milliseconds),
        "icmp_type": icmp("icmpTypeCodeIPv4", "type"),
        "icmp_code": icmp("icmpTypeCodeIPv4", "code"),
    },
    "netflow5": {
        **COMMON,
        "first": moment("flowStartSysUpTime", milliseconds),
        "last": moment("flowEndSysUpTime", milliseconds),
        "icmp_type": icmp("", "type"),
        "icmp_code": icmp("", "code"),
        "direction": always(0),  # v5 has none
        "sampled": always(0),
    },
}
TTL_AND_LENGTH = ("minimumTTL", "maximumTTL", "minimumIpTotalLength", "maximumIpTotalLength")
NOT_SHOWN = {
    "ipfix": (*TTL_AND_LENGTH, "flowEndReason", "ipVersion", "ethernetType"),
    "netflow9": (*TTL_AND_LENGTH, "ipVersion"),
    "netflow5": (
        *("ipNextHopIPv4Address", "bgpSourceAsNumber", "bgpDestinationAsNumber", "paddingOctets"),
        *("sourceIPv4PrefixLength", "destinationIPv4PrefixLength"),
    ),
}


@pytest.mark.parametrize("protocol", COLUMNS)
def test_every_field(lab: Lab, tmp_path: Path, protocol: str) -> None:
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    with Nfcapd(lab, far.ns, tmp_path) as collector, Tshark(lab, far.ns, tmp_path) as stream:
        run = observe(lab, near, far, tmp_path, {"protocol": protocol})
        shown, summary = collector.flows(), collector.summary()
        options = options_messages(stream.messages(), protocol)
    sent = only_ipv4(run.flows) if protocol == "netflow5" else run.flows
    pairs = [(flow.get("src4_addr") or flow["src6_addr"], flow) for flow in shown]
    assert differences(sent, pairs, COLUMNS[protocol]) == []
    assert not_compared(protocol, COLUMNS[protocol], NOT_SHOWN[protocol]) == set()
    assert run.account.sent["127.0.0.1"] == totals(sent)
    assert run.unencodable() == totals([flow for flow in run.flows if flow not in sent])
    # nfcapd leaves options data out of its own count: it sees a gap in IPFIX's after each Message with some.
    assert summary.sequence_errors <= (options if protocol == "ipfix" else 0)
    assert summary.drops == 0
    assert [line for line in collector.log.splitlines() if COMPLAINTS.search(line) and not HARMLESS.search(line)] == []
    assert "Bad Packets: 0" in collector.log
