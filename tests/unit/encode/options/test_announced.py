"""Options records: golden bytes of each form, read back; order, sizes, texts, and what each record says."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.samples import EXPORT_TIME_S, S, default_templates, golden_messages
from netobs.collector.decode import Decoder
from netobs.collector.received import Record
from netobs.encode import Encoder, Field, Header, Template, netflow5, netflow9
from netobs.encode.options.choice import FORMS, KINDS, OptionsChoice
from netobs.encode.options.wire import element, ntp_us, octets_of
from netobs.encode.registry import InformationElement
from netobs.encode.template import wire
from netobs.flow.report import Exported, Losses, Report, ReportedInterface

NTP_2023 = (EXPORT_TIME_S + 2_208_988_800) << 32
REPORT = Report(
    interfaces=(
        ReportedInterface(2, "eth0", "uplink Zürich", b"\x02\0\0\0\0\x01"),
        ReportedInterface(70_000, "tap0123456789ab", "", b"\x02\0\0\0\0\x02"),
    ),
    sampling=100,
    exporting_process=3,
    exported=Exported(messages=11, flows=22, octets=3_333),
    ignored=Losses(0, 7, 700, EXPORT_TIME_S * S, (EXPORT_TIME_S + 1) * S),
    not_sent=Losses(4, 5, 600, EXPORT_TIME_S * S, (EXPORT_TIME_S + 2) * S),
)
OWN = InformationElement("acmeInterface", 5, "unsigned32", 4, "identifier", "none", enterprise=32473)
HEADER, HEADER9 = Header(EXPORT_TIME_S, 0xFFFFFFFE, 42), netflow9.Header(EXPORT_TIME_S, 0xFFFFFFFE, 42)
BOOT_NS = (EXPORT_TIME_S - 3600) * S


@functools.cache
def encoder(protocol: str, form: str, kinds: tuple[str, ...] = KINDS) -> Any:
    ipv4, ipv6 = default_templates()
    templates = [Template(ipv4.family, (*ipv4.fields, Field(OWN, 4)), ipv4.source), ipv6]
    choice = OptionsChoice(kinds, form)
    return Encoder(templates, choice) if protocol == "ipfix" else netflow9.Encoder(templates, BOOT_NS, choice)


def announced(protocol: str, form: str, size: int = 1400, report: Report = REPORT, **more: Any) -> list[bytes]:
    header = HEADER if protocol == "ipfix" else HEADER9
    built = encoder(protocol, form).announcement(report, header, size, **more)
    return [message for message, _ in built]


def read(messages: list[bytes]) -> tuple[list[Record], Decoder]:
    """Every options record; the decoder has seen no fault."""
    decoder = Decoder()
    records = [record for message in messages for record in decoder.decode(message).options]
    stats = decoder.stats
    assert (stats.sequence_errors, stats.sets_without_template, stats.malformed, stats.flows) == (0, 0, 0, 0)
    return records, decoder


VARIANTS = [("ipfix", "fixed"), ("ipfix", "strict"), ("netflow9", "fixed")]


@pytest.mark.parametrize(("protocol", "form"), VARIANTS)
def test_golden_bytes(protocol: str, form: str) -> None:
    golden = golden_messages(f"{protocol}_options_{form}.hex")
    assert [message.hex() for message in announced(protocol, form)] == [message.hex() for message in golden]


def test_netflow9_has_one_form() -> None:
    assert announced("netflow9", "strict") == announced("netflow9", "fixed")


def ids(form: str, *kinds: str) -> list[int]:
    """The Template IDs of options records; of the kind "sampling", the first."""
    first = {each.kind: each.id for each in reversed(encoder("ipfix", form).options)}
    return [first[kind] for kind in kinds]


def about(records: list[Record], name: str) -> list[Record]:
    return [record for record in records if name in record]


def test_the_fixed_form_is_read_back() -> None:
    records, _ = read(golden_messages("ipfix_options_fixed.hex"))
    assert about(records, "interfaceName") == [
        {"observationDomainId": 42, "ingressInterface": index, "interfaceName": name, "interfaceDescription": alias}
        for index, name, alias in ((2, "eth0", "uplink Zürich"), (70_000, "tap0123456789ab", ""))
    ]
    assert about(records, "samplingInterval") == [{"observationDomainId": 42, "samplingInterval": 100}]
    (statistics,) = about(records, "exportedMessageTotalCount")
    assert list(statistics.values()) == [42, 11, 22, 3_333]
    (not_sent,) = about(records, "notSentFlowTotalCount")
    assert list(not_sent.values()) == [3, 4, 5, 600]
    (ignored,) = about(records, "ignoredPacketTotalCount")
    assert list(ignored.values()) == [42, 7, 700]
    keys = about(records, "flowKeyIndicator")
    assert [record["templateId"] for record in keys] == [each.id for each in encoder("ipfix", "fixed").templates]
    names = [field.element.name for field in default_templates()[0].fields]
    said = {name for bit, name in enumerate(names) if keys[0]["flowKeyIndicator"] >> bit & 1}
    assert said == {
        "sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
        "protocolIdentifier", "ingressInterface", "egressInterface", "flowDirection", "ipVersion", "ethernetType",
        "vlanId", "postVlanId", "icmpTypeCodeIPv4",
    }  # fmt: skip
    assert len(records) == 9


def test_the_strict_form_is_read_back() -> None:
    records, _ = read(golden_messages("ipfix_options_strict.hex"))
    first, second = about(records, "interfaceName")
    assert (first["ingressInterface"], first["interfaceName"], first["interfaceDescription"]) == (
        2, "eth0", "uplink Zürich")  # fmt: skip
    assert first["sourceMacAddress"] == "02:00:00:00:00:01"
    assert second["interfaceDescription"] == ""
    (selector,) = about(records, "selectorId")
    assert selector == {"selectorId": 1, "selectorAlgorithm": 4, "samplingProbability": 0.01}
    (ignored,) = about(records, "meteringProcessId")
    assert list(ignored.values())[:4] == [42, 1, 7, 700]
    assert ignored["observationTimeMicroseconds"] == "2023-11-14T22:13:20.000000Z"
    assert ignored["observationTimeMicroseconds#2"] == "2023-11-14T22:13:21.000000Z"
    (not_sent,) = about(records, "exportingProcessId")
    assert list(not_sent.values())[:4] == [3, 4, 5, 600]
    assert not_sent["observationTimeMicroseconds#2"] == "2023-11-14T22:13:22.000000Z"


def test_netflow9_is_read_back() -> None:
    records, decoder = read(golden_messages("netflow9_options_fixed.hex"))
    assert [record["samplingInterval"] for record in about(records, "samplingInterval")] == [100, 100]
    assert about(records, "samplingAlgorithm")[0]["samplingAlgorithm"] == 2
    assert {record["scopeSystem"] for record in records} == {42}
    assert [record["interfaceName"] for record in about(records, "interfaceName")] == ["eth0", "tap0123456789ab"]
    assert decoder.stats.lost_messages == 0


@pytest.mark.parametrize("form", FORMS)
def test_types_of_enterprise_elements_come_before_their_templates(form: str) -> None:
    decoder = Decoder()
    seen: list[str] = []
    for message in announced("ipfix", form):
        options = decoder.decode(message).options
        (first, *_) = wire.Message.parse(message).sets
        seen.append(
            f"{first.set_id}:{int.from_bytes(first.body[:2], 'big')}" if first.set_id < 4 else f"{first.set_id}"
        )
        if "informationElementName" in (options or [{}])[0]:
            (record,) = options
            assert (record["privateEnterpriseNumber"], record["informationElementId"]) == (32473, 5)
            assert record["informationElementName"] == "acmeInterface"
            assert [record[f"informationElement{name}"] for name in ("DataType", "Semantics", "Units")] == [3, 4, 0]
    types, ipv4, ipv6 = ids(form, "element_types")[0], *(each.id for each in encoder("ipfix", form).templates)
    assert seen[:4] == [f"3:{types}", f"{types}", f"2:{ipv4}", f"2:{ipv6}"]
    assert [each for each in seen[4:] if ":" in each] == seen[4:-1]
    assert len(set(seen)) == len(seen)


def test_all_data_of_a_refresh_is_in_one_message() -> None:
    *_, last = announced("ipfix", "fixed")
    wanted = ids(
        "fixed",
        "interfaces",
        *(each.kind for each in encoder("ipfix", "fixed").options if each.kind not in ("element_types", "namespaces")),
    )
    assert [item.set_id for item in wire.Message.parse(last).sets] == wanted
    (only,) = announced("ipfix", "fixed", templates=False)
    assert only[16:] == last[16:]


@pytest.mark.parametrize(("protocol", "form"), VARIANTS)
def test_sampling_is_always_said(protocol: str, form: str) -> None:
    records, _ = read(announced(protocol, form, report=Report()))
    said = [list(record.values())[1:] for record in about(records, "samplingInterval")]
    assert said == ([[1]] if protocol == "ipfix" else [[1], [1, 1]])  # samplingAlgorithm 1: deterministic
    assert about(records, "samplingProbability") == []


def test_no_element_is_twice_in_a_template_of_the_fixed_form() -> None:
    for protocol in ("ipfix", "netflow9"):
        for options in encoder(protocol, "fixed").options:
            ids = [field.element.id for field in options.scopes + options.fields]
            assert len(ids) == len(set(ids)), options.kind


def test_no_time_means_never() -> None:
    """Before there is a loss: no record with a time in the strict form, true zeros in the fixed one."""
    quiet = Report(interfaces=REPORT.interfaces)
    strict, decoder = read(announced("ipfix", "strict", report=quiet))
    assert [record for record in strict if any("Time" in name for name in record)] == []
    assert about(strict, "ignoredPacketTotalCount") == about(strict, "notSentFlowTotalCount") == []
    fixed, _ = read(announced("ipfix", "fixed", report=quiet))
    assert list(about(fixed, "ignoredPacketTotalCount")[0].values()) == [42, 0, 0]
    assert list(about(fixed, "notSentFlowTotalCount")[0].values()) == [1, 0, 0, 0]
    loss = Report(ignored=REPORT.ignored)
    (message,) = announced("ipfix", "strict", report=loss, templates=False)  # the loss comes: its Template is known
    assert about(decoder.decode(message).options, "ignoredPacketTotalCount")
    assert decoder.stats.sets_without_template == 0


def test_nothing_is_said_that_is_not_so() -> None:
    quiet = Report()
    none = Encoder(default_templates())
    assert [records for _, records in none.announcement(quiet, HEADER, 1400)] == [0, 0]
    assert none.announcement(quiet, HEADER, 1400, templates=False) == []
    assert netflow5.Encoder(BOOT_NS, 100).announcement(REPORT, netflow5.Header(0, 0, 0), 1400) == []
    sets = [wire.Message.parse(message).sets[0] for message in announced("ipfix", "strict", report=quiet)]
    said = [int.from_bytes(item.body[:2], "big") for item in sets if item.set_id == 3]
    selector = [each.id for each in encoder("ipfix", "strict").options if each.kind == "sampling"][1]
    of_namespaces = {each.id for each in encoder("ipfix", "strict").options if each.kind == "namespaces"}
    others = {each.id for each in encoder("ipfix", "strict").options} - of_namespaces
    assert set(said) == others - {selector}  # nothing is selected
    sets = [
        wire.Message.parse(message).sets[0] for message in announced("ipfix", "strict", report=Report(namespaces={}))
    ]
    assert {int.from_bytes(item.body[:2], "big") for item in sets if item.set_id == 3} == {*said, *of_namespaces}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_of_namespaces_have_names_and_their_interfaces_stand_apart(form: str) -> None:
    """An index in another namespace never gives the name of an interface to a collector that reads indices only."""
    interfaces = (ReportedInterface(2, "eth0"), ReportedInterface(2, "qr-1", "qr-1", netns=7))
    report = Report(interfaces=interfaces, namespaces={7: "qrouter-1", 9: "ovnmeta-x"})
    records, decoder = read(announced("ipfix", form, report=report))
    names = about(records, "VRFname")
    assert [(each["ingressVRFID"], each["VRFname"]) for each in names] == [(7, "qrouter-1"), (9, "ovnmeta-x")]
    found = [
        (each.get("ingressVRFID"), each["ingressInterface"], each["interfaceName"].rstrip("\0"))
        for each in about(records, "interfaceName")
    ]
    assert found == [(None, 2, "eth0"), (7, 2, "qr-1")]
    report = Report(interfaces=interfaces, namespaces={7: "qrouter-2"})
    (message,) = announced("ipfix", form, report=report, templates=False)
    assert [each["VRFname"] for each in about(decoder.decode(message).options, "VRFname")] == ["qrouter-2"]
    assert decoder.stats.sets_without_template == 0


names = st.text(max_size=300)
numbers = st.integers(0, (1 << 64) - 1)
losses = st.builds(Losses, numbers, numbers, numbers, st.integers(0, 3 * EXPORT_TIME_S * S), st.just(0))
reports = st.builds(
    Report,
    st.lists(
        st.builds(
            ReportedInterface, st.integers(0, (1 << 32) - 1), names, names, st.sampled_from([b"", b"\1\2\3\4\5\6"])
        ),
        max_size=30,
    ).map(tuple),
    st.integers(1, 65_535),
    st.integers(1, 9),
    st.builds(Exported, numbers, numbers, numbers),
    losses,
    losses,
)


@settings(deadline=None)
@given(
    variant=st.sampled_from(VARIANTS),
    report=reports,
    size=st.sampled_from([512, 1400, 8972, 16_384]),
    templates=st.booleans(),
)
def test_what_is_built_is_read_back(variant: tuple[str, str], report: Report, size: int, templates: bool) -> None:
    protocol, form = variant
    header = HEADER if protocol == "ipfix" else HEADER9
    before = encoder(protocol, form).announcement(report, header, size)
    built = encoder(protocol, form).announcement(
        report, header.advance(sum(records for _, records in before), len(before)), size, templates
    )
    found, decoder = [], Decoder()
    for message, records in before + built:
        assert len(message) <= size
        options = decoder.decode(message).options
        assert len(options) == records
        found += options
    assert (decoder.stats.sequence_errors, decoder.stats.sets_without_template) == (0, 0)
    interfaces = about(found, "interfaceName")
    assert [record["ingressInterface"] for record in interfaces] == [each.index for each in report.interfaces] * 2
    for record, each in zip(interfaces, report.interfaces):
        for text, said, most in (
            (each.name, record["interfaceName"], 15),
            (each.description, record["interfaceDescription"], 63),
        ):
            clean = "".join(char if char.isprintable() else "?" for char in text)
            limit = 254 if form == "strict" else most
            assert clean.startswith(said)
            assert len(said.encode()) <= limit
            assert said == clean or len(said.encode()) > limit - 4
    (counts, *_) = about(found, "exportedFlowRecordTotalCount")
    assert list(counts.values())[1:] == [report.exported.messages, report.exported.flows, report.exported.octets]
    assert {record["samplingInterval"] for record in about(found, "samplingInterval")} == {report.sampling}


@pytest.mark.parametrize(
    ("text", "octets", "wanted"),
    [
        ("eth0", 8, b"eth0\0\0\0\0"),
        ("eth01234", 8, b"eth0123\0"),
        ("ä" * 9, 8, "äää".encode() + b"\0\0"),
        ("a\nb\x00c\ud800d", 16, b"a?b?c?d".ljust(16, b"\0")),
        ("", 4, bytes(4)),
        ("ab", 65535, b"\2ab"),
        ("", 65535, b"\0"),
        ("é" * 200, 65535, b"\xfe" + "é".encode() * 127),
    ],
)
def test_texts(text: str, octets: int, wanted: bytes) -> None:
    assert octets_of(element("interfaceName", octets), text) == wanted


def test_times() -> None:
    assert ntp_us(0) == 0
    assert ntp_us(EXPORT_TIME_S * S) == NTP_2023
    assert ntp_us(EXPORT_TIME_S * S + 500_000_000) == NTP_2023 | 1 << 31
    assert ntp_us(EXPORT_TIME_S * S + 1_000) == NTP_2023 | 3 << 11  # rounded up
    assert ntp_us(EXPORT_TIME_S * S + 1_000) % 2048 == 0
