"""What devices send beside the RFCs, or what few collectors read: it is decoded, and what is odd in it is noted."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from lab.messages import TIME_S, UPTIME_MS, message, message9, options_template, template
from lab.samples import golden_messages
from netobs.base.errors import DecodeError
from netobs.collector.decode import Damaged, Decoded, Decoder
from netobs.collector.received import Record
from netobs.collector.text_table import FlowTable
from tests.unit.collector.test_decode import read

CASES = json.loads((Path(__file__).resolve().parents[2] / "cases" / "messages.json").read_text("utf-8"))
TEMPLATE9 = bytes.fromhex(CASES[0]["messages"][0])
ADDRESSES = bytes.fromhex("c0000201 00000064 06")


def whatever(decoder: Decoder, raw: bytes) -> tuple[Decoded, str]:
    """What can be read of ``raw``, and what is wrong with it."""
    try:
        return decoder.decode(raw), ""
    except Damaged as error:
        if error.decoded is None:
            raise
        return error.decoded, str(error)


def kinds(decoded: Decoded) -> dict[str, int]:
    return {kind: times for kind, (times, _) in decoded.notes.found.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_cases(case: dict[str, Any]) -> None:
    decoder, flows = Decoder(), []
    for raw in case["messages"]:
        flows += whatever(decoder, bytes.fromhex(raw))[0].flows
    assert len(flows) == case["expected_flows"]
    assert decoder.stats.flows == case["expected_flows"]
    assert flows[0] == {"sourceIPv4Address": "192.0.2.1", "octetDeltaCount": 100, "protocolIdentifier": 6}


# B1 and its neighbours: fill


@pytest.mark.parametrize("zeros", [1, 2, 3, 4, 5, 20, 1_300])
def test_zeros_after_the_last_flowset(zeros: int) -> None:
    decoder = Decoder()
    decoder.decode(TEMPLATE9)
    decoded = decoder.decode(message9((256, ADDRESSES + bytes(3)), end=bytes(zeros)))
    assert len(decoded.flows) == 1
    assert (decoder.stats.malformed, decoder.stats.surplus_octets) == (0, zeros)
    assert kinds(decoded) == {"fill": 1, "sequence-repeated": 1}


def test_zeros_in_an_ipfix_message() -> None:
    raw = message((2, template(300, (4, 1))), (300, b"\1"))
    filled = struct.pack("!HH", 10, len(raw) + 24) + raw[4:] + bytes(24)
    decoder = Decoder()
    assert decoder.decode(filled).flows == [{"protocolIdentifier": 1}]
    assert decoder.stats.surplus_octets == 24


def test_zeros_that_something_follows_are_no_fill() -> None:
    decoder = Decoder()
    decoder.decode(TEMPLATE9)
    decoded, problem = whatever(decoder, message9((256, ADDRESSES + bytes(3)), end=bytes(8) + b"\1"))
    assert len(decoded.flows) == 1
    assert "octet 38: Set length 0" in problem


def test_up_to_three_octets_after_the_last_flowset() -> None:
    decoder = Decoder()
    decoder.decode(TEMPLATE9)
    decoded = decoder.decode(message9((256, ADDRESSES), end=b"\1\2\3"))
    assert (len(decoded.flows), decoder.stats.surplus_octets, decoder.stats.malformed) == (1, 3, 0)
    assert "surplus" in kinds(decoded)


def test_more_padding_than_an_alignment_needs() -> None:
    """NX-OS: 24 octets after records that are longer."""
    decoder = Decoder()
    decoder.decode(message9((0, template(300, (27, 16), (28, 16)))))
    decoded = decoder.decode(message9((300, bytes(32 + 24)), sequence=1))
    assert len(decoded.flows) == 1
    assert kinds(decoded) == {"padding": 1}


# B2: padding of Template Sets


@pytest.mark.parametrize("padding", [b"", b"\x2d", b"\x2d\x67", b"\1\2\3", bytes(9), b"\0\0\0\1", b"\1\0\0\4\0\0\0\1"])
def test_padding_of_an_options_template_flowset_is_what_is_shorter_than_a_record(padding: bytes) -> None:
    options = bytes.fromhex("0100 0004 0008 0001 0004 005f 0004 0060 0040") + padding
    raw = message9((1, options), (0, template(300, (4, 1))), (300, b"\6\0\0\0"), (256, bytes(72)), count=4)
    decoded = Decoder().decode(raw)
    assert [flow["protocolIdentifier"] for flow in decoded.flows] == [6, 0, 0, 0]
    assert [list(record) for record in decoded.options] == [["scopeSystem", "applicationId", "applicationName"]]
    assert ("padding" in kinds(decoded)) == any(padding) or len(padding) > 7


@pytest.mark.parametrize(("set_id", "record"), [(2, template(300, (4, 1))), (3, options_template(300, 1, (4, 1)))])
def test_padding_of_template_sets_in_ipfix(set_id: int, record: bytes) -> None:
    decoded = Decoder().decode(message((set_id, record + b"\1\2\3"), (300, b"\6")))
    assert decoded.flows + decoded.options == [{"protocolIdentifier": 6}]
    assert kinds(decoded) == {"padding": 1}


def test_a_field_of_length_256_in_front_of_padding_is_whole() -> None:
    """The zeros at its end are not padding."""
    assert Decoder().decode(message((2, template(300, (82, 256))), (300, b"a" * 256))).flows == [
        {"interfaceName": "a" * 256}
    ]


# B3: lengths in the data


def test_variable_length_in_netflow9() -> None:
    decoder = Decoder()
    decoder.decode(message9((0, template(300, (4, 1), (96, 65535), (1, 4)))))
    data = b"\6\5https\0\0\0\1" + b"\x11\xff\0\3dns\0\0\0\2"
    assert decoder.decode(message9((300, data))).flows == [
        {"protocolIdentifier": 6, "applicationName": "https", "octetDeltaCount": 1},
        {"protocolIdentifier": 17, "applicationName": "dns", "octetDeltaCount": 2},
    ]


def test_elements_above_32767_in_netflow9_have_no_enterprise() -> None:
    """Cisco ASA: 33000, 33002, 40001 and others; nProbe: 57590."""
    decoder = Decoder()
    decoder.decode(message9((0, template(300, (33_002, 2), (57_590, 65535), (4, 1)))))
    flows = decoder.decode(message9((300, b"\3\xe9\2ab\6"))).flows
    assert flows == [{"enterprise0/id33002": "03e9", "enterprise0/id57590": "6162", "protocolIdentifier": 6}]


@pytest.mark.parametrize(
    ("field", "raw", "name", "value"),
    [
        ((1, 65535), b"\3\1\0\0", "octetDeltaCount", 65536),
        ((434, 65535), b"\2\xff\xfe", "mibObjectValueInteger", -2),
        ((434, 3), b"\xff\xff\xfe", "mibObjectValueInteger", -2),
        ((8, 65535), b"\4\xc0\0\2\1", "sourceIPv4Address", "192.0.2.1"),
        ((152, 65535), b"\x08" + struct.pack("!Q", 7), "flowStartMilliseconds", "1970-01-01T00:00:00.007Z"),
        ((311, 65535), b"\4" + struct.pack("!f", 0.5), "samplingProbability", 0.5),
        ((311, 65535), b"\3\1\2\3", "samplingProbability", "010203"),
        ((1, 65535), b"\0", "octetDeltaCount", ""),
    ],
)
def test_numbers_of_variable_or_odd_length(field: tuple[int, int], raw: bytes, name: str, value: object) -> None:
    assert read(raw, field) == {name: value}


def test_a_scope_of_no_octets_in_netflow9() -> None:
    """Juniper: the scope System has length 0."""
    options = bytes.fromhex("0100 0004 0008 0001 0000 0022 0004 0023 0001")
    decoded = Decoder().decode(message9((1, options), (256, b"\0\0\0\x64\2"), count=2))
    assert decoded.options == [{"samplingInterval": 100, "samplingAlgorithm": 2}]


# B4: damage


def test_a_set_that_is_damaged_inside_does_not_hide_those_after_it() -> None:
    decoder = Decoder()
    raw = message((2, template(300, (82, 65535))), (300, b"\2ab\7c"), (2, template(301, (4, 1))), (301, b"\6"))
    decoded, problem = whatever(decoder, raw)
    assert decoded.flows == [{"interfaceName": "ab"}, {"protocolIdentifier": 6}]
    assert "octet 35: a Data Record runs past the end of its Set" in problem
    assert (decoder.stats.messages, decoder.stats.malformed, decoder.stats.flows) == (0, 1, 2)
    decoder.decode(message((301, b"\6"), sequence=90))
    assert decoder.stats.sequence_errors == 0


def test_a_message_that_is_cut_keeps_its_whole_sets() -> None:
    raw = message((2, template(300, (4, 1))), (300, b"\6"), (300, b"\7"))
    decoded, problem = whatever(Decoder(), raw[:-1])
    assert [flow["protocolIdentifier"] for flow in decoded.flows] == [6]
    assert f"octet {len(raw) - 5 + 2}: Set length 5, 4 bytes are left" in problem
    decoded, problem = whatever(Decoder(), raw[:-5])
    assert len(decoded.flows) == 1
    assert f"octet 2: length {len(raw)}, but {len(raw) - 5} bytes came" in problem


def test_a_damaged_header_has_nothing_to_read() -> None:
    with pytest.raises(Damaged) as caught:
        Decoder().decode(b"\0\x09\0\1")
    assert caught.value.decoded is None
    assert isinstance(caught.value, DecodeError)


# B5, B6: octets after the end


@pytest.mark.parametrize("surplus", [b"x", bytes(16), golden_messages()[0]])
def test_octets_after_the_end_of_an_ipfix_message(surplus: bytes) -> None:
    """RFC 7011, 3.1 and 10.3: the length counts, and a datagram has one Message."""
    decoder = Decoder()
    decoded = decoder.decode(message((2, template(300, (4, 1))), (300, b"\6")) + surplus)
    assert decoded.flows == [{"protocolIdentifier": 6}]
    assert (decoder.stats.malformed, decoder.stats.surplus_octets) == (0, len(surplus))
    assert kinds(decoded) == {"surplus": 1}


@pytest.mark.parametrize("surplus", [1, 47, 48, 1_000])
def test_octets_after_the_records_of_netflow5(surplus: int) -> None:
    decoder, raw = Decoder(), golden_messages("netflow5.hex")[0]
    assert len(decoder.decode(raw + b"\7" * surplus).flows) == 3
    assert (decoder.stats.malformed, decoder.stats.surplus_octets) == (0, surplus)


def test_netflow5_with_fewer_or_more_records_than_it_should_have() -> None:
    decoder, raw = Decoder(), golden_messages("netflow5.hex")[0]
    decoded, problem = whatever(decoder, raw[:-1])
    assert len(decoded.flows) == 2
    assert "count 3, but 143 bytes follow the header" in problem
    many = raw[:2] + struct.pack("!H", 40) + raw[4:24] + raw[24:72] * 40
    decoded = decoder.decode(many)
    assert len(decoded.flows) == 40
    assert "count" in kinds(decoded)
    decoded, problem = whatever(decoder, raw[:2] + b"\0\0" + raw[4:24])
    assert decoded.flows == []
    assert "count 0" in problem


# B7, B8: elements


def test_reverse_elements() -> None:
    fields = ((1, 4, 29305), (6, 1, 29305), (152, 8, 29305), (32_000, 1, 29305), (8, 4))
    raw = struct.pack("!IBQB", 100, 0x12, 7, 1) + bytes([192, 0, 2, 1])
    assert read(raw, *fields) == {
        "reverseOctetDeltaCount": 100,
        "reverseTcpControlBits": 0x12,
        "reverseFlowStartMilliseconds": "1970-01-01T00:00:00.007Z",
        "enterprise29305/id32000": "01",
        "sourceIPv4Address": "192.0.2.1",
    }


TYPES = (3, options_template(400, 2, (346, 4), (303, 2), (339, 1), (341, 65535)))


def described(*elements: tuple[int, int, int, bytes], sequence: int = 0) -> bytes:
    """A Message that describes ``elements``: enterprise, id, code of the type, name."""
    rows = b"".join(struct.pack("!IHBB", *each[:3], len(each[3])) + each[3] for each in elements)
    return message(TYPES, (400, rows), sequence=sequence)


def test_elements_that_the_exporter_describes() -> None:
    """Also one whose Template came before, and its new name from then on."""
    decoder = Decoder()
    data = (300, b"\0\0\0\x07\xff\xff\xff\xfe" + bytes(31) + b"\5")
    fields = template(300, (1, 4, 32473), (2, 4, 32473), (3, 32, 32473))
    before = decoder.decode(message((2, fields), data)).flows[0]
    assert list(before) == ["enterprise32473/id1", "enterprise32473/id2", "enterprise32473/id3"]
    decoder.decode(described((32473, 1, 3, b"rtt"), (32473, 2, 7, b"drift"), (32473, 3, 23, b"wide"), sequence=1))
    assert decoder.decode(message(data)).flows[0] == {"rtt": 7, "drift": -2, "wide": 5}
    decoder.decode(described((32473, 1, 18, b"peer")))
    assert decoder.decode(message(data)).flows[0] == {"peer": "0.0.0.7", "drift": -2, "wide": 5}
    assert decoder.decode(message((2, fields), data), "another").flows[0] == before


@pytest.mark.parametrize(
    ("element", "name"),
    [
        ((0, 4, 13, b"mine"), "protocolIdentifier"),  # of the registry
        ((29305, 4, 13, b"mine"), "reverseProtocolIdentifier"),
        ((9, 4, 13, b"a\x1b[2J"), "enterprise9/id4"),
        ((9, 4, 13, b""), "enterprise9/id4"),
        ((9, 4, 24, b"mine"), "enterprise9/id4"),
        ((9, 4, 1, b"octetDeltaCount"), "enterprise9/octetDeltaCount"),
        ((9, 0x8004, 1, b"mine"), "mine"),
    ],
)
def test_descriptions_that_are_not_believed(element: tuple[int, int, int, bytes], name: str) -> None:
    decoder = Decoder()
    decoder.decode(described(element))
    field = (4, 1) if element[0] == 0 else (4, 1, element[0])
    assert list(decoder.decode(message((2, template(300, field)), (300, b"\6"))).flows[0]) == [name]


# B9: relative times


def flow_times(flow: Record) -> tuple[str, str]:
    return flow["flowStartMilliseconds"], flow["flowEndMilliseconds"]


WRAP = 1 << 32


@pytest.mark.parametrize("days", [0, 40, 49, 50, 200])
def test_uptimes_of_ipfix_with_the_time_of_the_start_in_options(days: int) -> None:
    """softflowd and Juniper; sysUpTime begins anew after 49.7 days."""
    decoder, init_ms = Decoder(), (TIME_S - 86_400 * days) * 1_000 - 60_000
    options = (3, options_template(400, 1, (143, 4), (160, 8))), (400, struct.pack("!IQ", 1, init_ms))
    fields = template(300, (22, 4), (21, 4))
    ends = [(TIME_S * 1_000 - ago - init_ms) % WRAP for ago in (5_500, 250)]
    decoder.decode(message(*options))
    flow = decoder.decode(message((2, fields), (300, struct.pack("!II", *ends)), sequence=1)).flows[0]
    assert flow_times(flow) == ("2023-11-14T22:13:14.500Z", "2023-11-14T22:13:19.750Z")
    assert FlowTable().row(flow).split()[:2] == ["2023-11-14T22:13:14.500Z", "5.250"]


@pytest.mark.parametrize("order", [(160, 22, 21), (22, 21, 160)])
def test_uptimes_of_ipfix_with_the_time_of_the_start_in_the_flow(order: tuple[int, ...]) -> None:
    """MikroTik, wherever the element stands."""
    values = {
        160: struct.pack("!Q", TIME_S * 1_000 - 60_000),
        22: struct.pack("!I", 54_500),
        21: struct.pack("!I", 59_750),
    }
    flow = read(b"".join(values[number] for number in order), *((number, len(values[number])) for number in order))
    assert flow_times(flow) == ("2023-11-14T22:13:14.500Z", "2023-11-14T22:13:19.750Z")


def test_uptimes_without_the_time_of_the_start_have_a_duration() -> None:
    """SonicWALL."""
    decoded = Decoder().decode(
        message((2, template(300, (22, 4), (21, 4))), (300, struct.pack("!II", 2**32 - 1, 4_999)))
    )
    assert "flowStartMilliseconds" not in decoded.flows[0]
    assert kinds(decoded) == {"no-init-time": 2}
    assert FlowTable().row(decoded.flows[0]).split()[:2] == ["-", "5.000"]


def test_uptimes_of_netflow9_in_both_orders() -> None:
    decoder = Decoder()
    for fields in (((22, 4), (21, 4)), ((21, 4), (22, 4))):
        values = {22: UPTIME_MS - 900, 21: UPTIME_MS + 100}
        data = struct.pack("!II", *(values[number] for number, _ in fields))
        flow = decoder.decode(message9((0, template(300, *fields)), (300, data))).flows[0]
        assert flow_times(flow) == ("2023-11-14T22:13:19.100Z", "2023-11-14T22:13:20.100Z")


def test_times_relative_to_export_time() -> None:
    flow = read(struct.pack("!II", 5_500_000, 250_000), (158, 4), (159, 4))
    assert flow_times(flow) == ("2023-11-14T22:13:14.500Z", "2023-11-14T22:13:19.750Z")


def test_a_start_and_a_duration() -> None:
    flow = read(struct.pack("!QI", TIME_S * 1_000, 1_250), (152, 8), (161, 4))
    assert FlowTable().row(flow).split()[:2] == ["2023-11-14T22:13:20.000Z", "1.250"]


def test_an_event_has_a_time() -> None:
    """Cisco ASA: NSEL, with the octets of the initiator."""
    flow = read(struct.pack("!QQI", TIME_S * 1_000, 77, 5), (323, 8), (231, 8), (298, 4))
    cells = FlowTable().row(flow).split()
    assert (cells[:2], cells[8:10]) == (["2023-11-14T22:13:20.000Z", "-"], ["5", "77"])


# B10: ICMP


@pytest.mark.parametrize(
    ("protocol", "values", "shown"),
    [
        (1, {"icmpTypeCodeIPv4": 0x0301}, "192.0.2.2:3.1"),
        (1, {"icmpTypeCodeIPv4": 0}, "192.0.2.2:0.0"),
        (1, {"icmpTypeCodeIPv4": 0x0800, "destinationTransportPort": 0}, "192.0.2.2:8.0"),
        (1, {"icmpTypeCodeIPv4": 0, "destinationTransportPort": 0x0301}, "192.0.2.2:3.1"),
        (1, {"icmpTypeIPv4": 3, "icmpCodeIPv4": 1}, "192.0.2.2:3.1"),
        (1, {"icmpTypeIPv4": 8}, "192.0.2.2:8.0"),
        (1, {"icmpTypeIPv4": 8, "icmpCodeIPv4": 0, "destinationTransportPort": 0}, "192.0.2.2:8.0"),
        (58, {"icmpTypeCodeIPv6": 0x8700}, "192.0.2.2:135.0"),
        (58, {"icmpTypeCodeIPv4": 0x8700}, "192.0.2.2:135.0"),
        (58, {"icmpTypeIPv6": 135, "icmpCodeIPv6": 0}, "192.0.2.2:135.0"),
        (1, {}, "192.0.2.2"),
        (1, {"icmpTypeCodeIPv4": "0a"}, "192.0.2.2"),
        (6, {"icmpTypeCodeIPv4": 0x0301, "destinationTransportPort": 80}, "192.0.2.2:80"),
    ],
)
def test_type_and_code_of_icmp_in_the_table(protocol: int, values: Record, shown: str) -> None:
    flow = {"destinationIPv4Address": "192.0.2.2", "sourceTransportPort": 9, "protocolIdentifier": protocol, **values}
    assert FlowTable().row(flow).split()[5] == shown
