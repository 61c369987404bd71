"""The decoder: golden Messages, everything that RFC 7011 allows, and everything that it does not."""

from __future__ import annotations

import json
import random
import struct
import sys

import pytest

from lab.messages import message, options_template, template
from lab.samples import golden_messages
from netobs.base.errors import DecodeError
from netobs.collector.decode import Decoded, Decoder, DecodeStats, message_length
from netobs.collector.received import Record
from netobs.collector.text_table import FlowTable
from netobs.encode.template import wire

MUTATIONS = 3_000


def read(record: bytes, *fields: tuple[int, ...]) -> Record:
    """The one Data Record ``record`` of a Template of ``fields``."""
    (flow,) = Decoder().decode(message((2, template(300, *fields)), (300, record))).flows
    return flow


def test_golden_messages() -> None:
    decoder = Decoder()
    decoded = [decoder.decode(item, "exporter") for item in golden_messages()]
    assert [len(item.flows) for item in decoded] == [0, 5, 2, 4, 1]
    assert {(item.export_time_s, item.observation_domain) for item in decoded} == {(1_700_000_000, 42)}
    assert decoder.stats == DecodeStats(messages=5, flows=12)
    assert decoded[1].flows[1] == {
        "sourceIPv4Address": "192.0.2.1",
        "destinationIPv4Address": "198.51.100.8",
        "sourceTransportPort": 5353,
        "destinationTransportPort": 53,
        "protocolIdentifier": 17,
        "ipClassOfService": 0,
        "tcpControlBits": 0,
        "ingressInterface": 0,
        "egressInterface": 3,
        "flowDirection": 1,
        "octetDeltaCount": 5400,
        "packetDeltaCount": 10,
        "flowStartMilliseconds": "2023-11-14T22:13:11.123Z",
        "flowEndMilliseconds": "2023-11-14T22:13:18.456Z",
        "flowEndReason": 1,
        "ipVersion": 4,
        "ethernetType": 0x0800,
        "sourceMacAddress": "02:00:00:00:00:01",
        "destinationMacAddress": "02:00:00:00:00:02",
        "vlanId": 0,
        "postVlanId": 100,
        "minimumTTL": 63,
        "maximumTTL": 64,
        "minimumIpTotalLength": 52,
        "maximumIpTotalLength": 1500,
        "icmpTypeCodeIPv4": 0,
    }
    assert decoded[3].flows[2]["destinationIPv6Address"] == "fe80::2"
    assert decoded[3].flows[2]["icmpTypeCodeIPv6"] == 135 * 256


@pytest.mark.parametrize(
    ("field", "raw", "name", "value"),
    [
        ((1, 3), b"\1\0\0", "octetDeltaCount", 65536),
        ((1, 9), bytes(range(9)), "octetDeltaCount", "000102030405060708"),
        ((8, 4), b"\xc0\0\2\1", "sourceIPv4Address", "192.0.2.1"),
        ((8, 3), b"\xc0\0\2", "sourceIPv4Address", "c00002"),
        ((27, 16), bytes(15) + b"\1", "sourceIPv6Address", "::1"),
        ((27, 5), b"\0\0\0\0\1", "sourceIPv6Address", "0000000001"),
        ((56, 6), bytes(range(6)), "sourceMacAddress", "00:01:02:03:04:05"),
        ((56, 2), b"\1\2", "sourceMacAddress", "0102"),
        ((82, 8), b"eth0\0\0\0\0", "interfaceName", "eth0"),
        ((82, 3), b"\xffab", "interfaceName", "\ufffdab"),
        ((82, 65535), b"\5bond0", "interfaceName", "bond0"),
        ((82, 65535), b"\0", "interfaceName", ""),
        ((82, 65535), b"\xff\0\3lan", "interfaceName", "lan"),
        ((82, 65535), b"\xff\1\0" + b"x" * 256, "interfaceName", "x" * 256),
        ((95, 4), b"\3\0\0\x50", "applicationId", "03000050"),
        ((276, 1), b"\1", "dataRecordsReliability", True),
        ((276, 1), b"\2", "dataRecordsReliability", False),
        ((276, 1), b"\7", "dataRecordsReliability", 7),
        ((311, 8), struct.pack("!d", 0.25), "samplingProbability", 0.25),
        ((311, 4), struct.pack("!f", 0.5), "samplingProbability", 0.5),
        ((311, 8), struct.pack("!d", float("nan")), "samplingProbability", "nan"),
        ((434, 4), b"\xff\xff\xff\xfe", "mibObjectValueInteger", -2),
        ((150, 4), struct.pack("!I", 1_700_000_000), "flowStartSeconds", "2023-11-14T22:13:20Z"),
        ((152, 8), struct.pack("!Q", 1_700_000_000_007), "flowStartMilliseconds", "2023-11-14T22:13:20.007Z"),
        ((152, 8), b"\xff" * 8, "flowStartMilliseconds", 2**64 - 1),
        ((154, 8), b"\xe8\xfe\x84\x80\0\0\x18\0", "flowStartMicroseconds", "2023-11-14T23:42:56.000001Z"),
        ((156, 8), b"\xe8\xfe\x84\x80\0\0\0\5", "flowStartNanoseconds", "2023-11-14T23:42:56.000000001Z"),
        ((156, 8), b"\0\0\0\5\0\0\0\0", "flowStartNanoseconds", "2036-02-07T06:28:21.000000000Z"),
        ((5, 3, 32473), b"xyz", "enterprise32473/id5", "78797a"),
        ((5, 65535, 32473), b"\2xy", "enterprise32473/id5", "7879"),
        ((32000, 2), b"\1\2", "enterprise0/id32000", "0102"),
        ((291, 65535), b"\3\1\2\3", "basicList", "010203"),
    ],
)
def test_values(field: tuple[int, ...], raw: bytes, name: str, value: object) -> None:
    assert read(raw, field) == {name: value}


