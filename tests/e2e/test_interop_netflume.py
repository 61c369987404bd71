"""The PyPI package netflume: every element of IPFIX, NetFlow v9 and v5 is what was sent, and it knows the rate."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.conversations import Flow
from tests.e2e.exchange import Exchange, Stream, streams
from tests.e2e.interop import ANYTHING, Columns, Shows, element

pytestmark = pytest.mark.e2e(tools=("make", "tcpdump"), decoders=("netflume",))

NAMES = {
    "octetDeltaCount": "octets",
    "packetDeltaCount": "packets",
    "protocolIdentifier": "proto",
    "ipClassOfService": "tos",
    "tcpControlBits": "tcp_flags",
    "sourceTransportPort": "src_port",
    "ingressInterface": "in_if",
    "destinationTransportPort": "dst_port",
    "egressInterface": "out_if",
    "minimumIpTotalLength": "ie25",
    "maximumIpTotalLength": "ie26",
    "icmpTypeCodeIPv4": "icmp_type_code",
    "icmpTypeCodeIPv6": "icmp_type_code_v6",
    "samplingInterval": "sampling_interval",
    "samplingAlgorithm": "sampling_algorithm",
    "minimumTTL": "min_ttl",
    "maximumTTL": "max_ttl",
    "sourceMacAddress": "src_mac",
    "vlanId": "vlan",
    "postVlanId": "post_vlan",
    "ipVersion": "ip_version",
    "flowDirection": "direction",
    "destinationMacAddress": "dst_mac",
    "interfaceName": "if_name",
    "interfaceDescription": "if_desc",
    "flowEndReason": "flow_end_reason",
    "observationPointId": "observation_point_id",
    "flowDurationMilliseconds": "ie161",
    "ipDiffServCodePoint": "ie195",
    "ipPrecedence": "ie196",
    "dot1qVlanId": "dot1q_vlan",
    "dot1qPriority": "dot1q_prio",
    "ethernetType": "ethertype",
    "ipNextHopIPv4Address": "next_hop",
    "bgpSourceAsNumber": "src_as",
    "bgpDestinationAsNumber": "dst_as",
    "sourceIPv4PrefixLength": "src_mask",
    "destinationIPv4PrefixLength": "dst_mask",
}
OPTIONS = {
    "exportedOctetTotalCount": "exported_octets",
    "exportedMessageTotalCount": "exported_packets",
    "exportedFlowRecordTotalCount": "exported_flows",
    "exportingProcessId": "ie144",
    "notSentFlowTotalCount": "ie166",
    "notSentPacketTotalCount": "ie167",
    "notSentOctetTotalCount": "ie168",
    "ignoredPacketTotalCount": "ie164",
    "ignoredOctetTotalCount": "ie165",
    "templateId": "template_id",
    "flowKeyIndicator": "ie173",
    "selectorId": "selector_id",
    "selectorAlgorithm": "selector_algorithm",
    "samplingProbability": "ie311",
}
START, END = "flowStartMilliseconds flowStartSysUpTime", "flowEndMilliseconds flowEndSysUpTime"


def nanoseconds(milliseconds: int) -> int:
    return milliseconds * 1_000_000


def from_seconds(seconds: float) -> int:
    return round(seconds * 1000) * 1_000_000


def duration(flow: Flow) -> int:
    start, end = (element(names).expected(flow) for names in (START, END))
    return int(end - start)


COLUMNS: Columns = {
    "src_addr": element("sourceIPv4Address sourceIPv6Address"),
    "dst_addr": element("destinationIPv4Address destinationIPv6Address"),
    "icmp_type": element("icmpTypeIPv4 icmpTypeIPv6"),
    "icmp_code": element("icmpCodeIPv4 icmpCodeIPv6"),
    "flow_start_ms": element("flowStartMilliseconds", nanoseconds),
    "flow_end_ms": element("flowEndMilliseconds", nanoseconds),
    "first_switched": element("flowStartSysUpTime"),
    "last_switched": element("flowEndSysUpTime"),
    **{field: element(name) for name, field in NAMES.items()},
    # What netflume makes of the Data Record, and of the header.
    "_timestamp": element(START, from_seconds),
    "_duration": Shows("", duration, from_seconds),
    "_sampling_rate": Shows("", lambda flow: max(flow["rate"], 1)),
    **dict.fromkeys(("_exporter", "_domain", "_version"), ANYTHING),
}
NOT_SHOWN = {"paddingOctets": "skipped"}


def with_clock(record: Mapping[str, Any]) -> dict[str, Any]:
    """sysUptime in ns since 1970, by the time that netflume found for the start."""
    found = dict(record)
    for name in record.keys() & {"first_switched", "last_switched"}:
        found[name] = from_seconds(record["_timestamp"] + (record[name] - record["first_switched"]) / 1000)
    return found


def options(record: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    names = {field: name for name, field in {**NAMES, **OPTIONS}.items()}
    found = {names.get(field, field): value for field, value in record.items()}
    if "samplingProbability" in found:  # it takes element 311 for an integer
        (found["samplingProbability"],) = struct.unpack(">d", found["samplingProbability"].to_bytes(8, "big"))
    # It takes the scope System of NetFlow v9, number 1, for element 1.
    domain = "octetDeltaCount" if protocol == "netflow9" else "observation_domain_id"
    return {name: value for name, value in found.items() if name != domain}


@pytest.mark.parametrize("stream", streams("netflume"), ids="-".join)
def test_every_field(exchange: Exchange, stream: Stream) -> None:
    records = [line["record"] for line in exchange.shown["netflume", stream]]
    flows = [with_clock(record) for record in records if "_timestamp" in record]
    exchange.check("netflume", stream, [(flow["src_addr"], flow) for flow in flows], COLUMNS, NOT_SHOWN)
    if stream.protocol != "netflow5":
        about = [options(record, stream.protocol) for record in records if "_timestamp" not in record]
        exchange.check_options(stream, about)
    said = exchange.said["netflume", stream]
    assert [event for event in said if not event.startswith(("TemplateLearned(", "SamplingChange("))] == []
