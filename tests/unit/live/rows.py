"""Rows of the live table that a test makes, in the notation that people read."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from netobs.flow.records import Records
from netobs.live.flows import ROW

FIELDS = {"src_port": 0, "dst_port": 0, "protocol": 17, "direction": 0, "vlan_id": 0, "ifindex": 1, "netns": 0}


def row(src: str = "192.0.2.1", dst: str = "192.0.2.2", packets: int = 1, octets: int = 100, **fields: Any) -> Records:
    """One row: UDP on interface 1 at ingress, unless ``fields`` say otherwise."""
    made = np.zeros(1, ROW)
    for name, value in {**FIELDS, **fields, "packets": packets, "octets": octets}.items():
        made[name] = value
    for name, text in (("src_addr", src), ("dst_addr", dst)):
        address = ipaddress.ip_address(text)
        is_ipv4 = address.version == 4
        octets_of = bytes(10) + b"\xff\xff" + address.packed if is_ipv4 else address.packed
        made[name] = np.frombuffer(octets_of, "u1")
        made["ethertype"] = 0x0800 if is_ipv4 else 0x86DD
    return made


def rows(*parts: Records) -> Records:
    """All of ``parts``."""
    return np.concatenate([np.zeros(0, ROW), *parts])


def numbered(count: int, first: int = 0, **fields: Any) -> Records:
    """One row for each of the flows ``first`` to ``first + count - 1``, in a random but repeatable order."""
    made = np.repeat(row(**fields), count)
    numbers = np.random.default_rng(count).permutation(np.arange(first, first + count))
    made["src_addr"][:, 12:] = numbers.astype(">u4").view("u1").reshape(count, 4)
    return made