def test_repeated_element_gets_a_number() -> None:
    assert read(b"\1\2\3", (4, 1), (4, 1), (4, 1)) == {
        "protocolIdentifier": 1,
        "protocolIdentifier#2": 2,
        "protocolIdentifier#3": 3,
    }


def test_options_data_are_no_flows() -> None:
    decoder = Decoder()
    decoder.decode(message((3, options_template(400, 1, (149, 4), (41, 8)))))
    decoded = decoder.decode(message((400, b"\0\0\0\x2a" + bytes(7) + b"\x09" + b"\0")))
    assert decoded.flows == []
    assert decoded.options == [{"observationDomainId": 42, "exportedMessageTotalCount": 9}]
    assert decoder.stats == DecodeStats(messages=2, options=1)


def test_padding_of_any_set() -> None:
    sets = ((2, template(300, (11, 2)) + bytes(3)), (3, options_template(400, 1, (149, 4)) + bytes(2)))
    decoded = Decoder().decode(message(*sets, (300, b"\0\1\0\2" + b"\0")))
    assert decoded.flows == [{"destinationTransportPort": 1}, {"destinationTransportPort": 2}]


def test_data_before_its_template_is_counted() -> None:
    decoder = Decoder()
    assert decoder.decode(message((300, b"\1"))).flows == []
    assert decoder.stats.sets_without_template == 1
    assert len(decoder.decode(message((2, template(300, (4, 1))), (300, b"\1"))).flows) == 1
    assert decoder.stats.sequence_errors == 0


def test_reserved_sets_are_skipped() -> None:
    decoder = Decoder()
    assert decoder.decode(message((4, b"\1\2\3"), (255, b""))).flows == []
    assert decoder.stats.skipped_sets == 2


def test_templates_belong_to_exporter_and_domain() -> None:
    decoder = Decoder()
    decoder.decode(message((2, template(300, (4, 1)))), "a")
    for exporter, domain in (("b", 1), ("a", 2)):
        assert decoder.decode(message((300, b"\1"), domain=domain), exporter).flows == []
    assert len(decoder.decode(message((300, b"\1")), "a").flows) == 1
    decoder.forget("a")
    assert decoder.decode(message((300, b"\1")), "a").flows == []


@pytest.mark.parametrize(
    ("withdrawal", "left"),
    [
        ((2, b"\1\x2c\0\0"), {301, 400}),  # Template 300
        ((2, b"\0\2\0\0"), {400}),  # all Templates
        ((3, b"\0\3\0\0"), {300, 301}),  # all Options Templates
        ((3, b"\1\x90\0\0"), {300, 301}),  # Options Template 400
        ((2, b"\1\x2d\0\0\1\x2c\0\0"), {400}),
    ],
)
def test_withdrawals(withdrawal: tuple[int, bytes], left: set[int]) -> None:
    decoder = Decoder()
    decoder.decode(
        message((2, template(300, (4, 1)) + template(301, (4, 1))), (3, options_template(400, 1, (149, 4), (4, 1))))
    )
    decoder.decode(message(withdrawal))
    found = set()
    for number in (300, 301, 400):
        decoded = decoder.decode(message((number, bytes(5))))
        found |= {number} if decoded.flows or decoded.options else set()
    assert found == left


