"""nfcapd and nfdump, each protocol and template: every element that nfdump shows is what was sent."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.conversations import Flow
from tests.e2e.exchange import Exchange, Stream, streams
from tests.e2e.interop import ABSENT, ANYTHING, Columns, Shows, always, element

pytestmark = pytest.mark.e2e(tools=("make", "nfcapd", "nfdump", "tcpdump"))

ICMP = (1, 58)
COMPLAINTS = re.compile(
    r"sequence|template|length|size|bytes|error|warn|corrupt|unexpected|invalid|skip", re.IGNORECASE
)
# Of an interface's options record nfcapd 1.7.1 reads the description, and says that the name's 16 octets are left.
HARMLESS = re.compile(r"^(Ident: |Init (v9|IPFIX): Max number of |Process? ifvrf data record - 16 extra bytes$)|^$")
STRICT = re.compile(r"^Process_ifvrf_option: nbar option size error")
"""nfcapd 1.7.1 reads no strings of variable length in options records, and says so."""


def nanoseconds(text: str) -> int:
    """Local time in milliseconds, as nfdump prints it, in ns since 1970."""
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


def where(name: str, shows: Shows) -> Shows:
    """A field that is shown where the Template has the element ``name``."""
    return Shows(shows.elements, lambda flow: shows.expected(flow) if name in flow else ABSENT, shows.read)


ICMP_ELEMENTS = "icmpTypeCodeIPv4 icmpTypeCodeIPv6 icmpTypeIPv4 icmpCodeIPv4 icmpTypeIPv6 icmpCodeIPv6"
COLUMNS: Columns = {
    "src4_addr": element("sourceIPv4Address"),
    "dst4_addr": element("destinationIPv4Address"),
    "src6_addr": element("sourceIPv6Address"),
    "dst6_addr": element("destinationIPv6Address"),
    "proto": element("protocolIdentifier"),
    "src_port": port("sourceTransportPort"),
    "dst_port": port("destinationTransportPort"),
    "src_tos": element("ipClassOfService"),
    "tcp_flags": Shows("tcpControlBits", flags),
    "input_snmp": element("ingressInterface"),
    "output_snmp": element("egressInterface"),
    "in_packets": element("packetDeltaCount"),
    "in_bytes": element("octetDeltaCount"),
    "first": element("flowStartMilliseconds flowStartSysUpTime", nanoseconds),
    "last": element("flowEndMilliseconds flowEndSysUpTime", nanoseconds),
    "icmp_type": icmp(ICMP_ELEMENTS, "type"),
    "icmp_code": icmp(ICMP_ELEMENTS, "code"),
    "direction": element("flowDirection", otherwise=0),
    "in_src_mac": element("sourceMacAddress"),
    "in_dst_mac": element("destinationMacAddress"),
    **dict.fromkeys(("out_src_mac", "out_dst_mac"), where("sourceMacAddress", always("00:00:00:00:00:00"))),
    "src_vlan": element("vlanId"),
    "dst_vlan": element("postVlanId"),
    "observationPointID": element("observationPointId"),
    "observationDoaminID": where("observationPointId", ANYTHING),
    # What nfdump shows by itself.
    "type": always("FLOW"),
    "sampled": Shows("", lambda flow: int(flow["rate"] > 0)),
    "export_sysid": always(1),
    "received": ANYTHING,
    **dict.fromkeys(("src_mask", "dst_mask", "fwd_status", "dst_tos"), always(0)),
    **dict.fromkeys(("src_net", "dst_net"), always("")),
    "ip4_router": always("127.0.0.1"),
    "label": always("<none>"),
}
NOT_SHOWN = {
    "samplingInterval": "the counts are scaled by it",
    **dict.fromkeys(("minimumTTL", "maximumTTL"), "nfdump 1.7.1 has no place for them"),
    **dict.fromkeys(("minimumIpTotalLength", "maximumIpTotalLength"), "nfdump 1.7.1 has no place for them"),
    **dict.fromkeys(("flowEndReason", "ipVersion", "ethernetType"), "read over, or told from the addresses"),
    **dict.fromkeys(("ipDiffServCodePoint", "ipPrecedence"), "nfdump shows the whole octet"),
    **dict.fromkeys(("dot1qVlanId", "dot1qPriority"), "nfdump 1.7.1 takes vlanId and postVlanId only"),
    "flowDurationMilliseconds": "nfdump shows start and end",
    **dict.fromkeys(("interfaceName", "interfaceDescription"), "in options records only"),
    **dict.fromkeys(("ipNextHopIPv4Address", "bgpSourceAsNumber", "bgpDestinationAsNumber"), "0, and not in its JSON"),
    **dict.fromkeys(("sourceIPv4PrefixLength", "destinationIPv4PrefixLength", "paddingOctets"), "0"),
}


@pytest.mark.parametrize("stream", streams("nfdump"), ids="-".join)
def test_every_field(exchange: Exchange, stream: Stream) -> None:
    shown = exchange.shown["nfdump", stream]
    pairs = [(flow.get("src4_addr") or flow["src6_addr"], flow) for flow in shown]
    exchange.check("nfdump", stream, pairs, COLUMNS, NOT_SHOWN, scales=True)
    summary, log = exchange.said["nfdump", stream]
    # nfcapd leaves options data out of its own count: it sees a gap in IPFIX's after each Message with some.
    assert summary.sequence_errors <= (1 if stream.protocol == "ipfix" else 0)
    assert summary.drops == 0
    harmless = [HARMLESS, STRICT] if stream.template == "strict" else [HARMLESS]
    complaints = [line for line in log.splitlines() if COMPLAINTS.search(line)]
    assert [line for line in complaints if not any(pattern.search(line) for pattern in harmless)] == []
    assert "Bad Packets: 0" in log
