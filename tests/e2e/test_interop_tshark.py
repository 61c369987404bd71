"""tshark's dissector, for each protocol and transport: every element of the default template is what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conversations import Flow
from tests.e2e.daemon import Table
from tests.e2e.interop import (
    ABSENT,
    TIME_TOLERANCE_NS,
    Columns,
    Shows,
    differences,
    element,
    flow_set_ids,
    moment,
    not_compared,
    observe,
    only_ipv4,
    sets,
    totals,
)
from tests.e2e.test_exact import like_ethernet
from tests.lab.collectors import IpfixDump, Tshark, UdpSink
from tests.lab.namespaces import Lab

pytestmark = pytest.mark.e2e(tools=("make", "tcpdump", "tshark", "socat", "ipfixDump"))

MS_NS = 1_000_000
Fields = dict[str, Any]


def hexadecimal(text: str) -> int:
    return int(text, 16)


def milliseconds(text: str) -> int:
    """A time of day as tshark prints it, in ns since 1970."""
    at = datetime.strptime(text.replace("000 UTC", "Z"), "%b %d, %Y %H:%M:%S.%f%z")
    return round(at.timestamp() * 1000) * MS_NS


def since_boot(text: str) -> int:
    return round(float(text) * 1000) * MS_NS


def number(name: str) -> Shows:
    return element(name, int)


def flag(name: str) -> Shows:
    return Shows("tcpControlBits", lambda flow: flow["tcpControlBits"] >> "FSRPAU".index(name) & 1, int)


def icmp6(part: str) -> Shows:
    def expected(flow: Flow) -> Any:
        return divmod(flow.get("icmpTypeCodeIPv6", 0), 256)[part == "code"] if flow["ipVersion"] == 6 else ABSENT

    return Shows("icmpTypeCodeIPv6", expected, int)


def duration(flow: Flow) -> int:
    return int(flow["flowEndMilliseconds"] - flow["flowStartMilliseconds"])


COMMON: Columns = {
    "cflow.srcaddr": element("sourceIPv4Address"),
    "cflow.dstaddr": element("destinationIPv4Address"),
    "cflow.srcport": number("sourceTransportPort"),
    "cflow.dstport": number("destinationTransportPort"),
    "cflow.protocol": number("protocolIdentifier"),
    "cflow.tos": element("ipClassOfService", hexadecimal),
    "cflow.tcpflags": element("tcpControlBits", hexadecimal),
    "cflow.inputint": number("ingressInterface"),
    "cflow.outputint": number("egressInterface"),
    "cflow.octets": number("octetDeltaCount"),
    "cflow.packets": number("packetDeltaCount"),
    "cflow.timedelta": Shows("", duration, since_boot, 2 * TIME_TOLERANCE_NS),
}
TEMPLATED: Columns = {
    **COMMON,
    "cflow.srcaddrv6": element("sourceIPv6Address"),
    "cflow.dstaddrv6": element("destinationIPv6Address"),
    **{f"cflow.tcpflags.{name}": flag(name[0].upper()) for name in ("urg", "ack", "psh", "rst", "syn", "fin")},
    "cflow.tcpflags.reserved": Shows("tcpControlBits", lambda flow: flow["tcpControlBits"] >> 6, hexadecimal),
    "cflow.direction": number("flowDirection"),
    "cflow.ip_version": number("ipVersion"),
    "cflow.srcmac": element("sourceMacAddress"),
    "cflow.dstmac": element("destinationMacAddress"),
    "cflow.vlanid": number("vlanId"),
    "cflow.post_vlanid": number("postVlanId"),
    "cflow.ttl_min": number("minimumTTL"),
    "cflow.ttl_max": number("maximumTTL"),
    "cflow.length_min": number("minimumIpTotalLength"),
    "cflow.length_max": number("maximumIpTotalLength"),
}
SYS_UPTIME: Columns = {  # ``flows`` adds the time when the exporter began
    "cflow.timestart": moment("flowStartSysUpTime", int),
    "cflow.timeend": moment("flowEndSysUpTime", int),
}
COLUMNS: dict[str, Columns] = {
    "ipfix": {
        **TEMPLATED,
        "cflow.abstimestart": moment("flowStartMilliseconds", milliseconds),
        "cflow.abstimeend": moment("flowEndMilliseconds", milliseconds),
        "cflow.flow_end_reason": number("flowEndReason"),
        "cflow.ethernet_type": number("ethernetType"),
        "cflow.icmp_type_code_ipv4": element("icmpTypeCodeIPv4", hexadecimal),
        "cflow.icmp_ipv6_type": icmp6("type"),
        "cflow.icmp_ipv6_code": icmp6("code"),
    },
    "netflow9": {
        **TEMPLATED,
        **SYS_UPTIME,
        "cflow.icmp_type_code_ipv4": Shows(
            "icmpTypeCodeIPv4", lambda flow: flow.get("icmpTypeCodeIPv4", flow.get("icmpTypeCodeIPv6")), hexadecimal
        ),
    },
    "netflow5": {
        **COMMON,
        **SYS_UPTIME,
        "cflow.nexthop": Shows("ipNextHopIPv4Address", lambda _: "0.0.0.0"),
        "cflow.srcas": Shows("bgpSourceAsNumber", lambda _: "0"),
        "cflow.dstas": Shows("bgpDestinationAsNumber", lambda _: "0"),
        "cflow.srcmask": Shows("sourceIPv4PrefixLength", lambda _: "0"),
        "cflow.dstmask": Shows("destinationIPv4PrefixLength", lambda _: "0"),
        "cflow.padding": Shows("paddingOctets", lambda _: ["00", "00:00"]),
    },
}
VERSIONS = {"netflow5": 5, "netflow9": 9, "ipfix": 10}


def flat(fields: Mapping[str, Any]) -> Fields:
    """With the fields of subtrees (``cflow.tcpflags_tree``) among the others."""
    found: Fields = {}
    for name, value in fields.items():
        found.update(flat(value) if isinstance(value, dict) else {name: value})
    return found


def flows(messages: list[dict[str, Any]], protocol: str) -> Iterator[Fields]:
    """The flows in tshark's Messages, options data left out; times of sysUptime as ns since 1970."""
    for message in messages:
        header = flat({name: value for name, value in message.items() if name.startswith("cflow.")})
        parts = [part for set_id, part in sets(message) if set_id in flow_set_ids(protocol)]
        boot_ns = 0
        if protocol != "ipfix":
            boot_ns = int(header["cflow.unix_secs"]) * 1000 * MS_NS - since_boot(header["cflow.sysuptime"])
        for part in [message] if protocol == "netflow5" else parts:
            for fields in (flat(value) for name, value in part.items() if name.startswith(("Flow ", "pdu "))):
                for name in SYS_UPTIME.keys() & fields.keys():
                    fields[name] = boot_ns + since_boot(fields[name])
                yield fields