def test_golden_withdrawals() -> None:
    """Built by construct, and read: after each Message, which of the three Templates is left."""
    templates, *withdrawals = golden_messages("ipfix_withdrawals.hex")
    parts = [(2, 300), (3, 400), (2, 2)]
    for raw, (set_id, template_id) in zip(withdrawals, parts):
        body = wire.TemplateHeader.build({"template_id": template_id, "field_count": 0})
        head = {"version": 10, "length": 24, "export_time": 1_700_000_000, "sequence": 0, "observation_domain": 42}
        assert wire.Message.build({**head, "sets": [{"set_id": set_id, "set_length": 8, "body": body}]}) == raw
    decoder, left = Decoder(), []
    for raw in (templates, *withdrawals):
        assert decoder.decode(raw).flows == []
        known = []
        for number in (300, 301, 400):
            decoded = decoder.decode(message((number, bytes(12)), domain=42))
            known += [number] if decoded.flows or decoded.options else []
        left.append(known)
    assert left == [[300, 301, 400], [301, 400], [301], []]


def test_template_that_changes() -> None:
    decoder = Decoder()
    decoder.decode(message((2, template(300, (4, 1)))))
    assert decoder.decode(message((2, template(300, (60, 1))), (300, b"\4"))).flows == [{"ipVersion": 4}]


def test_sequence_numbers_are_checked() -> None:
    decoder = Decoder()
    data = (300, b"\1\2\3")
    decoder.decode(message((2, template(300, (4, 1))), sequence=2**32 - 4))
    decoder.decode(message(data, sequence=2**32 - 4))
    decoder.decode(message(data, sequence=2**32 - 1))
    assert decoder.stats.sequence_errors == 0
    decoder.decode(message(data, sequence=7))
    assert (decoder.stats.sequence_errors, decoder.stats.lost_records) == (1, 5)
    decoder.decode(message(data, sequence=0))  # the exporter began anew
    assert (decoder.stats.sequence_errors, decoder.stats.lost_records) == (2, 5)


def test_state_is_bounded() -> None:
    decoder = Decoder()
    for domain in range(3_000):
        decoder.decode(message((2, template(300, (4, 1))), domain=domain))
    assert decoder.decode(message((300, b"\1"), domain=0)).flows == []
    assert len(decoder.decode(message((300, b"\1"), domain=2_999)).flows) == 1


def test_templates_are_bounded_and_an_active_exporter_keeps_its_own() -> None:
    decoder = Decoder()
    decoder.decode(message((2, template(300, (4, 1)))), "good")
    for number in range(40):
        wide = [template(256 + 10 * number + at, *[(4, 1)] * 400) for at in range(10)]
        for other in ("one", "two"):
            decoder.decode(message((2, b"".join(wide))), other)
        assert len(decoder.decode(message((300, b"\1")), "good").flows) == 1
    kept = sum(len(domain.layouts) for domain in decoder.domains)
    assert kept < 600
    assert decoder.domains.room == sum(domain.room for domain in decoder.domains)


def test_an_exporter_that_invents_domains_does_not_push_out_an_active_one() -> None:
    decoder = Decoder()
    decoder.decode(message((2, template(300, (4, 1)))), "good")
    for domain in range(3_000):
        decoder.decode(message((2, template(300, (60, 1))), domain=domain), "bad")
        assert len(decoder.decode(message((300, b"\1")), "good").flows) == 1


def test_fields_of_no_octets_have_no_value() -> None:
    """A Message of 64 KiB could hold thousands of millions of them."""
    decoder = Decoder(max_steps=sys.maxsize)
    decoder.decode(message((2, template(300, (4, 1), *[(1, 0)] * 16_000))))
    decoded = decoder.decode(message((300, bytes(range(200)) * 300)))
    assert len(decoded.flows) == 60_000
    assert decoded.flows[7] == {"protocolIdentifier": 7}


