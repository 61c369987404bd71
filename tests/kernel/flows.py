"""What a test expects of a Flow Record, in the notation that people read."""

from __future__ import annotations

import ipaddress
from typing import Any

from lab import frames as f
from netobs.flow.records import RECORD, Records

TIMES = ("first_ns", "last_ns", "end", "syn")
LOOPBACK = 1  # the interface that a test run uses unless it names one

Flow = dict[str, Any]


def readable(records: Records) -> list[Flow]:
    """Each row as a dict of all fields but the times; addresses as text."""
    names = [name for name in RECORD.names or () if name not in TIMES]
    return [{name: _value(name, row[name]) for name in names} for row in records]


def _value(name: str, value: Any) -> Any:
    if name.endswith("_addr"):
        address = ipaddress.IPv6Address(value.tobytes())
        return str(address.ipv4_mapped or address)
    return value.tobytes().hex(":") if name.endswith("_mac") else int(value)


def flow(**fields: Any) -> Flow:
    """The record of one IPv4/UDP packet without payload as ``frames`` makes it, but for ``fields``.

    ``ip_length`` stands for octets, min_ip_length and max_ip_length, ``icmp`` (type, code) for dst_port.
    """
    kind, code = fields.pop("icmp", (0, 0))
    length = fields.pop("ip_length", 28)
    expected = {
        "src_addr": f.SRC4,
        "dst_addr": f.DST4,
        "src_port": f.SPORT,
        "dst_port": f.DPORT,
        "netns": 0,
        "protocol": f.UDP,
        "direction": 0,
        "ethertype": f.IPV4,
        "vlan_id": 0,
        "ifindex": LOOPBACK,
        "packets": 1,
        "octets": length,
        "tcp_flags": 0,
        "min_ip_length": length,
        "max_ip_length": length,
        "tos": f.TOS,
        "min_ttl": f.TTL,
        "max_ttl": f.TTL,
        "dot1q_priority": 0,
        "errno": 0,
        "flow_end_reason": 0,
        "src_mac": f.SRC_MAC,
        "dst_mac": f.DST_MAC,
    }
    assert set(fields) <= set(expected), set(fields) - set(expected)
    return {**expected, **fields, **({"dst_port": kind << 8 | code} if kind or code else {})}


def flow6(**fields: Any) -> Flow:
    """As ``flow``, of an IPv6/UDP packet."""
    return flow(**{"src_addr": f.SRC6, "dst_addr": f.DST6, "ethertype": f.IPV6, "ip_length": 48, **fields})


def no_ports(**fields: Any) -> Flow:
    """As ``flow``, without ports."""
    return flow(**{"src_port": 0, "dst_port": 0, **fields})


def no_ports6(**fields: Any) -> Flow:
    """As ``flow6``, without ports."""
    return flow6(**{"src_port": 0, "dst_port": 0, **fields})
