"""Build, parse, equal: random Flow Records by random templates through each protocol and back."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import given, reject, settings
from hypothesis import strategies as st

from lab.samples import IPV4, IPV6, S, batches, model, offset_ns, template
from netobs.base.errors import TemplateError
from netobs.collector.decode import Decoder
from netobs.collector.received import Record
from netobs.encode import Encoder, Header, Template, netflow5, netflow9
from netobs.encode.columns import COLUMNS
from netobs.encode.netflow9 import netflow9_template
from netobs.encode.registry import abstract_type, by_name
from netobs.encode.uptime import Uptime
from netobs.flow.records import FlowBatch
from tests.unit.encode.test_netflow import messages, recent

_FAMILIES = {IPV4: "ipv4", IPV6: "ipv6"}
_WIDTHS = (1, 2, 4, 8, 16, 32)
_NTP_S = 2_208_988_800
SEQUENCE = 0xFFFF_FFFE
LONGEST_STRINGS = 3 * 255 + 200
"""A Message of more bytes than this has room for a record, whatever strings are in it."""


@st.composite
def templates(draw: st.DrawFn, always: str = "") -> list[Template]:
    """One for each family: some elements in any order, in any length that is allowed, ``always`` among them."""
    found = []
    for family in ("ipv4", "ipv6"):
        names = [name for name, column in COLUMNS.items() if column.family in ("", family)]
        chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True))
        chosen += [always] * (always != "" and always not in chosen)
        entries = [f'{{element = "{name}", octets = {draw(widths(name))}}}' for name in chosen]
        found.append(template(family, *entries))
    return found


def widths(name: str) -> st.SearchStrategy[int]:
    element = by_name(name)
    assert element is not None
    if COLUMNS[name].octets:
        return st.just(COLUMNS[name].octets)
    least = COLUMNS[name].least_octets or element.octets
    reduced = [width for width in _WIDTHS if least <= width < element.octets]
    return st.sampled_from([element.octets, *(reduced if abstract_type(element.type).reducible else [])])


def plain(flows: FlowBatch) -> FlowBatch:
    """``flows`` with counters that any reduced length holds, so that each stays one record."""
    rows = flows.records.copy()
    for name in ("packets", "octets"):
        rows[name] &= 0xFFFF_FFFF
    return replace(flows, records=rows)


def readable(name: str, value: Any, octets: int) -> Any:
    """What people read: addresses and times as text; a number as far as it fits in ``octets``."""
    element = by_name(name)
    assert element is not None
    if element.type == "string":
        return value.decode("utf-8")
    if element.type == "unsigned256":
        return int.from_bytes(value[-octets:], "big")
    if element.type == "octetArray":
        return value.hex()
    if isinstance(value, bytes):
        return value.hex(":") if element.type == "macAddress" else str(ipaddress.ip_address(value))
    return time_of(element.type, value) if element.type.startswith("dateTime") else value % (1 << 8 * octets)


def time_of(kind: str, value: int) -> str:
    unit = kind[len("dateTime") :]
    if unit in ("Seconds", "Milliseconds"):
        return iso(value * (1_000_000_000 if unit == "Seconds" else 1_000_000), unit)
    digits = 6 if unit == "Microseconds" else 9
    seconds, part = divmod(value, 1 << 32)
    return iso((seconds - _NTP_S) * S + (part * 10**digits >> 32) * 10 ** (9 - digits), unit)


def iso(wall_ns: int, unit: str) -> str:
    whole = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=wall_ns // S)
    digits = {"Seconds": 0, "Milliseconds": 3, "Microseconds": 6, "Nanoseconds": 9}[unit]
    return whole.strftime("%Y-%m-%dT%H:%M:%S") + (f".{wall_ns % S:09d}"[: digits + 1] if digits else "") + "Z"


def wanted(flows: FlowBatch, made: list[Template]) -> list[Record]:
    found = []
    for each in made:
        rows = [row for row in flows.records if _FAMILIES.get(int(row["ethertype"])) == each.family]
        for values in (model(row, flows.clock) for row in rows):
            octets = {field.element.name: field.octets for field in each.fields}
            found.append({name: readable(name, values[name], width) for name, width in octets.items()})
    return found


def decoded(raw: list[bytes]) -> list[Record]:
    decoder = Decoder()
    found = [record for message in raw for record in decoder.decode(message).flows]
    assert (decoder.stats.sequence_errors, decoder.stats.sets_without_template, decoder.stats.malformed) == (0, 0, 0)
    return found


@settings(deadline=None, max_examples=80)
@given(flows=batches(), made=templates(), size=st.integers(512, 1500))
def test_ipfix(flows: FlowBatch, made: list[Template], size: int) -> None:
    flows = plain(flows)
    encoder, header = Encoder(made), Header(flows.clock.realtime_ns // S, SEQUENCE, 7)
    try:
        raw = encoder.template_messages(header, size)
    except TemplateError:  # with two long strings, a record fits no small Message
        assert size < LONGEST_STRINGS
        reject()
    for data_set in encoder.encode(flows).data_sets:
        raw += messages(encoder.data_messages(data_set, header, size))
        header = header.advance(len(data_set))
    assert all(len(message) <= size for message in raw)
    assert decoded(raw) == wanted(flows, made)


def wall_times(record: Record, row: Any, flows: FlowBatch, boot_s: int) -> Record:
    """``record`` with its times as the time of day, which is not before the exporter began."""
    values = model(row, flows.clock)
    for end in ("flowStart", "flowEnd"):
        if f"{end}SysUpTime" in record:
            wall_ms = max(values[f"{end}Milliseconds"], boot_s * 1000)
            record[f"{end}Milliseconds"] = iso(wall_ms * 1_000_000, "Milliseconds")
            record[f"{end}SysUpTime"] = (wall_ms - boot_s * 1000) % (1 << 32)
    return record


@settings(deadline=None, max_examples=80)
@given(
    flows=batches(), made=templates("octetDeltaCount"), uptime_s=st.integers(0, 10_000_000), size=st.integers(512, 1500)
)
def test_netflow9(flows: FlowBatch, made: list[Template], uptime_s: int, size: int) -> None:
    flows, export_s = recent(plain(flows))
    boot_s, offset = export_s - uptime_s, offset_ns(flows.clock)
    boot_ns = boot_s * S - offset
    encoder, header = netflow9.Encoder(made, boot_ns), netflow9.Header(export_s, SEQUENCE, 7, offset)
    raw = encoder.template_messages(header, size)
    header = header.advance(0, len(raw))
    for data_set in encoder.encode(flows).data_sets:
        block = encoder.data_messages(data_set, header, size)
        for number, message in enumerate(messages(block)):
            padding = (len(message) - 24) - int(block.flows[number]) * data_set.template.dtype.itemsize
            assert 0 <= padding < 4
            assert message[len(message) - padding :] == bytes(padding)
            raw.append(message)
        header = header.advance(len(data_set), len(block))
    assert all(len(message) <= size and len(message) % 4 == 0 for message in raw)
    expected = []
    for adapted in map(netflow9_template, made):
        octets = {field.element.name: field.octets for field in adapted.fields}
        for row in flows.records:
            if _FAMILIES.get(int(row["ethertype"])) == adapted.family:
                values = {"flowStartSysUpTime": 0, "flowEndSysUpTime": 0, **model(row, flows.clock)}
                if adapted.family == "ipv6":  # field 32 is for both families
                    values["icmpTypeCodeIPv4"] = values["icmpTypeCodeIPv6"]
                record = {name: readable(name, values[name], width) for name, width in octets.items()}
                expected.append(wall_times(record, row, flows, boot_s))
    assert decoded(raw) == expected


_HEADER5, _RECORD5 = struct.Struct("!HHIIIIHH"), struct.Struct("!4s4s4sHHIIIIHHBBBBHHBBH")


@settings(deadline=None, max_examples=80)
@given(
    flows=batches(70),
    uptime_s=st.integers(0, 10_000_000),
    size=st.integers(72, 1500),
    start=st.sampled_from((0, SEQUENCE)),
    engine=st.integers(0, 0xFFFF),
    sampling=st.integers(1, 20_000),
)
def test_netflow5(flows: FlowBatch, uptime_s: int, size: int, start: int, engine: int, sampling: int) -> None:
    """The header and every field of every record, read by two formats that are written out here."""
    flows, export_s = recent(plain(flows))
    boot_s, offset = export_s - uptime_s, offset_ns(flows.clock)
    boot_ns = boot_s * S - offset
    encoder, header = netflow5.Encoder(boot_ns, sampling), netflow5.Header(export_s, start, engine, offset)
    raw: list[bytes] = []
    for data_set in encoder.encode(flows).data_sets:
        raw += messages(encoder.data_messages(data_set, header, size))
    decoded(raw)
    rows = [row for row in flows.records if row["ethertype"] == IPV4]
    found, before = [], start
    seconds, uptime_ms = Uptime(boot_ns).header(export_s, offset)
    field = 2 << 14 | min(sampling, 0x3FFF) if sampling > 1 else 1
    for message in raw:
        count = (len(message) - _HEADER5.size) // _RECORD5.size
        assert 1 <= count <= 30
        assert _HEADER5.unpack_from(message) == (5, count, uptime_ms, seconds, 0, before, engine, field)
        before = (before + count) % (1 << 32)
        found += list(_RECORD5.iter_unpack(message[_HEADER5.size :]))
    assert found == [record5(row, flows, boot_s) for row in rows]


def record5(row: Any, flows: FlowBatch, boot_s: int) -> tuple[Any, ...]:
    values = model(row, flows.clock)
    times = [
        (max(values[f"{end}Milliseconds"], boot_s * 1000) - boot_s * 1000) % (1 << 32)
        for end in ("flowStart", "flowEnd")
    ]
    return (
        values["sourceIPv4Address"],
        values["destinationIPv4Address"],
        bytes(4),  # next hop
        min(values["ingressInterface"], 0xFFFF),
        min(values["egressInterface"], 0xFFFF),
        values["packetDeltaCount"],
        values["octetDeltaCount"],
        *times,
        values["sourceTransportPort"],
        values["destinationTransportPort"],
        0,
        values["tcpControlBits"] % 256,
        values["protocolIdentifier"],
        values["ipClassOfService"],
        *(0, 0, 0, 0, 0),  # autonomous systems, prefix lengths, padding
    )
