"""Whole NetFlow v9 and v5 Messages: golden bytes, sequences, padding, times, and what the formats cannot say."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.messages import OPTIONS9
from lab.samples import (
    CLOCK,
    EXPORT_TIME_S,
    IPV4,
    S,
    batch,
    batches,
    default_templates,
    flow,
    golden_batch,
    golden_messages,
    model,
    offset_ns,
    template,
)
from netobs.base.clock import ClockPair
from netobs.base.errors import DecodeError, TemplateError
from netobs.collector.decode import Decoder
from netobs.collector.received import Record
from netobs.encode import DataSet, netflow5, netflow9
from netobs.encode.netflow9 import netflow9_template
from netobs.encode.protocols import exporter
from netobs.encode.uptime import Uptime
from netobs.flow.records import FlowBatch, MessageBlock

OFFSET_NS = offset_ns(CLOCK)
BOOT_S = EXPORT_TIME_S - 3600
BOOT_NS = BOOT_S * S - OFFSET_NS
SEQUENCE = 0xFFFFFFFE
HEADER9 = netflow9.Header(EXPORT_TIME_S, SEQUENCE, 42, OFFSET_NS)
HEADER5 = netflow5.Header(EXPORT_TIME_S, SEQUENCE, 0x0102, OFFSET_NS)


def messages(block: MessageBlock) -> list[bytes]:
    return [bytes(block.message(number)) for number in range(len(block))]


def built9() -> list[bytes]:
    encoder, header = netflow9.Encoder(default_templates(), BOOT_NS), HEADER9
    built = encoder.template_messages(header, 512)
    header = header.advance(0, len(built))
    for data_set in encoder.encode(golden_batch()).data_sets:
        block = encoder.data_messages(data_set, header, 512)
        built += messages(block)
        header = header.advance(len(data_set), len(block))
    return built


def built5() -> list[bytes]:
    records = golden_batch().records
    encoder = netflow5.Encoder(BOOT_NS, 100)
    (data_set,) = encoder.encode(FlowBatch(records[records["octets"] < 2**40], CLOCK)).data_sets
    return messages(encoder.data_messages(data_set, HEADER5, 200))


@pytest.mark.parametrize(("name", "built"), [("netflow9_default.hex", built9), ("netflow5.hex", built5)])
def test_golden_bytes(name: str, built: Any) -> None:
    assert [message.hex() for message in built()] == [message.hex() for message in golden_messages(name)]


def decoded(raw: list[bytes]) -> tuple[list[Record], Decoder]:
    decoder = Decoder()
    return [record for message in raw for record in decoder.decode(message).flows], decoder


def test_golden_netflow9_is_read_back() -> None:
    flows, decoder = decoded(golden_messages("netflow9_default.hex"))
    assert len(flows) == 12
    assert (decoder.stats.lost_messages, decoder.stats.sequence_errors, decoder.stats.sets_without_template) == (
        0,
        0,
        0,
    )
    first = flows[0]
    assert first["flowStartMilliseconds"] == "2023-11-14T22:13:11.123Z"
    assert first["flowEndMilliseconds"] == "2023-11-14T22:13:18.456Z"
    assert (first["octetDeltaCount"], first["tcpControlBits"], first["maximumIpTotalLength"]) == (5400, 0x1B, 1500)


def test_netflow9_has_one_field_for_the_icmp_type_of_both_families() -> None:
    """Field 32 (RFC 3954, section 8). nfdump shows type 0 for ICMPv6 if it is not there, whatever the port says."""
    assert all(
        "icmpTypeCodeIPv4" in (each.dtype.names or ()) for each in netflow9.Encoder(default_templates(), 0).templates
    )
    flows = [flow for flow in decoded(built9())[0] if flow["protocolIdentifier"] in {1, 58}]
    assert [flow["icmpTypeCodeIPv4"] for flow in flows] == [0x0800, 0x0301, 0x8700, 0x80FF]
    assert [flow["destinationTransportPort"] for flow in flows] == [0x0800, 0x0301, 0x8700, 0x80FF]


def test_golden_netflow5_is_read_back() -> None:
    raw = golden_messages("netflow5.hex")
    flows, decoder = decoded(raw)
    assert [len(message) for message in raw] == [24 + 3 * 48, 24 + 3 * 48]
    assert (decoder.stats.lost_records, decoder.stats.sequence_errors) == (0, 0)
    assert {flow["samplingInterval"] for flow in flows} == {100}
    assert flows[0]["flowEndMilliseconds"] == "2023-11-14T22:13:18.456Z"


def test_a_lost_message_is_noticed() -> None:
    built = built9()
    stats = decoded(built[:1] + built[2:])[1].stats
    assert (stats.lost_records, stats.lost_messages) == (0, 1)
    encoder = netflow5.Encoder(BOOT_NS)
    raw = messages(encoder.data_messages(rows5(encoder, 70), HEADER5, 1400))
    assert decoded([raw[0], raw[2]])[1].stats.lost_records == 28


def rows5(encoder: netflow5.Encoder, count: int) -> DataSet:
    (data_set,) = encoder.encode(batch(*[flow("192.0.2.1", "192.0.2.2")] * count)).data_sets
    return data_set


def milliseconds(text: str) -> int:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    return round(moment.timestamp() * 1000)


def expected(row: Any, clock: ClockPair, boot_s: int, names: Any) -> dict[str, Any]:
    """What the elements ``names`` of a Flow Record must be in NetFlow, numbers; times not before ``boot_s``."""
    values = model(row, clock)
    values["tcpControlBits"] %= 256
    return {name: max(values[name], boot_s * 1000) if name.endswith("Milliseconds") else values[name] for name in names}


def plain(record: Record, names: Any) -> dict[str, Any]:
    """The same of a decoded record; addresses are compared by the golden bytes."""
    return {name: milliseconds(record[name]) if name.endswith("Milliseconds") else record[name] for name in names}


NUMBERS9 = (
    *("sourceTransportPort", "destinationTransportPort", "protocolIdentifier", "ipClassOfService", "tcpControlBits"),
    *("ingressInterface", "egressInterface", "flowDirection", "octetDeltaCount", "packetDeltaCount", "vlanId"),
    *("postVlanId", "minimumTTL", "maximumTTL", "minimumIpTotalLength", "maximumIpTotalLength", "ipVersion"),
)
TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")


def recent(flows: FlowBatch) -> tuple[FlowBatch, int]:
    """``flows`` of less than 2**31 ms before the clock (a collector cannot tell more), and the second after them."""
    rows = flows.records.copy()
    now = flows.clock.monotonic_ns
    for name in ("first_ns", "last_ns"):
        rows[name] = np.maximum(now - (rows[name] % (20 * 86_400 * S)).astype(np.int64), 0)
    return FlowBatch(rows, flows.clock), flows.clock.realtime_ns // S


@settings(deadline=None, max_examples=60)
@given(flows=batches(), uptime_s=st.integers(0, 10_000_000), size=st.integers(200, 1400))
def test_netflow9_build_and_parse_is_equal(flows: FlowBatch, uptime_s: int, size: int) -> None:
    flows, export_s = recent(flows)
    boot_s, offset = export_s - uptime_s, offset_ns(flows.clock)
    boot_ns = boot_s * S - offset
    encoder, header = netflow9.Encoder(default_templates(), boot_ns), netflow9.Header(export_s, SEQUENCE, 7, offset)
    raw = encoder.template_messages(header, size)
    header = header.advance(0, len(raw))
    for data_set in encoder.encode(flows).data_sets:
        block = encoder.data_messages(data_set, header, size)
        raw += messages(block)
        header = header.advance(len(data_set), len(block))
    found, decoder = decoded(raw)
    assert all(len(message) <= size and len(message) % 4 == 0 for message in raw)
    assert decoder.stats.sequence_errors == 0
    rows = [row for family in (IPV4, 0x86DD) for row in flows.records if row["ethertype"] == family]
    wanted = [expected(row, flows.clock, boot_s, NUMBERS9 + TIMES) for row in rows]
    assert [plain(record, NUMBERS9 + TIMES) for record in found] == wanted
    assert encoder.encode(flows).unencodable.flows == len(flows) - len(rows)


NUMBERS5 = NUMBERS9[:5]


@settings(deadline=None, max_examples=60)
@given(flows=batches(40), uptime_s=st.integers(0, 10_000_000), size=st.integers(72, 1500))
def test_netflow5_build_and_parse_is_equal(flows: FlowBatch, uptime_s: int, size: int) -> None:
    flows, export_s = recent(flows)
    flows.records["octets"] >>= 14  # at most 4 records for a flow
    flows.records["packets"] >>= 14
    boot_s, offset = export_s - uptime_s, offset_ns(flows.clock)
    boot_ns = boot_s * S - offset
    encoder, header = netflow5.Encoder(boot_ns), netflow5.Header(export_s, SEQUENCE, 7, offset)
    raw: list[bytes] = []
    for data_set in encoder.encode(flows).data_sets:
        raw += messages(encoder.data_messages(data_set, header, size))
    found, decoder = decoded(raw)
    assert all(len(message) <= min(size, 24 + 30 * 48) for message in raw)
    assert decoder.stats.sequence_errors == 0
    rows = [row for row in flows.records if row["ethertype"] == IPV4]
    totals = {name: sum(record[name] for record in found) for name in ("octetDeltaCount", "packetDeltaCount")}
    assert totals == {
        "octetDeltaCount": sum(int(row["octets"]) for row in rows),
        "packetDeltaCount": sum(int(row["packets"]) for row in rows),
    }
    names = NUMBERS5 + TIMES
    wanted = [expected(row, flows.clock, boot_s, names) for row in rows]
    got = [plain(record, names) for record in found]
    assert [record for at, record in enumerate(got) if at == 0 or record != got[at - 1]] == [
        record for at, record in enumerate(wanted) if at == 0 or record != wanted[at - 1]
    ]
    assert encoder.encode(flows).unencodable.flows == len(flows) - len(rows)
    assert encoder.encode(flows).clamped == sum(int(row["ifindex"]) > 65535 for row in rows)


def test_interfaces_that_netflow5_cannot_say() -> None:
    encoder = netflow5.Encoder(BOOT_NS)
    flows = batch(
        flow("192.0.2.1", "192.0.2.2", ifindex=65_535),
        flow("192.0.2.1", "192.0.2.2", ifindex=65_536, direction=1),
        flow("192.0.2.1", "192.0.2.2", ifindex=1 << 30),
    )
    encoded = encoder.encode(flows)
    (data_set,) = encoded.data_sets
    assert data_set.rows["ingressInterface"].tolist() == [65_535, 0, 65_535]
    assert data_set.rows["egressInterface"].tolist() == [0, 65_535, 0]
    assert encoded.clamped == 2


@pytest.mark.parametrize(("sampling", "field"), [(1, 1), (100, 2 << 14 | 100), (16_383, 2 << 14 | 16_383)])
def test_netflow5_says_its_sampling_in_each_message(sampling: int, field: int) -> None:
    encoder = netflow5.Encoder(BOOT_NS, sampling)
    raw = messages(encoder.data_messages(rows5(encoder, 31), HEADER5, 1464))
    assert [len(message) for message in raw] == [24 + 30 * 48, 24 + 48]
    assert {int.from_bytes(message[22:24], "big") for message in raw} == {field}


def test_no_flow_ends_after_its_message() -> None:
    """The difference without a sign, as pmacct takes it, is small."""
    now = ClockPair(5_000 * S + S - 1, EXPORT_TIME_S * S + S - 1)
    ends = flow("192.0.2.1", "192.0.2.2", first_ns=now.monotonic_ns, last_ns=now.monotonic_ns)
    encoder = netflow5.Encoder(BOOT_NS)
    (data_set,) = encoder.encode(FlowBatch(ends, now)).data_sets
    seconds, uptime_ms = Uptime(BOOT_NS).header(EXPORT_TIME_S, offset_ns(now))
    assert (seconds, uptime_ms) == (EXPORT_TIME_S + 1, 3_601_000)
    assert uptime_ms - int(data_set.rows["flowEndSysUpTime"][0]) == 1


def test_uptime_wraps_after_49_days() -> None:
    days = 50 * 86_400
    assert Uptime((EXPORT_TIME_S - days) * S - OFFSET_NS).header(EXPORT_TIME_S - 1, OFFSET_NS)[1] == days * 1000 - 2**32


def test_netflow9_leaves_out_what_it_does_not_have() -> None:
    ids = [field.element.id for field in netflow9_template(default_templates()[0]).fields]
    assert max(ids) <= 127
    assert {136, 152, 153, 256}.isdisjoint(ids)
    assert {8, 12, 21, 22, 1, 2, 6}.issubset(ids)
    none = netflow9_template(template("any", "flowEndReason", "octetDeltaCount"))
    assert [field.element.name for field in none.fields] == ["octetDeltaCount"]
    with pytest.raises(TemplateError, match=r"test.toml: .* the template has almost no element of NetFlow v9; use"):
        netflow9.Encoder([template("any", "flowEndReason", "ethernetType", "ipVersion")], BOOT_NS)


def test_sizes_that_do_not_fit() -> None:
    nine, five = netflow9.Encoder(default_templates(), BOOT_NS), netflow5.Encoder(BOOT_NS)
    for encoder, least in ((nine, 24 + 24 * 4), (five, 24 + 48)):
        encoder.check(least + 12)
        with pytest.raises(TemplateError, match="use fewer elements or a larger max_message_size"):
            encoder.check(least - 24)


def test_an_encoder_for_each_protocol() -> None:
    made = {name: exporter(name, "default", BOOT_NS, 10) for name in ("ipfix", "netflow9", "netflow5")}
    assert [type(each.encoder).__module__.rpartition(".")[2] for each in made.values()] == list(made)
    assert [each.header(1, 2, 3, 0).advance(10, 4).sequence for each in made.values()] == [12, 6, 12]


def test_options_of_netflow9() -> None:
    found = Decoder().decode(OPTIONS9).options
    assert found == [{"scopeSystem": 0x0A000001, "samplingInterval": 100, "samplingAlgorithm": 2}]


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_messages_are_decoded_or_refused(data: st.DataObject) -> None:
    raw = built9() + built5() + [OPTIONS9]
    decoder = Decoder()
    for message in raw:
        damaged = bytearray(message)
        for _ in range(data.draw(st.integers(0, 3))):
            damaged[data.draw(st.integers(2, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        with suppress(DecodeError):
            decoder.decode(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    stats = decoder.stats
    assert stats.messages + stats.malformed == len(raw)
