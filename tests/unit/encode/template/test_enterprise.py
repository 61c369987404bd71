"""Elements of an enterprise in template files: what they become, and every mistake with the words that name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.samples import golden_batch
from netobs.base.clock import ClockPair
from netobs.base.errors import TemplateError
from netobs.encode import Encoder, Field, Template, load_templates
from netobs.encode.columns import ALL_COLUMNS, OWN_VALUES, fill
from netobs.encode.layout import VARIABLE_LENGTH
from netobs.encode.lint.rules import check
from netobs.encode.netflow9 import netflow9_template
from netobs.encode.registry import InformationElement, by_name
from netobs.encode.template.file import parse
from netobs.flow.metrics import INSIGHT_GROUPS, NO_SAMPLE
from netobs.flow.records import INSIGHT_RECORD, FlowBatch, empty

GOOD = {"name": "acmeInterface", "enterprise": 32473, "id": 5, "type": "unsigned32", "value": "ingressInterface"}


def inline(keys: dict[str, Any]) -> str:
    """A TOML inline table."""
    texts = {key: f'"{value}"' if isinstance(value, str) else str(value).lower() for key, value in keys.items()}
    return "{" + ", ".join(f"{key} = {text}" for key, text in texts.items()) + "}"


def own(**changes: Any) -> str:
    """An element as it should be but for ``changes``; None leaves a key out."""
    return inline({key: value for key, value in {**GOOD, **changes}.items() if value is not None})


def file(*entries: str, family: str = "any") -> str:
    return f'[[template]]\nfamily = "{family}"\nelements = [{", ".join(entries)}]\n'


def one(**changes: Any) -> Field:
    return parse(file(own(**changes)), "own.toml")[0].fields[0]


PLACE = "[[template]] 1: elements, entry 1: acmeInterface: "
TWO = file(own(), family="ipv4") + file(own(id=6), family="ipv6")
MISTAKES = {
    "no name": (file(own(name=None)), ["entry 1: key \"name\" is missing", "an enterprise-specific element needs it"]),
    "no enterprise": (file(own(enterprise=None)), [PLACE, 'key "enterprise" is missing']),
    "no id": (file(own(id=None)), [PLACE, 'key "id" is missing']),
    "no type": (file(own(type=None)), [PLACE, 'key "type" is missing']),
    "no value": (file(own(value=None)), [PLACE, 'key "value" is missing']),
    "misspelt key": (file(own(unit="octets")), [PLACE, 'unknown key "unit"', 'did you mean "units"?']),
    "both kinds": (file(own(element="vlanId")), ["entry 1", 'unknown key "name"', "the keys are element, octets"]),
    "neither kind": (file("{octets = 4}"), ['key "element" is missing', 'has the key "name" instead']),
    "name is a number": (file(own(name=5)), ["entry 1: name: expected a lower-case letter", "got 5"]),
    "name with a capital": (file(own(name="Acme")), ["Acme: name: expected a lower-case letter", 'got "Acme"']),
    "name with a sign": (file(own(name="acme-if")), ["up to 63 letters and digits", '"acme-if"']),
    "name too long": (file(own(name="a" * 65)), ["up to 63 letters and digits"]),
    "empty name": (file(own(name="")), ["expected a lower-case letter", 'got ""']),
    "name of IANA": (file(own(name="vlanId")), ["name: vlanId is registered by IANA", "start it with"]),
    "name of netobs": (file(own(name="interfaceIndex")), ["name: interfaceIndex is a value of netobs"]),
    "enterprise of IANA": (file(own(enterprise=0)), [PLACE, "1 to 4294967295, got 0", "IANA assigns them"]),
    "enterprise too large": (file(own(enterprise=2**32)), [PLACE, "got 4294967296"]),
    "enterprise is text": (file(own(enterprise="acme")), [PLACE, "enterprise: expected", 'got "acme"']),
    "enterprise is a boolean": (file(own(enterprise=True)), [PLACE, "enterprise: expected", "got true"]),
    "reverse direction": (file(own(enterprise=29305)), [PLACE, "29305 stands for the reverse direction", "RFC 5103"]),
    "id too small": (file(own(id=0)), [PLACE, "id: expected an integer from 1 to 32767, got 0"]),
    "id too large": (file(own(id=32768)), [PLACE, "id: expected an integer from 1 to 32767, got 32768"]),
    "id is text": (file(own(id="5")), [PLACE, 'id: expected an integer from 1 to 32767, got "5"']),
    "unknown type": (file(own(type="unsigned24")), [PLACE, "type: expected an abstract data type", "did you mean"]),
    "type is a number": (file(own(type=32)), [PLACE, "type: expected an abstract data type", "got 32"]),
    "narrower type": (file(own(type="unsigned16")), [PLACE, "type: unsigned16 cannot hold ingressInterface, which is "
                                                     "unsigned32", "use unsigned32 or unsigned64"]),
    "signed type": (file(own(type="signed64")), [PLACE, "signed64 cannot hold ingressInterface"]),
    "text of a number": (file(own(type="string")), [PLACE, "string cannot hold ingressInterface"]),
    "number of a text": (file(own(value="interfaceName")), ["cannot hold interfaceName, which is string; use string"]),
    "another time": (file(own(type="dateTimeSeconds", value="flowEndMilliseconds")), ["use dateTimeMilliseconds"]),
    "unknown value": (file(own(value="ingresInterface")), [PLACE, 'value: netobs does not measure "ingresInterface"',
                                                           'did you mean "ingressInterface"?']),
    "value not measured": (file(own(value="zzz")), ['value: netobs does not measure "zzz"', "interfaceIndex"]),
    "value is a number": (file(own(value=1)), [PLACE, "value: netobs does not measure 1"]),
    "value of a family": (file(own(type="ipv4Address", value="sourceIPv4Address")), [
        PLACE, 'sourceIPv4Address exists only in family "ipv4", and this template has "any"']),
    "too few octets": (file(own(octets=2)), [PLACE, "octets: expected 4, got 2", "some values would not fit"]),
    "too many octets": (file(own(octets=8)), [PLACE, "octets: expected 4, got 8"]),
    "octets is text": (file(own(octets="4")), [PLACE, 'octets: expected an integer, got "4"']),
    "no octets of text": (file(own(type="string", value="interfaceName", octets=0)), [
        PLACE, "octets: expected 1 to 255, got 0", "without it, the length is variable"]),
    "too many of text": (file('{element = "interfaceName", octets = 256}'), [
        "entry 1: interfaceName: octets: expected 1 to 255, got 256", "without it, the length is variable"]),
    "unknown semantics": (file(own(semantics="counter")), [PLACE, "semantics: expected one of default", '"counter"']),
    "unknown units": (file(own(units="bytes")), [PLACE, "units: expected one of none, bits, octets", 'got "bytes"']),
    "units of no name": (file(own(units="")), [PLACE, "units: expected one of none", 'got ""']),
    "units is a list": (file(own(units=[])), [PLACE, "units: expected one of", "got []"]),
    "description of two lines": (file(own(description="a\\nb")), [PLACE, "description: expected text of one line"]),
    "description too long": (file(own(description="é" * 128)), [PLACE, "description:", "at most 255 octets"]),
    "description is a number": (file(own(description=1)), [PLACE, "description: expected text of one line", "got 1"]),
    "name twice": (file(own(), own()), ["entry 2: acmeInterface is listed twice"]),
    "id twice": (file(own(), own(name="acmeOther")), [
        "entry 2: acmeOther: id 5 of enterprise 32473 is the id of acmeInterface ([[template]] 1, elements, entry 1)",
        "give each element an id of its own"]),
    "id twice in a file": (file(own(), family="ipv4") + file(own(name="acmeOther"), family="ipv6"), [
        "[[template]] 2: elements, entry 1: acmeOther: id 5 of enterprise 32473 is the id of acmeInterface"]),
    "name twice in a file": (TWO, ["[[template]] 2: elements, entry 1: acmeInterface: defined differently in "
                                   "[[template]] 1, elements, entry 1"]),
    "type in two ways": (TWO.replace("id = 6, type = \"unsigned32\"", "id = 5, type = \"unsigned64\""), [
        "[[template]] 2: elements, entry 1: acmeInterface: defined differently"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named(mistake: str, tmp_path: Path) -> None:
    text, parts = MISTAKES[mistake]
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TemplateError) as caught:
        load_templates(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: [[template]] ")
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_what_is_not_said_is_that_of_the_value() -> None:
    element = InformationElement("acmeInterface", 5, "unsigned32", 4, "identifier", "none", 32473, "")
    assert one() == Field(element, 4, "ingressInterface")
    wide = one(name="acmeOctets", type="unsigned64", value="octetDeltaCount", octets=4)
    assert (wide.octets, wide.element.octets, wide.element.semantics) == (4, 8, "deltaCounter")
    assert wide.element.units == "octets"


def test_what_is_said_is_kept() -> None:
    element = one(semantics="quantity", units="4-octet words", description="Größe").element
    assert (element.semantics, element.units, element.description) == ("quantity", "4-octet words", "Größe")


def test_text_is_of_variable_length_unless_said_otherwise() -> None:
    text = {"type": "string", "value": "interfaceName"}
    assert one(**text)[1:] == (VARIABLE_LENGTH, "interfaceName", 15)
    assert one(**text, octets=20)[1:] == (20, "interfaceName", 0)
    assert one(**text, octets=20).element.octets == VARIABLE_LENGTH


def test_both_families_can_have_the_same_element() -> None:
    ipv4, ipv6 = parse(TWO.replace("id = 6", "id = 5"), "own.toml")
    assert ipv4.fields == ipv6.fields


def _named(family: str) -> tuple[Template, dict[str, str]]:
    """A Template of everything that ``family`` can have, in elements of an enterprise; name to value."""
    values, entries = {}, []
    for number, (value, column) in enumerate(ALL_COLUMNS.items(), 1):
        if column.family in ("", family) and column.group not in INSIGHT_GROUPS:
            element = OWN_VALUES[value][0] if value in OWN_VALUES else by_name(value)
            assert element is not None
            is_number = element.type.startswith("unsigned") and element.octets <= 8
            kind = "unsigned64" if is_number else element.type
            values[f"own{number}"] = value
            entries.append(own(name=f"own{number}", id=number, type=kind, value=value))
    return parse(file(*entries, family=family), "own.toml")[0], values


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_each_value_is_what_the_registered_element_has(family: str) -> None:
    flows = golden_batch()
    template, values = _named(family)
    rows = fill(template, flows)
    known = [value for value in values.values() if value not in OWN_VALUES]
    registered = fill(parse(file(*map(repr, known), family=family), "iana.toml")[0], flows)
    for name, value in values.items():
        if value in known:
            assert (rows[name].astype(np.uint64) == registered[value].astype(np.uint64)).all(), value
    assert {name for name, value in values.items() if value in OWN_VALUES} <= set(template.dtype.names or ())


def test_values_of_netobs_are_those_of_the_record() -> None:
    flows = golden_batch()
    ports = [row["dst_port"] if row["protocol"] in (1, 58) else 0 for row in flows.records]
    fields = {
        "interfaceIndex": ("unsigned32", flows.records["ifindex"].tolist()),
        "icmpType": ("unsigned8", [port >> 8 for port in ports]),
        "icmpCode": ("unsigned8", [port & 0xFF for port in ports]),
    }
    assert list(fields) == [name for name, (_, column) in OWN_VALUES.items() if not column.group]
    for value, (kind, expected) in fields.items():
        (template,) = parse(file(own(type=kind, value=value)), "own.toml")
        assert fill(template, flows)["acmeInterface"].tolist() == expected


INSIGHT = [name for name, (_, column) in OWN_VALUES.items() if column.group in INSIGHT_GROUPS]


def test_a_record_has_only_what_was_measured() -> None:
    """Of another protocol, without a sample, with one that is not of a handshake, with all: in the order of records."""
    entries = [
        own(name=f"own{number}", id=number, type="unsigned64", value=value) for number, value in enumerate(INSIGHT, 1)
    ]
    encoder = Encoder(parse(file('"octetDeltaCount"', *entries), "own.toml"))
    records = empty(4, INSIGHT_RECORD)
    records["ethertype"], records["octets"] = 0x0800, [1, 2, 3, 4]
    records["protocol"] = [17, 6, 6, 6]
    records["rtt_min"] = records["handshake_rtt"] = NO_SAMPLE
    records["retransmitted_packets"], records["rtt_samples"], records["rtt_max"] = (
        [0, 5, 6, 7],
        [0, 0, 2, 4],
        [0, 0, 30, 50],
    )
    records["rtt_min"][2:], records["rtt_sum"][2:], records["handshake_rtt"][3] = [10, 20], [40, 120], 20
    found = {}
    for data_set in encoder.encode(FlowBatch(records, ClockPair(0, 0))).data_sets:
        names = {field.element.name: field.filled_with for field in data_set.template.fields}
        for row in data_set.rows:
            values = {names[name]: int(row[name]) for name in data_set.rows.dtype.names or ()}
            found[values.pop("octetDeltaCount")] = values
    times = {"tcpRttMinMicroseconds": 10, "tcpRttMeanMicroseconds": 20, "tcpRttMaxMicroseconds": 30}
    assert found[1] == {}
    assert found[2]["tcpRetransmittedPackets"] == 5
    assert found[2]["tcpRttSampleCount"] == 0
    assert not {*times, "tcpHandshakeRttMicroseconds"} & found[2].keys()
    assert times.items() <= found[3].items()
    assert "tcpHandshakeRttMicroseconds" not in found[3]
    assert found[4]["tcpHandshakeRttMicroseconds"] == 20
    assert found[4]["tcpRttMeanMicroseconds"] == 30
    assert set(found[4]) == set(INSIGHT)
    assert len({template.id for template in encoder.templates}) == 4


def test_netflow9_leaves_them_out() -> None:
    fixed = '{element = "interfaceDescription", octets = 8}'
    (template,) = parse(file('"octetDeltaCount"', own(), '"interfaceName"', fixed), "own.toml")
    assert [(field.element.id, field.octets) for field in netflow9_template(template).fields] == [(1, 8), (83, 8)]


def test_a_file_with_them_is_checked_for_collectors() -> None:
    templates = parse(file('"octetDeltaCount"', own(), '"interfaceName"'), "own.toml")
    Encoder(templates).check(512)
    texts = {
        name: [finding.text for finding in check(templates, name)] for name in ("go-ipfix", "python-netflow", "pmacct")
    }
    assert any("entry 2: acmeInterface: closes the connection" in text for text in texts["go-ipfix"])
    assert [text.partition(" (")[0] for text in texts["python-netflow"]] == [
        "own.toml: [[template]] 1: elements, entry 3: interfaceName: raises PaddingCalculationError and ends; "
        "write {element = NAME, octets = N}"
    ]
    assert any("entry 3: interfaceName: not shown by its primitives" in text for text in texts["pmacct"])
