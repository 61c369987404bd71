"""What the decoder knows of NetFlow v9 (RFC 3954) and v5 (Cisco): headers, Templates, records, times."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from netobs.config.schema import MAX_NETFLOW5_SAMPLING
from netobs.encode.layout import FIELD_SPECIFIER, FIRST_DATA_SET_ID, TEMPLATE_HEADER, VARIABLE_LENGTH
from netobs.encode.layout_netflow import (
    MAX_NETFLOW5_RECORDS,
    NETFLOW5_HEADER,
    NETFLOW9_HEADER,
    OPTIONS_TEMPLATE_FLOWSET_ID,
    netflow5_template,
)
from netobs.encode.readable import reader
from netobs.encode.received import Layout, Malformed, Record, distinct, received_field
from netobs.encode.registry import InformationElement
from netobs.encode.template import Field

_SCOPES = {1: "scopeSystem", 2: "scopeInterface", 3: "scopeLineCard", 4: "scopeCache", 5: "scopeTemplate"}
_UPTIMES = {"flowStartSysUpTime": "flowStartMilliseconds", "flowEndSysUpTime": "flowEndMilliseconds"}
_MS_PER_S, _NS_PER_MS = 1_000, 1_000_000
_MAX_U32 = 0xFFFFFFFF
_OPTIONS_HEADER = np.dtype([("template_id", ">u2"), ("scope_bytes", ">u2"), ("option_bytes", ">u2")])


class NetflowHeader(NamedTuple):
    """The header of a Message. ``time_ms``: its time of day in ms since 1970."""

    records: int
    uptime_ms: int
    time_ms: int
    sequence: int
    observation_domain: int
    sampling: int = 0

    def add_times(self, records: Iterable[Record]) -> None:
        """Give the ``records`` their times of day; sysUptime is modulo 2**32."""
        read = reader("dateTimeMilliseconds", True)
        for record in records:
            for uptime, wall in _UPTIMES.items():
                value = record.get(uptime)
                if isinstance(value, int) and read is not None:
                    ago_ms = (self.uptime_ms - value) & _MAX_U32
                    ago_ms -= (ago_ms >> 31) << 32
                    record[wall] = read(self.time_ms - ago_ms)


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


def learn_netflow9(layouts: dict[int, Layout], set_id: int, offset: int, body: bytes) -> None:
    """Take over the Template Records of a FlowSet, ``offset`` bytes into the Message. Raises Malformed."""
    is_options = set_id == OPTIONS_TEMPLATE_FLOWSET_ID
    at = 0
    while any(body[at:]):  # zeros at the end are padding
        start = offset + at
        template_id, fields, at = (_options_template if is_options else _template)(body, at, start)
        layout = Layout(fields, is_options)
        if template_id < FIRST_DATA_SET_ID or layout.least_octets == 0:
            raise Malformed(start, f"Template {template_id} with records of {layout.least_octets} octets")
        known = layouts.get(template_id)
        if known is None or (known.fields, known.is_options) != (fields, is_options):
            layouts[template_id] = layout


def _template(body: bytes, at: int, start: int) -> tuple[int, tuple[Field, ...], int]:
    """Template ID, fields, and where the next Template Record begins."""
    if len(body) - at < TEMPLATE_HEADER.itemsize:
        raise Malformed(start, "a Template Record runs past the end of its FlowSet")
    head = np.frombuffer(body, TEMPLATE_HEADER, 1, at)[0]
    fields, at = _fields(body, at + TEMPLATE_HEADER.itemsize, int(head["field_count"]), start)
    return int(head["template_id"]), distinct(fields), at


def _options_template(body: bytes, at: int, start: int) -> tuple[int, tuple[Field, ...], int]:
    """The same for an Options Template Record (RFC 3954, section 6.1): lengths in bytes, scopes with a type."""
    if len(body) - at < _OPTIONS_HEADER.itemsize:
        raise Malformed(start, "an Options Template Record runs past the end of its FlowSet")
    head = np.frombuffer(body, _OPTIONS_HEADER, 1, at)[0]
    scope_bytes, option_bytes = int(head["scope_bytes"]), int(head["option_bytes"])
    if scope_bytes % FIELD_SPECIFIER.itemsize or option_bytes % FIELD_SPECIFIER.itemsize:
        raise Malformed(start + 2, f"lengths {scope_bytes} and {option_bytes} are no multiples of 4")
    at += _OPTIONS_HEADER.itemsize
    scopes, at = _fields(body, at, scope_bytes // FIELD_SPECIFIER.itemsize, start, scopes=True)
    options, at = _fields(body, at, option_bytes // FIELD_SPECIFIER.itemsize, start)
    return int(head["template_id"]), distinct(scopes + options), at


def _fields(body: bytes, at: int, count: int, start: int, scopes: bool = False) -> tuple[list[Field], int]:
    end = at + count * FIELD_SPECIFIER.itemsize
    if end > len(body):
        raise Malformed(start, "a Template Record runs past the end of its FlowSet")
    fields = []
    for specifier in np.frombuffer(body, FIELD_SPECIFIER, count, at):
        number, octets = int(specifier["element_id"]), int(specifier["octets"])
        if octets == VARIABLE_LENGTH:
            raise Malformed(start, f"element {number} of length {octets}")
        fields.append(_scope(number, octets) if scopes else received_field(number, octets))
    return fields, end


def _scope(number: int, octets: int) -> Field:
    name = _SCOPES.get(number, f"scope{number}")
    return Field(InformationElement(name, number, "unsigned64" if octets in (1, 2, 4, 8) else "octetArray",
                                    octets, "", ""), octets)  # fmt: skip


@lru_cache(maxsize=1)
def _netflow5_layout() -> Layout:
    return Layout(netflow5_template().fields, False)


def decode_netflow5(message: bytes) -> tuple[NetflowHeader, list[Record]]:
    """Header and flows of a NetFlow v5 Message. Raises Malformed."""
    if len(message) < NETFLOW5_HEADER.itemsize:
        raise Malformed(len(message), f"a header has {NETFLOW5_HEADER.itemsize} bytes")
    head = np.frombuffer(message, NETFLOW5_HEADER, 1)[0]
    layout = _netflow5_layout()
    count, body = int(head["count"]), message[NETFLOW5_HEADER.itemsize :]
    if not 0 < count <= MAX_NETFLOW5_RECORDS:
        raise Malformed(2, f"count {count}, expected 1 to {MAX_NETFLOW5_RECORDS}")
    if len(body) != count * layout.least_octets:
        raise Malformed(2, f"count {count}, but {len(body)} bytes follow the header")
    header = NetflowHeader(
        count,
        int(head["uptime_ms"]),
        int(head["export_time"]) * _MS_PER_S + int(head["export_time_ns"]) // _NS_PER_MS,
        int(head["sequence"]),
        int(head["engine"]),
        int(head["sampling"]) & MAX_NETFLOW5_SAMPLING,
    )
    flows = list(layout.records(body, NETFLOW5_HEADER.itemsize))
    for flow in flows:
        del flow["paddingOctets"]
        if header.sampling:
            flow["samplingInterval"] = header.sampling
    header.add_times(flows)
    return header, flows
