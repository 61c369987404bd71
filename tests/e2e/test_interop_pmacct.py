"""pmacct's nfacctd: every element of the default template, by its primitives or as custom ones, is what was sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conversations import Flow
from tests.e2e.interop import (
    TIME_TOLERANCE_NS,
    Columns,
    Shows,
    always,
    differences,
    element,
    moment,
    not_compared,
    observe,
    only_ipv4,
    templates,
    totals,
)
from tests.e2e.test_exact import like_ethernet
from tests.lab.collectors import Nfacctd
from tests.lab.namespaces import Lab

pytestmark = pytest.mark.e2e(tools=("make", "nfacctd", "tcpdump", "tshark"))

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp"}
SECOND_NS = 1_000_000_000
CUSTOM = (
    *("flowDirection", "flowEndReason", "ipVersion", "ethernetType", "vlanId", "postVlanId", "minimumTTL"),
    *("maximumTTL", "minimumIpTotalLength", "maximumIpTotalLength", "icmpTypeCodeIPv4", "icmpTypeCodeIPv6"),
)
"""Elements that pmacct has no primitive for, or uses in another one."""


def nanoseconds(text: str) -> int:
    seconds, _, microseconds = text.partition(".")
    return int(seconds) * SECOND_NS + int(microseconds) * 1000


def custom(name: str) -> Shows:
    """0 where the flow does not have the element."""
    return Shows(name, lambda flow: flow.get(name, 0), int)


def address(kind: str) -> Shows:
    names = f"{kind}IPv4Address {kind}IPv6Address"
    return Shows(names, lambda flow: next(flow[name] for name in names.split() if name in flow))


COMMON: Columns = {
    "ip_src": address("source"),
    "ip_dst": address("destination"),
    "port_src": element("sourceTransportPort"),
    "port_dst": element("destinationTransportPort"),
    "ip_proto": Shows("protocolIdentifier", lambda flow: PROTOCOLS[flow["protocolIdentifier"]]),
    "tos": element("ipClassOfService"),
    "tcp_flags": element("tcpControlBits", int),
    "iface_in": element("ingressInterface"),
    "iface_out": element("egressInterface"),
    "packets": element("packetDeltaCount"),
    "bytes": element("octetDeltaCount"),
    "etype": Shows("ethernetType", lambda flow: f"{flow['ethernetType']:x}"),
    "event_type": always("purge"),
}
TEMPLATED: Columns = {
    **COMMON,
    "mac_src": element("sourceMacAddress"),
    "mac_dst": element("destinationMacAddress"),
    "vlan": Shows("vlanId postVlanId", lambda flow: flow["vlanId"] or flow["postVlanId"]),
}
WHOLE_SECONDS: Columns = {
    "timestamp_start": moment("flowStartSysUpTime", nanoseconds, SECOND_NS + TIME_TOLERANCE_NS),
    "timestamp_end": moment("flowEndSysUpTime", nanoseconds, SECOND_NS + TIME_TOLERANCE_NS),
}
"""pmacct cuts the milliseconds of sysUptime off."""
COLUMNS: dict[str, Columns] = {
    "ipfix": {
        **TEMPLATED,
        "timestamp_start": moment("flowStartMilliseconds", nanoseconds),
        "timestamp_end": moment("flowEndMilliseconds", nanoseconds),
    },
    "netflow9": {**TEMPLATED, **WHOLE_SECONDS, "etype": Shows("", COMMON["etype"].expected)},
    "netflow5": {
        **COMMON,
        **WHOLE_SECONDS,
        "etype": Shows("", COMMON["etype"].expected),
        **dict.fromkeys(("mac_src", "mac_dst"), always("00:00:00:00:00:00")),
        "vlan": always(0),
    },
}
NOT_SHOWN = {
    "netflow5": (
        *("ipNextHopIPv4Address", "bgpSourceAsNumber", "bgpDestinationAsNumber", "paddingOctets"),
        *("sourceIPv4PrefixLength", "destinationIPv4PrefixLength"),
    ),
}


def icmp_of_both_families(flow: Flow) -> int:
    return int(flow["destinationTransportPort"] if flow["protocolIdentifier"] in {1, 58} else 0)


@pytest.mark.parametrize("protocol", COLUMNS)
def test_every_field(lab: Lab, tmp_path: Path, protocol: str) -> None:
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    fields = {field.element.name: field for template in templates(protocol) for field in template.fields}
    elements = {name: (fields[name].element.id, fields[name].octets) for name in CUSTOM if name in fields}
    columns = {**COLUMNS[protocol], **{name.lower(): custom(name) for name in elements}}
    if protocol == "netflow9":
        columns["icmptypecodeipv4"] = Shows("icmpTypeCodeIPv4", icmp_of_both_families, int)
    with Nfacctd(lab, far.ns, tmp_path, elements=elements) as collector:
        run = observe(lab, near, far, tmp_path, {"protocol": protocol})
        sent = only_ipv4(run.flows) if protocol == "netflow5" else run.flows
        shown = collector.flows(len(sent))
    assert differences(sent, [(flow["ip_src"], flow) for flow in shown], columns) == []
    assert not_compared(protocol, columns, NOT_SHOWN.get(protocol, ())) == set()
    assert run.account.sent["127.0.0.1"] == totals(sent)
    assert run.unencodable() == totals([flow for flow in run.flows if flow not in sent])
    assert collector.warnings() == []