MALFORMED = {
    "nothing": (b"", "octet 0: a Message Header has 16 bytes"),
    "half a header": (message()[:9], "octet 9: "),
    "NetFlow v8": (b"\0\x08" + message()[2:], "octet 0: version 8, expected 10"),
    "length below the header's": (b"\0\x0a\0\x0f" + message()[4:], "octet 2: length 15"),
    "length beyond the end": (b"\0\x0a\0\x11" + message()[4:], "octet 2: length 17, but 16 bytes came"),
    "half a Set Header": (b"\0\x0a\0\x12" + message()[4:] + b"\0\2", "octet 16: no room for a Set Header"),
    "Set shorter than its header": (message((300, b""))[:-1] + b"\3", "octet 18: Set length 3"),
    "Set beyond the end": (message((300, b""))[:-1] + b"\x05", "octet 18: Set length 5, 4 bytes are left"),
    "Template without its fields": (message((2, b"\1\x2c\0\2\0\1\0\4")), "octet 20: a Template Record runs past"),
    "half a Template header": (message((2, b"\1\x2c")), "octet 20: a Template Record runs past"),
    "enterprise number missing": (message((2, b"\1\x2c\0\1\x80\1\0\4")), "octet 20: a Template Record runs past"),
    "Template ID below 256": (message((2, template(255, (4, 1)))), "octet 20: Template 255"),
    "records of no octets": (message((2, template(300, (4, 0)))), "octet 20: Template 300"),
    "no scope field": (message((3, options_template(400, 0, (149, 4)))), "octet 20: Template 400 with 0 scope fields"),
    "too many scopes": (message((3, options_template(400, 2, (149, 4)))), "octet 20: Template 400 with 2 scope fields"),
    "string beyond its Set": (message((2, template(300, (82, 65535))), (300, b"\x04abc")), "octet 32: a Data Record"),
    "long form beyond its Set": (message((2, template(300, (82, 65535))), (300, b"\xff\1")), "octet 32: a Data Record"),
}


@pytest.mark.parametrize("mistake", MALFORMED)
def test_malformed_messages_name_the_octet(mistake: str) -> None:
    raw, text = MALFORMED[mistake]
    decoder = Decoder()
    with pytest.raises(DecodeError) as caught:
        decoder.decode(raw)
    assert text in str(caught.value)
    assert decoder.stats == DecodeStats(malformed=1)


def test_message_length_for_framing() -> None:
    assert message_length(golden_messages()[0][:16]) == 236
    with pytest.raises(DecodeError, match="not an IPFIX Message: octet 0: version 18245, expected 10"):
        message_length(b"GET / HTTP/1.1\r\n")


def test_mutated_messages_are_decoded_or_refused() -> None:
    generator = random.Random(7011)  # any order of events must be repeatable
    variable = [
        template(300, (82, 65535), (5, 65535, 32473), (152, 8), (6, 9)),
        options_template(400, 1, (149, 4), (82, 9)),
    ]
    data = b"\3abc\xff\0\2xy" + bytes(17)
    originals = [*golden_messages(), message((2, variable[0]), (3, variable[1]), (300, data * 3), (400, bytes(26)))]
    results = {Decoded: 0, DecodeError: 0}
    for _ in range(MUTATIONS // len(originals)):
        decoder, table = Decoder(), FlowTable()
        for original in originals:
            try:
                decoded = decoder.decode(mutate(generator, original))
            except DecodeError:
                results[DecodeError] += 1
                continue
            results[Decoded] += 1
            for flow in decoded.flows:
                assert len(table.row(flow)) > 20
                json.dumps(flow, allow_nan=False)
    assert min(results.values()) > 100


def mutate(generator: random.Random, raw: bytes) -> bytes:
    """Some bytes changed, and sometimes cut short, with the length put right so that the inside is read too."""
    changed = bytearray(raw)
    for _ in range(generator.choice((0, 1, 1, 2, 5, 40))):
        changed[generator.randrange(len(changed))] = generator.choice((0, 1, 2, 3, 0xFF, generator.randrange(256)))
    if generator.random() < 0.2:
        del changed[generator.randrange(len(changed)) :]
    if len(changed) >= 16 and generator.random() < 0.8:
        changed[:4] = struct.pack("!HH", 10, len(changed))
    return bytes(changed)
