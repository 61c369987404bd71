"""Decodes the headers of NetFlow v9 (RFC 3954) and v5 (Cisco), and the records of v5."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from netobs.collector.decode_message import Message
from netobs.collector.received import Layout
from netobs.collector.received_templates import specifiers_netflow9
from netobs.collector.work import Malformed
from netobs.config.schema import MAX_NETFLOW5_SAMPLING
from netobs.encode.layout_netflow import MAX_NETFLOW5_RECORDS, NETFLOW5_HEADER, NETFLOW9_HEADER, netflow5_template
from netobs.encode.template.field import specifier

_MS_PER_S, _NS_PER_MS = 1_000, 1_000_000


class NetflowHeader(NamedTuple):
    """The header of a Message. ``time_ms``: its time of day in ms since 1970."""

    records: int
    uptime_ms: int
    time_ms: int
    sequence: int
    observation_domain: int
    sampling: int = 0

    @property
    def boot_ms(self) -> int:
        """When sysUptime was 0, in ms since 1970."""
        return self.time_ms - self.uptime_ms


def netflow9_header(message: bytes) -> NetflowHeader:
    """The header of a NetFlow v9 Message. Raises Malformed."""
    if len(message) < NETFLOW9_HEADER.itemsize:
        raise Malformed(len(message), f"a header has {NETFLOW9_HEADER.itemsize} bytes")
    head = np.frombuffer(message, NETFLOW9_HEADER, 1)[0]
    return NetflowHeader(
        int(head["count"]),
        int(head["uptime_ms"]),
        int(head["export_time"]) * _MS_PER_S,
        int(head["sequence"]),
        int(head["observation_domain"]),
    )


def netflow5_header(message: bytes) -> NetflowHeader:
    """The header of a NetFlow v5 Message. Raises Malformed."""
    if len(message) < NETFLOW5_HEADER.itemsize:
        raise Malformed(len(message), f"a header has {NETFLOW5_HEADER.itemsize} bytes")
    head = np.frombuffer(message, NETFLOW5_HEADER, 1)[0]
    return NetflowHeader(
        int(head["count"]),
        int(head["uptime_ms"]),
        int(head["export_time"]) * _MS_PER_S + int(head["export_time_ns"]) // _NS_PER_MS,
        int(head["sequence"]),
        int(head["engine"]),
        int(head["sampling"]) & MAX_NETFLOW5_SAMPLING,
    )


@lru_cache(maxsize=1)
def _netflow5_layout() -> Layout:
    fields = netflow5_template().fields
    return Layout(specifiers_netflow9, bytes(2) + b"".join(map(specifier, fields)), False)


def read_netflow5(raw: bytes, header: NetflowHeader, message: Message) -> int:
    """Read the number of records in the header; returns the octets after them. Raises Malformed and Exhausted."""
    layout, body = _netflow5_layout(), raw[NETFLOW5_HEADER.itemsize :]
    if header.records > MAX_NETFLOW5_RECORDS:
        text = f"count {header.records}, a Message of NetFlow v5 has {MAX_NETFLOW5_RECORDS} records at most"
        message.notes.add("count", text)
    layout.prepare({}, 0, message.work)
    wanted, flows = header.records * layout.least_octets, message.decoded.flows
    try:
        layout.read(body[:wanted], NETFLOW5_HEADER.itemsize, message.work, flows, message.notes)
    finally:
        for flow in flows:
            del flow["paddingOctets"]
            if header.sampling:
                flow["samplingInterval"] = header.sampling
    if header.records == 0 or len(body) < wanted:
        raise Malformed(2, f"count {header.records}, but {len(body)} bytes follow the header")
    return len(body) - wanted
