"""tshark's dissector, each protocol, transport and template: every element is what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Callable

import pytest

from tests.e2e.conversations import Flow
from tests.e2e.exchange import Exchange, Stream, flags_octets, streams
from tests.e2e.interop import ABSENT, Columns, Shows, element, sets

pytestmark = pytest.mark.e2e(tools=("make", "tcpdump", "tshark", "nfcapd", "nfdump", "socat", "ipfixDump"))

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


def flag(bit: int) -> Shows:
    """Of the fields below cflow.tcpflags, which tshark has for one octet."""
    return Shows("tcpControlBits", lambda flow: flow["tcpControlBits"] >> bit & 1, int)


def part(elements: str, kind: str) -> Shows:
    """Type or code of ICMP."""

    def expected(flow: Flow) -> Any:
        values = [flow[name] for name in elements.split() if name in flow]
        return divmod(values[0], 256)[kind == "code"] if values else ABSENT

    return Shows(elements, expected, int)


def time(which: str) -> str:
    return f"flow{which}SysUpTime"


def duration(flow: Flow) -> int:
    kind = "Milliseconds" if "flowEndMilliseconds" in flow else "SysUpTime"
    return int(flow[f"flowEnd{kind}"] - flow[f"flowStart{kind}"])


COLUMNS: Columns = {
    "cflow.srcaddr": element("sourceIPv4Address"),
    "cflow.dstaddr": element("destinationIPv4Address"),
    "cflow.srcaddrv6": element("sourceIPv6Address"),
    "cflow.dstaddrv6": element("destinationIPv6Address"),
    "cflow.srcport": number("sourceTransportPort"),
    "cflow.dstport": number("destinationTransportPort"),
    "cflow.protocol": number("protocolIdentifier"),
    "cflow.tos": element("ipClassOfService", hexadecimal),
    "cflow.tcpflags": element("tcpControlBits", hexadecimal),
    "cflow.inputint": number("ingressInterface"),
    "cflow.outputint": number("egressInterface"),
    "cflow.octets": number("octetDeltaCount"),
    "cflow.packets": number("packetDeltaCount"),
    "cflow.timedelta": Shows("flowDurationMilliseconds", duration, since_boot),
    "cflow.sampling_interval": number("samplingInterval"),
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
    "cflow.flow_end_reason": number("flowEndReason"),
    "cflow.ethernet_type": number("ethernetType"),
    "cflow.icmp_type_code_ipv4": element("icmpTypeCodeIPv4", hexadecimal),
    "cflow.icmp_ipv4_type": number("icmpTypeIPv4"),
    "cflow.icmp_ipv4_code": number("icmpCodeIPv4"),
    "cflow.icmp_ipv6_type": part("icmpTypeCodeIPv6 icmpTypeIPv6", "type"),
    "cflow.icmp_ipv6_code": part("icmpTypeCodeIPv6 icmpCodeIPv6", "code"),
    "cflow.ip_dscp": number("ipDiffServCodePoint"),
    "cflow.ip_precedence": number("ipPrecedence"),
    "cflow.dot1q_vlan_id": number("dot1qVlanId"),
    "cflow.dot1q_priority": number("dot1qPriority"),
    "cflow.observation_point_id": number("observationPointId"),
    "cflow.if_name": element("interfaceName"),
    "cflow.if_descr": element("interfaceDescription"),
    "cflow.string_len_short": Shows("", lambda flow: "14" if "interfaceDescription" in flow else ABSENT),
    "cflow.abstimestart": element("flowStartMilliseconds", milliseconds),
    "cflow.abstimeend": element("flowEndMilliseconds", milliseconds),
    "cflow.timestart": element(time("Start"), int),
    "cflow.timeend": element(time("End"), int),
}
FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg")
TCP_FLAGS: Mapping[int, Columns] = {
    1: {
        **{f"cflow.tcpflags.{name}": flag(bit) for bit, name in enumerate(FLAGS)},
        "cflow.tcpflags.reserved": Shows("tcpControlBits", lambda flow: flow["tcpControlBits"] >> 6, hexadecimal),
    },
    2: {
        **{f"cflow.tcpflags.{name}": flag(bit) for bit, name in enumerate((*FLAGS, "ece", "cwr", "ns"))},
        **{f"cflow.tcpflags.{name}": Shows("", lambda _: 0, hexadecimal) for name in ("reserved", "zero")},
    },
}
"""Below cflow.tcpflags, by the octets of the element."""
NETFLOW5: Columns = {
    "cflow.nexthop": element("ipNextHopIPv4Address"),
    "cflow.srcas": number("bgpSourceAsNumber"),
    "cflow.dstas": number("bgpDestinationAsNumber"),
    "cflow.srcmask": number("sourceIPv4PrefixLength"),
    "cflow.dstmask": number("destinationIPv4PrefixLength"),
    "cflow.padding": Shows("paddingOctets", lambda _: ["00", "00:00"]),
}
OPTIONS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "cflow.inputint": ("ingressInterface", int),
    "cflow.if_name": ("interfaceName", str),
    "cflow.if_descr": ("interfaceDescription", str),
    "cflow.srcmac": ("sourceMacAddress", str),
    "cflow.sampling_interval": ("samplingInterval", int),
    "cflow.sampling_algorithm": ("samplingAlgorithm", int),
    "cflow.selector_id": ("selectorId", int),
    "cflow.selector_algorithm": ("selectorAlgorithm", int),
    "cflow.sampling_probability": ("samplingProbability", float),
    "cflow.packetsexp": ("exportedMessageTotalCount", int),
    "cflow.flowsexp": ("exportedFlowRecordTotalCount", int),
    "cflow.octetsexp": ("exportedOctetTotalCount", int),
    "cflow.flow_exporter": ("exportingProcessId", int),
    "cflow.notsent_flows": ("notSentFlowTotalCount", int),
    "cflow.notsent_packets": ("notSentPacketTotalCount", int),
    "cflow.notsent_octets": ("notSentOctetTotalCount", int),
    "cflow.ignore_packets": ("ignoredPacketTotalCount", int),
    "cflow.ignore_octets": ("ignoredOctetTotalCount", int),
    "cflow.template_id": ("templateId", int),
    "cflow.post_key": ("flowKeyIndicator", lambda text: int(text.replace(":", ""), 16)),
}
"""Elements of options records, and how their text is read."""
NO_OPTIONS = {"cflow.od_id", "cflow.scope_system", "cflow.string_len_short"}
VERSIONS = {"netflow5": 5, "netflow9": 9, "ipfix": 10}


def flat(fields: Mapping[str, Any]) -> Fields:
    """With the fields of subtrees (``cflow.tcpflags_tree``) among the others.

    Where two elements have one name (durations, ICMP types) and agree, their value is there once.
    """
    found: Fields = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found.update(flat(value))
        elif name.endswith("_tree"):  # a list of subtrees, "" where there is none
            found.update(flat(dict(enumerate_trees(value))))
        elif isinstance(value, list) and len(set(value)) == 1:
            found[name] = value[0]
        else:
            found[name] = value
    return found


def enumerate_trees(trees: list[Any]) -> Iterator[tuple[str, Any]]:
    yield from ((f"tree {at}", tree) for at, tree in enumerate(trees) if tree)


def options(fields: Fields) -> dict[str, Any]:
    read = {OPTIONS[name]: value for name, value in fields.items() if name not in NO_OPTIONS}
    return {element: make(value) for (element, make), value in read.items()}


def records(messages: list[dict[str, Any]], protocol: str) -> Iterator[Fields]:
    """The Data Records in tshark's Messages; times of sysUptime as ns since 1970."""
    for message in messages:
        header = flat({name: value for name, value in message.items() if name.startswith("cflow.")})
        boot_ns = 0
        if protocol != "ipfix":
            boot_ns = int(header["cflow.unix_secs"]) * 1000 * MS_NS - since_boot(header["cflow.sysuptime"])
        for part in [message] if protocol == "netflow5" else [part for _, part in sets(message)]:
            for fields in (flat(value) for name, value in part.items() if name.startswith(("Flow ", "pdu "))):
                for name in {"cflow.timestart", "cflow.timeend"} & fields.keys():
                    fields[name] = boot_ns + since_boot(fields[name])
                yield fields


@pytest.mark.parametrize("stream", streams("tshark"), ids="-".join)
def test_every_field(exchange: Exchange, stream: Stream) -> None:
    messages, protocol = exchange.shown["tshark", stream], stream.protocol
    columns = {**COLUMNS, **(NETFLOW5 if protocol == "netflow5" else TCP_FLAGS[flags_octets(stream)])}
    found = list(records(messages, protocol))
    flows = [record for record in found if "cflow.packets" in record]
    shown = [(flow.get("cflow.srcaddr") or flow["cflow.srcaddrv6"], flow) for flow in flows]
    exchange.check("tshark", stream, shown, columns)
    if protocol != "netflow5":
        exchange.check_options(stream, [options(record) for record in found if record not in flows])
    assert {int(message["cflow.version"]) for message in messages} == {VERSIONS[protocol]}
    assert exchange.said["tshark", stream] == []
