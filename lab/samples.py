"""Flow Records for the tests of the encoder, and what their Information Elements must be, in plain Python."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from netobs.base.clock import ClockPair
from netobs.encode import Template, load_templates
from netobs.encode.columns import COLUMNS
from netobs.encode.template.file import parse
from netobs.flow import records
from netobs.flow.interface_names import interface_table
from netobs.flow.records import FlowBatch, Records

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "templates"
GOLDEN = ROOT / "tests" / "golden"

S = 1_000_000_000
CLOCK = ClockPair(monotonic_ns=5_000 * S, realtime_ns=1_700_000_000 * S)
EXPORT_TIME_S = 1_700_000_000


def offset_ns(clock: ClockPair) -> int:
    """How far the wall clock is ahead of the monotonic one."""
    return clock.realtime_ns - clock.monotonic_ns


IPV4, IPV6 = 0x0800, 0x86DD
NAMES = {
    3: ("eth0", "uplink to ähren"),
    4: ("tap5", ""),
    0x7FFFFFFF: ("bond0.4094", "x" * 254),
    2 << 32 | 3: ("qr-1", ""),
}
"""Names and aliases of interfaces, by key."""
NAMESPACES = {1: "qrouter-1", 2: "ovnmeta-ähren"}
_TEXT_OCTETS = {"interfaceName": 15, "interfaceDescription": 255, "VRFname": 255}


@cache
def default_templates() -> tuple[Template, ...]:
    return load_templates("default", [TEMPLATES])


def template(family: str, *elements: str) -> Template:
    """A Template of ``elements``, each a TOML value without its quotes, or an inline table."""
    listed = ", ".join(item if item.startswith("{") else f'"{item}"' for item in elements)
    return parse(f'[[template]]\nfamily = "{family}"\nelements = [{listed}]\n', "test.toml")[0]


@cache
def everything(family: str) -> Template:
    """A Template of all elements that ``family`` can have, each of fixed length."""
    names = (name for name, column in COLUMNS.items() if column.family in ("", family))
    texts = {name: f'{{element = "{name}", octets = {octets}}}' for name, octets in _TEXT_OCTETS.items()}
    return template(family, *(texts.get(name, name) for name in names))


def mapped(address: str) -> list[int]:
    """The 16 bytes of an address, IPv4 as ::ffff/96."""
    parsed = ipaddress.ip_address(address)
    packed = parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
    return list(packed)


def flow(src: str, dst: str, **fields: Any) -> Records:
    """One Flow Record with plain values; ``fields`` replaces any of them."""
    record = records.empty(1, records.EXTRA_RECORD)
    values = {
        "src_addr": mapped(src),
        "dst_addr": mapped(dst),
        "ethertype": IPV6 if ":" in src else IPV4,
        "ifindex": 3,
        "packets": 10,
        "octets": 5_400,
        "first_ns": CLOCK.monotonic_ns - 9 * S + 123_999_999,
        "last_ns": CLOCK.monotonic_ns - 2 * S + 456_000_001,
        "min_ip_length": 52,
        "max_ip_length": 1_500,
        "min_ttl": 63,
        "max_ttl": 64,
        "flow_end_reason": 1,
        "src_mac": [2, 0, 0, 0, 0, 1],
        "dst_mac": [2, 0, 0, 0, 0, 2],
        **fields,
    }
    if "icmp" in values:
        kind, code = values.pop("icmp")
        values["dst_port"] = kind << 8 | code
    for name, value in values.items():
        record[name] = value
    return record


def batch(*rows: Records) -> FlowBatch:
    return FlowBatch(
        np.concatenate(rows) if rows else records.empty(0, records.EXTRA_RECORD),
        CLOCK,
        interface_table(NAMES, NAMESPACES),
    )


def golden_batch() -> FlowBatch:
    """Seven IPv4 and five IPv6 flows, mixed: TCP, UDP, ICMP, VLANs, both directions, a later fragment, big counters."""
    tcp = {"protocol": 6, "src_port": 40_000, "dst_port": 443, "tcp_flags": 0x11B, "tos": 0xB8}
    udp = {"protocol": 17, "src_port": 5_353, "dst_port": 53, "direction": 1, "vlan_id": 100, "dot1q_priority": 5}
    ping = {"icmp": (8, 0), "flow_end_reason": 4}
    return batch(
        flow("192.0.2.1", "198.51.100.7", **tcp),
        flow("2001:db8::1", "2001:db8:0:7::2", **tcp),
        flow("192.0.2.1", "198.51.100.8", **udp),
        flow("192.0.2.1", "198.51.100.9", protocol=1, **ping),
        flow("2001:db8::1", "ff02::fb", **udp),
        flow("fe80::1", "fe80::2", protocol=58, icmp=(135, 0)),
        flow("192.0.2.2", "198.51.100.9", protocol=1, icmp=(3, 1), vlan_id=4_094),
        flow("192.0.2.3", "203.0.113.255", protocol=17, flow_end_reason=2),
        flow("10.0.0.1", "10.0.0.2", protocol=6, packets=1 << 40, octets=(1 << 50) + 1, flow_end_reason=3),
        flow("10.0.0.1", "10.0.0.2", protocol=47, ifindex=0x7FFFFFFF, flow_end_reason=5),
        flow("2001:db8::2", "2001:db8::3", protocol=132, src_port=0xFFFF, dst_port=1),
        flow("2001:db8::2", "2001:db8::4", protocol=58, icmp=(128, 255), direction=1),
    )


def golden_messages(name: str = "ipfix_default.hex") -> list[bytes]:
    """The Messages in a golden file: one a paragraph, hexadecimal, comments behind "#"."""
    paragraphs = (GOLDEN / name).read_text(encoding="utf-8").split("\n\n")
    lines = ["".join(line.partition("#")[0] for line in paragraph.splitlines()) for paragraph in paragraphs]
    return [bytes.fromhex(line) for line in lines if line.strip()]


@st.composite
def batches(draw: st.DrawFn, most: int = 9) -> FlowBatch:
    """Flow Records of random bytes, made possible only where the kernel guarantees it."""
    count = draw(st.integers(0, most))
    size = count * records.EXTRA_RECORD.itemsize
    rows = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype=records.EXTRA_RECORD).copy()
    for row in rows:
        row["ethertype"] = draw(st.sampled_from((IPV4, IPV4, IPV6, IPV6, 0x0806)))
        row["protocol"] = draw(st.sampled_from((1, 6, 17, 58, 255)))
        row["direction"] = draw(st.integers(0, 1))
        row["netns"] = draw(st.sampled_from((0, 0, *NAMESPACES, 3, 511)))
        row["ifindex"] = draw(st.sampled_from((*(key & 0xFFFFFFFF for key in NAMES), 0, 5, 0x7FFFFFFE)))
    rows["first_ns"] >>= 4
    rows["last_ns"] >>= 4
    rows["packets"] >>= 16
    rows["octets"] >>= 16
    realtime_ns = draw(st.integers(1_000_000_000 * S, 2_000_000_000 * S))
    clock = ClockPair(draw(st.integers(0, 1_000_000_000 * S)), realtime_ns)
    return FlowBatch(rows, clock, interface_table(NAMES, NAMESPACES))


def model(row: Any, clock: ClockPair) -> dict[str, Any]:
    """What each element of one Flow Record must be, said again without columns."""
    end_ns = min(int(row["last_ns"]) + clock.realtime_ns - clock.monotonic_ns, clock.realtime_ns)
    start_ns = min(int(row["first_ns"]) + clock.realtime_ns - clock.monotonic_ns, end_ns)
    protocol, egress = int(row["protocol"]), int(row["direction"])
    port = int(row["dst_port"])
    ports = (0 if protocol in (1, 58) else int(row["src_port"]), port)
    icmp = (*divmod(port, 256), port)
    none = (0, 0, 0)
    netns = int(row["netns"])
    name, alias = NAMES.get(netns << 32 | int(row["ifindex"]), ("", ""))
    v4 = v6 = icmp if protocol in (1, 58) else none
    return {
        "octetDeltaCount": int(row["octets"]),
        "packetDeltaCount": int(row["packets"]),
        "protocolIdentifier": protocol,
        "ipClassOfService": int(row["tos"]),
        "tcpControlBits": int(row["tcp_flags"]) % 4096,
        "sourceTransportPort": ports[0],
        "destinationTransportPort": ports[1],
        "sourceIPv4Address": bytes(row["src_addr"])[12:],
        "destinationIPv4Address": bytes(row["dst_addr"])[12:],
        "sourceIPv6Address": bytes(row["src_addr"]),
        "destinationIPv6Address": bytes(row["dst_addr"]),
        "ingressInterface": 0 if egress else int(row["ifindex"]),
        "egressInterface": int(row["ifindex"]) if egress else 0,
        "minimumIpTotalLength": int(row["min_ip_length"]),
        "maximumIpTotalLength": int(row["max_ip_length"]),
        "samplingInterval": 1,
        "minimumTTL": int(row["min_ttl"]),
        "maximumTTL": int(row["max_ttl"]),
        "sourceMacAddress": bytes(row["src_mac"]),
        "destinationMacAddress": bytes(row["dst_mac"]),
        "vlanId": 0 if egress else int(row["vlan_id"]),
        "postVlanId": int(row["vlan_id"]) if egress else 0,
        "dot1qVlanId": int(row["vlan_id"]),
        "dot1qPriority": int(row["dot1q_priority"]),
        "ipVersion": 6 if int(row["ethertype"]) == IPV6 else 4,
        "ethernetType": int(row["ethertype"]),
        "interfaceName": name.encode(),
        "interfaceDescription": alias.encode(),
        "flowDirection": egress,
        "flowEndReason": int(row["flow_end_reason"]),
        "observationPointId": (netns * 2**32 + int(row["ifindex"])) * 2 + egress,
        "ingressVRFID": 0 if egress else netns,
        "egressVRFID": netns if egress else 0,
        "VRFname": NAMESPACES.get(netns, "").encode(),
        "ipDiffServCodePoint": int(row["tos"]) // 4,
        "ipPrecedence": int(row["tos"]) // 32,
        "icmpTypeIPv4": v4[0],
        "icmpCodeIPv4": v4[1],
        "icmpTypeCodeIPv4": v4[2],
        "icmpTypeIPv6": v6[0],
        "icmpCodeIPv6": v6[1],
        "icmpTypeCodeIPv6": v6[2],
        "layer2OctetDeltaCount": int(row["layer2_octets"]),
        "tcpOptionsFull": b"".join(int(word).to_bytes(8, "big") for word in row["tcp_options"][::-1]),
        "tcpWindowSize": int(row["min_tcp_window"]),
        "ipv6ExtensionHeadersFull": bytes(28) + int(row["ipv6_headers"]).to_bytes(4, "big"),
        "flowLabelIPv6": int(row["flow_label"]),
        "fragmentFlags": int(row["fragment_flags"]),
        "dot1qCustomerVlanId": int(row["customer_vlan_id"]),
        "dot1qCustomerPriority": int(row["customer_priority"]),
        "mplsLabelStackDepth": int(row["mpls_depth"]),
        "mplsTopLabelStackSection": bytes(row["mpls_labels"][0]),
        "mplsLabelStackSection2": bytes(row["mpls_labels"][1]),
        "mplsLabelStackSection3": bytes(row["mpls_labels"][2]),
        "flowDurationMilliseconds": min(end_ns // 10**6 - start_ns // 10**6, 2**32 - 1),
        **dict(_times("flowStart", start_ns)),
        **dict(_times("flowEnd", end_ns)),
    }


def _times(prefix: str, wall_ns: int) -> Iterator[tuple[str, int]]:
    seconds, ns = divmod(wall_ns, S)
    ntp = (seconds + 2_208_988_800) << 32
    yield f"{prefix}Seconds", seconds
    yield f"{prefix}Milliseconds", wall_ns // 10**6
    yield f"{prefix}Microseconds", ntp | -(-(ns // 1000 * 2**32) // (10**6 * 2048)) * 2048
    yield f"{prefix}Nanoseconds", ntp | -(-ns * 2**32 // S)
