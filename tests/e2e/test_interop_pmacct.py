"""pmacct's nfacctd, each protocol and template: every element, by its primitives or as custom ones, is as sent."""

from __future__ import annotations

import pytest

from tests.e2e.conversations import Flow
from tests.e2e.exchange import Exchange, Stream, custom_elements, flags_octets, streams
from tests.e2e.interop import Columns, Shows, always, element

pytestmark = pytest.mark.e2e(tools=("make", "nfacctd", "tcpdump"))

PROTOCOLS = {1: "icmp", 4: "ipencap", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp",
             59: "ipv6-nonxt", 112: "vrrp", 132: "sctp"}  # fmt: skip
SECOND_NS = 1_000_000_000


def nanoseconds(text: str) -> int:
    seconds, _, microseconds = text.partition(".")
    return int(seconds) * SECOND_NS + int(microseconds) * 1000


def time(which: str) -> Shows:
    """pmacct counts whole seconds back from the header's time, so that times of sysUptime are rounded up."""
    ipfix, netflow = f"flow{which}Milliseconds", f"flow{which}SysUpTime"

    def expected(flow: Flow) -> int:
        return int(flow[ipfix] if ipfix in flow else -(-flow[netflow] // SECOND_NS) * SECOND_NS)

    return Shows(f"{ipfix} {netflow}", expected, nanoseconds)


NO_MAC = "00:00:00:00:00:00"
COLUMNS: Columns = {
    "ip_src": element("sourceIPv4Address sourceIPv6Address"),
    "ip_dst": element("destinationIPv4Address destinationIPv6Address"),
    "port_src": element("sourceTransportPort"),
    "port_dst": element("destinationTransportPort"),
    "ip_proto": Shows(
        "protocolIdentifier", lambda flow: PROTOCOLS.get(flow["protocolIdentifier"], str(flow["protocolIdentifier"]))
    ),
    "tos": element("ipClassOfService"),
    "tcp_flags": element("tcpControlBits", int),
    "iface_in": element("ingressInterface"),
    "iface_out": element("egressInterface"),
    "packets": element("packetDeltaCount"),
    "bytes": element("octetDeltaCount"),
    "etype": Shows("ethernetType", lambda flow: "800" if "sourceIPv4Address" in flow else "86dd"),
    "event_type": always("purge"),
    "mac_src": element("sourceMacAddress", otherwise=NO_MAC),
    "mac_dst": element("destinationMacAddress", otherwise=NO_MAC),
    "vlan": Shows("vlanId postVlanId", lambda flow: flow.get("vlanId") or flow.get("postVlanId", 0)),
    "timestamp_start": time("Start"),
    "timestamp_end": time("End"),
}
NOT_SHOWN = {
    "samplingInterval": "the counts are scaled by it",
    **dict.fromkeys(("interfaceName", "interfaceDescription"), "no primitive reads strings of variable length"),
    **dict.fromkeys(("ipNextHopIPv4Address", "bgpSourceAsNumber", "bgpDestinationAsNumber"), "0, and not asked for"),
    **dict.fromkeys(("sourceIPv4PrefixLength", "destinationIPv4PrefixLength", "paddingOctets"), "0"),
}


NO_PORTS = (33, 132, 136)


def netflow5_port(name: str) -> Shows:
    """Of NetFlow v5 pmacct 1.7.7 reads no ports of DCCP, SCTP and UDP-Lite."""
    return Shows(name, lambda flow: 0 if flow["protocolIdentifier"] in NO_PORTS else flow[name])


NETFLOW5: Columns = {
    "port_src": netflow5_port("sourceTransportPort"),
    "port_dst": netflow5_port("destinationTransportPort"),
}
WIDE_FLAGS = {"tcpControlBits": "pmacct before 1.7.8 reads 0 where the field has 2 octets"}


@pytest.mark.parametrize("stream", streams("pmacct"), ids="-".join)
def test_every_field(exchange: Exchange, stream: Stream) -> None:
    shown = exchange.shown["pmacct", stream]
    custom = {name.lower(): element(name, int, otherwise=0) for name in custom_elements(stream)}
    columns, not_shown = {**COLUMNS, **custom, **(NETFLOW5 if stream.protocol == "netflow5" else {})}, NOT_SHOWN
    if flags_octets(stream) == 2:
        columns, not_shown = {**columns, "tcp_flags": always("0")}, {**NOT_SHOWN, **WIDE_FLAGS}
    exchange.check("pmacct", stream, [(flow["ip_src"], flow) for flow in shown], columns, not_shown, scales=True)
    assert exchange.said["pmacct", stream] == []