@pytest.mark.parametrize(
    ("protocol", "transport"), [("netflow5", "udp"), ("netflow9", "udp"), ("ipfix", "udp"), ("ipfix", "tcp")]
)
def test_every_field(lab: Lab, tmp_path: Path, protocol: str, transport: str) -> None:
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    collector: Table = {"protocol": protocol, "transport": transport}
    receiver = UdpSink(far.ns) if transport == "udp" else IpfixDump(lab, far.ns, tmp_path)
    with receiver, Tshark(lab, far.ns, tmp_path, transport=transport) as stream:
        run = observe(lab, near, far, tmp_path, collector)
        assert stream.experts() == []
        messages = stream.messages()
    sent = only_ipv4(run.flows) if protocol == "netflow5" else run.flows
    shown = [(fields.get("cflow.srcaddr") or fields["cflow.srcaddrv6"], fields) for fields in flows(messages, protocol)]
    assert differences(sent, shown, COLUMNS[protocol]) == []
    assert not_compared(protocol, COLUMNS[protocol]) == set()
    assert {int(message["cflow.version"]) for message in messages} == {VERSIONS[protocol]}
    assert run.account.sent["127.0.0.1"] == totals(sent)
    assert run.unencodable() == totals([flow for flow in run.flows if flow not in sent])
