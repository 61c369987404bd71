"""Every Information Element against a model in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from lab.samples import CLOCK, IPV4, IPV6, S, batch, batches, default_templates, everything, flow, model
from netobs.base.clock import ClockPair
from netobs.encode import Encoder, Header
from netobs.encode.columns import COLUMNS, fill
from netobs.encode.template import wire
from netobs.flow.records import FlowBatch

_FAMILIES = {IPV4: "ipv4", IPV6: "ipv6"}


def parse_messages(encoder: Encoder, flows: FlowBatch, size: int) -> dict[str, list[dict[str, Any]]]:
    """Encode ``flows`` and parse every Message by construct: Data Records by family."""
    parsed: dict[str, list[dict[str, Any]]] = {"ipv4": [], "ipv6": []}
    for data_set in encoder.encode(flows).data_sets:
        block = encoder.data_messages(data_set, Header(0, 0, 1), size)
        for number in range(len(block)):
            message = wire.Message.parse(bytes(block.message(number)))
            assert [item.set_id for item in message.sets] == [data_set.template.id]
            body, width = message.sets[0].body, data_set.template.dtype.itemsize
            records = [
                wire.data_record(data_set.template.fields).parse(body[at : at + width])
                for at in range(0, len(body), width)
            ]
            assert len(records) == block.flows[number]
            parsed[data_set.template.family] += records
    return parsed


@settings(deadline=None)
@given(batches())
def test_all_elements_equal_the_model(flows: FlowBatch) -> None:
    encoder = Encoder([everything("ipv4"), everything("ipv6")])
    parsed = parse_messages(encoder, flows, 1200)
    for ethertype, family in _FAMILIES.items():
        rows = [model(row, flows.clock) for row in flows.records if row["ethertype"] == ethertype]
        names = everything(family).dtype.names
        assert names is not None
        wanted = [{name: row[name] for name in names} for row in rows]
        got = [{name: value for name, value in record.items() if name != "_io"} for record in parsed[family]]
        for record in got:
            for name in ("interfaceName", "interfaceDescription", "VRFname"):
                record[name] = record[name].rstrip(b"\0")
        assert got == wanted
    assert encoder.encode(flows).unencodable.flows == sum(row["ethertype"] == 0x0806 for row in flows.records)


@settings(deadline=None)
@given(batches())
def test_default_templates_equal_the_model(flows: FlowBatch) -> None:
    parsed = parse_messages(Encoder(default_templates()), flows, 1400)
    for ethertype, family in _FAMILIES.items():
        rows = [model(row, flows.clock) for row in flows.records if row["ethertype"] == ethertype]
        for row in rows:
            row["tcpControlBits"] &= 0xFF
        for record, row in zip(parsed[family], rows):
            assert [record[name] for name in record if name != "_io"] == [row[name] for name in record if name != "_io"]
        assert len(parsed[family]) == len(rows)


@settings(deadline=None)
@given(batches())
def test_start_end_and_export_time_are_in_order(flows: FlowBatch) -> None:
    out = fill(everything("any"), flows)
    for unit in ("Seconds", "Milliseconds", "Microseconds", "Nanoseconds"):
        assert (out[f"flowStart{unit}"] <= out[f"flowEnd{unit}"]).all()
    assert (out["flowEndMilliseconds"] <= flows.clock.realtime_ns // 10**6).all()


def test_model_knows_every_element() -> None:
    assert set(model(batch(flow("192.0.2.1", "192.0.2.2")).records[0], CLOCK)) == set(COLUMNS)


def test_fill_by_mask_and_index_is_the_same() -> None:
    every = everything("any")
    flows = batch(*(flow("192.0.2.1", "192.0.2.2", packets=number) for number in range(5)))
    mask = np.array([True, False, False, True, True])
    whole = fill(every, flows)
    assert fill(every, flows, mask).tobytes() == whole[mask].tobytes()
    assert fill(every, flows, np.array([4, 0])).tobytes() == whole[[4, 0]].tobytes()
    assert len(fill(every, flows, np.zeros(5, dtype=np.bool_))) == 0


def test_fill_of_several_chunks() -> None:
    rows = np.repeat(batch(flow("192.0.2.1", "192.0.2.2")).records, 5_001)
    rows["packets"] = np.arange(len(rows))
    out = fill(everything("ipv4"), FlowBatch(rows, CLOCK), np.arange(1, 5_001))
    assert out["packetDeltaCount"].tolist() == list(range(1, 5_001))
    assert set(out["octetDeltaCount"].tolist()) == {5_400}


@pytest.mark.parametrize(
    ("ns", "us_fraction", "ns_fraction"),
    [
        (0, 0, 0),
        (1, 0, 5),  # 4.29 steps of 2**-32 s
        (1_000, 3 * 2048, 4295),  # 4294.97 steps
        (500_000_000, 1 << 31, 1 << 31),
        (999_999_999, 0xFFFFF000, 0xFFFFFFFC),
    ],
)
def test_ntp_fractions_are_rounded_up(ns: int, us_fraction: int, ns_fraction: int) -> None:
    clock = ClockPair(0, 1_700_000_000 * S + ns)
    out = fill(everything("any"), FlowBatch(flow("192.0.2.1", "192.0.2.2", first_ns=0, last_ns=0), clock))
    assert int(out["flowEndMicroseconds"][0]) & 0xFFFFFFFF == us_fraction
    assert int(out["flowEndNanoseconds"][0]) & 0xFFFFFFFF == ns_fraction


def test_ntp_era_of_2036() -> None:
    clock = ClockPair(0, (2**32 - 2_208_988_800 + 5) * S)
    out = fill(everything("any"), FlowBatch(flow("192.0.2.1", "192.0.2.2", first_ns=0, last_ns=0), clock))
    assert out["flowEndMicroseconds"][0] == out["flowEndNanoseconds"][0] == 5 << 32


def test_a_flow_that_ends_after_the_clock_pair_ends_with_it() -> None:
    out = fill(everything("any"), batch(flow("192.0.2.1", "192.0.2.2", last_ns=CLOCK.monotonic_ns + S)))
    assert out["flowEndMilliseconds"][0] == CLOCK.realtime_ns // 10**6


def test_a_flow_that_ends_before_its_start_lasts_no_time() -> None:
    times = {"first_ns": CLOCK.monotonic_ns - S, "last_ns": CLOCK.monotonic_ns - 2 * S}
    out = fill(everything("any"), batch(flow("192.0.2.1", "192.0.2.2", **times)))
    assert out["flowStartMilliseconds"][0] == out["flowEndMilliseconds"][0] == CLOCK.realtime_ns // 10**6 - 2_000
    assert out["flowDurationMilliseconds"][0] == 0


def test_icmp_of_the_other_ip_version_has_its_type_in_the_same_elements() -> None:
    """ICMPv6 (58) in IPv4 and ICMP (1) in IPv6: both the port and the element of the record's family have it."""
    flows = batch(
        flow("192.0.2.1", "192.0.2.2", protocol=58, icmp=(128, 3)),
        flow("2001:db8::1", "2001:db8::2", protocol=1, icmp=(8, 1)),
        flow("192.0.2.1", "192.0.2.2", protocol=17, src_port=1, dst_port=2),
    )
    expected = {"icmpTypeCode": [0x8003, 0x0801, 0], "icmpType": [128, 8, 0], "icmpCode": [3, 1, 0]}
    for name, values in expected.items():
        for family in ("IPv4", "IPv6"):
            assert COLUMNS[f"{name}{family}"].values(flows).tolist() == values
    assert COLUMNS["destinationTransportPort"].values(flows).tolist() == [0x8003, 0x0801, 2]
    assert COLUMNS["sourceTransportPort"].values(flows).tolist() == [0, 0, 1]
