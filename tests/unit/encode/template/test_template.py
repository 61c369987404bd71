"""Templates and template files: what is read, and every mistake with the words that name it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lab.samples import TEMPLATES, default_templates, everything, template
from netobs.base.errors import TemplateError
from netobs.encode import load_templates, template_dirs
from netobs.encode.protocols import exporter
from netobs.encode.registry import InformationElement
from netobs.encode.template import wire
from netobs.encode.template.field import Field
from netobs.encode.template.file import parse
from netobs.encode.template.template import Template

GOOD = '[[template]]\nfamily = "ipv4"\nelements = ["octetDeltaCount"]\n'
SECOND = GOOD.replace("ipv4", "ipv6")


def elements(value: str, family: str = "ipv4") -> str:
    return f'[[template]]\nfamily = "{family}"\nelements = {value}\n'


MISTAKES = {
    "not TOML": ("[[template]\n", ["not valid TOML", "line 1"]),
    "empty file": ("", ["no [[template]] table"]),
    "one bracket": (GOOD.replace("[[template]]", "[template]"), ["[template] is a table", "two brackets"]),
    "template is a number": ("template = 1\n", ["no [[template]] table"]),
    "template is a list of numbers": ("template = [1]\n", ["no [[template]] table"]),
    "misspelt table": (GOOD.replace("template", "templates"), ['unknown key "templates"', 'did you mean "template"?']),
    "misspelt key": (GOOD + "element = []\n", ["[[template]] 1", 'unknown key "element"', 'did you mean "elements"?']),
    "foreign key": (GOOD + "port = 1\n", ['unknown key "port"', "the keys are family, elements"]),
    "no family": (GOOD.replace('family = "ipv4"', ""), ['key "family" is missing']),
    "no elements": (GOOD.replace('elements = ["octetDeltaCount"]', ""), ['key "elements" is missing']),
    "brackets": ("x = " + "[" * 3000, ["not a readable TOML file"]),
    "brackets that are closed": ("x = " + "[" * 3000 + "]" * 3000, ["not a readable TOML file"]),
    "NUL": (GOOD + "\0", ["not valid TOML"]),
    "long name": (elements(f'["{"a" * 5000}"]'), ["no such Information Element"]),
    "name on two lines": (elements('["vlan\\nId"]'), ["vlan\\nId: no such Information Element"]),
    "key on two lines": (GOOD + '"a\\nb" = 1\n', ['unknown key "a\\nb"']),
    "deep elements": (elements("[" * 200 + "]" * 200), ["elements, entry 1", "expected an element name"]),
    "number of many digits": ("x = " + "9" * 5000, ["not a readable TOML file"]),
    "number of many hexadecimal digits": (
        GOOD.replace('"ipv4"', "0x1" + "0" * 5000),
        ["an integer of more than 64 bits"],
    ),
    "unknown family": (GOOD.replace("ipv4", "ip4"), ["family: expected one of", '"ip4"', 'did you mean "ipv4"?']),
    "family is a list": (GOOD.replace('"ipv4"', '["ipv4"]'), ["family: expected one of", '["ipv4"]']),
    "family twice": (GOOD + GOOD, ["[[template]] 2", "ipv4 already has [[template]] 1"]),
    "any beside a family": (GOOD + SECOND.replace("ipv6", "any"), ['family "any"', "ipv4 already has [[template]] 1"]),
    "a family beside any": (GOOD.replace("ipv4", "any") + SECOND, ["ipv6 already has [[template]] 1"]),
    "elements is text": (elements('"octetDeltaCount"'), ["elements: expected a list"]),
    "no element": (elements("[]"), ["elements: expected a list"]),
    "element is a number": (elements("[1]"), ["elements, entry 1", "expected an element name", "got 1"]),
    "element misspelt": (elements('["vlanId", "octetDeltaCont"]'), ["entry 2: octetDeltaCont", '"octetDeltaCount"?']),
    "element of the wrong case": (elements('["VlanID"]'), ["no such Information Element", 'did you mean "vlanId"?']),
    "element unlike any": (elements('["zzzzzz"]'), ["zzzzzz: no such Information Element"]),
    "misspelt and not measured": (elements('["applicationNam"]'), ['did you mean "applicationName"?']),
    "element not measured": (elements('["octetTotalCount"]'), ["netobs does not measure it", '"octetDeltaCount"?']),
    "variable length": (elements('["applicationName"]'), ["applicationName: registered, but netobs does not measure"]),
    "element twice": (elements('["vlanId", "ipVersion", "vlanId"]'), ["entry 3: vlanId is listed twice"]),
    "IPv6 in IPv4": (elements('["sourceIPv6Address"]'), ['only in family "ipv6"', 'this template has "ipv4"']),
    "IPv4 in IPv6": (elements('["icmpTypeIPv4"]', "ipv6"), ['only in family "ipv4"', 'this template has "ipv6"']),
    "address in any": (elements('["sourceIPv4Address"]', "any"), ['only in family "ipv4"', 'this template has "any"']),
    "inline table without a name": (elements("[{octets = 1}]"), ["entry 1", 'key "element" is missing']),
    "inline table with another key": (elements('[{element = "vlanId", size = 2}]'), ['unknown key "size"']),
    "name is a number": (elements("[{element = 1}]"), ["expected an element name", "got 1"]),
    "octets is text": (elements('[{element = "vlanId", octets = "2"}]'), ['octets: expected an integer, got "2"']),
    "octets is a boolean": (elements('[{element = "vlanId", octets = true}]'), ["expected an integer, got true"]),
    "longer than registered": (elements('[{element = "packetDeltaCount", octets = 16}]'), ["expected 4 or 8, got 16"]),
    "odd width": (elements('[{element = "packetDeltaCount", octets = 5}]'), ["expected 4 or 8, got 5"]),
    "no width": (elements('[{element = "packetDeltaCount", octets = 0}]'), ["expected 4 or 8, got 0"]),
    "too short": (elements('[{element = "ingressInterface", octets = 2}]'), ["expected 4, got 2", "would not fit"]),
    "reduced address": (elements('[{element = "sourceIPv4Address", octets = 2}]'), ["ipv4Address always takes 4"]),
    "reduced time": (elements('[{element = "flowEndMilliseconds", octets = 4}]'), ["Milliseconds always takes 8"]),
    "enlarged octet": (elements('[{element = "minimumTTL", octets = 2}]'), ["unsigned8 always takes 1"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named(mistake: str, tmp_path: Path) -> None:
    text, parts = MISTAKES[mistake]
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TemplateError) as caught:
        load_templates(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    assert [part for part in parts if part not in message] == []
    place = message[len(f"{path}: ") :]
    if (
        "[[template]]\n" in text and "unknown key" not in place and "TOML" not in place
    ):  # else there is no table that the place could name
        assert re.match(r"\[\[template\]\] [12]: ", place)
    if re.search(r"elements = \[.+\]", text) and "entry" in "".join(parts):
        assert ": elements, entry " in place


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (Path.mkdir, "Is a directory"),
    "FIFO": (os.mkfifo, "is not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
    "huge": (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40), "is longer than 1 MiB"),
    "not UTF-8": (lambda path: path.write_bytes(b"# caf\xe9"), "not UTF-8 at byte 5"),
    "nothing": (lambda path: None, "No such file or directory"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_template_file_is_named_at_once(place: str, tmp_path: Path) -> None:
    make, said = PLACES[place]
    path = tmp_path / "mine.toml"
    make(path)
    with pytest.raises(TemplateError) as caught:
        load_templates(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


def test_the_name_of_a_template_with_the_ending_of_its_file() -> None:
    with pytest.raises(TemplateError) as caught:
        load_templates("default.toml")
    assert str(caught.value) == (
        'default.toml: cannot read the template file: No such file or directory; did you mean "default"?'
    )


@pytest.mark.parametrize("protocol", ["ipfix", "netflow9"])
@pytest.mark.parametrize("part", ["Data Record", "Template Record"])
def test_template_that_exceeds_a_message_is_named(protocol: str, part: str, tmp_path: Path) -> None:
    """The second of a file. Addresses make the Data Record the longer one, single octets the Template Record."""
    long = '"sourceIPv6Address", "destinationIPv6Address"'
    short = '"minimumTTL", "maximumTTL", "ipVersion", "flowDirection"'
    path = tmp_path / "mine.toml"
    listed = long if part == "Data Record" else short
    path.write_text(GOOD + SECOND.replace('"octetDeltaCount"', listed), encoding="utf-8")
    header = {"ipfix": 16 + 4, "netflow9": 20 + 4}[protocol]
    needed = header + (32 if part == "Data Record" else 4 + 4 * 4)
    encoder = exporter(protocol, str(path), 0, 1).encoder
    encoder.check(needed)
    with pytest.raises(TemplateError) as caught:
        encoder.check(needed - 1)
    assert str(caught.value).startswith(f"{path}: [[template]] 2: the template needs a Message of {needed} bytes")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(TemplateError, match=r'no template file "defualt.toml" in .*; use one of .*default'):
        load_templates("defualt", [TEMPLATES])


def test_unknown_name_without_any_file(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="give a path"):
        load_templates("default", [tmp_path])


@pytest.mark.parametrize(("name", "reason"), [("missing.toml", "No such file"), ("folder", "Is a directory")])
def test_unreadable_path(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(TemplateError, match=f"{name}: cannot read the template file: {reason}"):
        load_templates(str(tmp_path / name))


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# \xe4\n" + GOOD.encode())
    with pytest.raises(TemplateError, match="not UTF-8 at byte 2; save the file as UTF-8"):
        load_templates(str(path))


def test_first_directory_with_the_name_wins(tmp_path: Path) -> None:
    shutil.copy(TEMPLATES / "default.toml", tmp_path / "mine.toml")
    (tmp_path / "default.toml").write_text(GOOD, encoding="utf-8")
    assert len(load_templates("default", [tmp_path, TEMPLATES])) == 1
    assert len(load_templates("mine", [TEMPLATES, tmp_path])) == 2


def test_the_source_tree_is_searched() -> None:
    assert TEMPLATES in template_dirs()


def test_default_templates() -> None:
    ipv4, ipv6 = default_templates()
    assert [(item.family, item.dtype.itemsize, len(item.fields)) for item in (ipv4, ipv6)] == [
        ("ipv4", 96, 26),
        ("ipv6", 120, 26),
    ]
    others = [7, 11, 4, 5, 6, 10, 14, 61, 1, 2, 152, 153, 136, 60, 256, 56, 80, 58, 59, 52, 53, 25, 26]
    assert [field.element.id for field in ipv4.fields] == [8, 12, 32, *others]
    assert [field.element.id for field in ipv6.fields] == [27, 28, 139, *others]
    octets = [2, 2, 2, 1, 1, 1, 4, 4, 1, 8, 8, 8, 8, 1, 1, 2, 6, 6, 2, 2, 1, 1, 8, 8]
    assert [field.octets for field in ipv4.fields] == [4, 4, *octets]
    assert [field.octets for field in ipv6.fields] == [16, 16, *octets]


@pytest.mark.parametrize("family", ["ipv4", "ipv6", "any"])
def test_dtype_and_construct_agree(family: str) -> None:
    every = everything(family)
    raw = (bytes(range(256)) * 4)[: every.dtype.itemsize]
    row = np.frombuffer(raw, dtype=every.dtype)[0]
    parsed = wire.data_record(every.fields).parse(raw)
    assert wire.data_record(every.fields).sizeof() == every.dtype.itemsize
    names = every.dtype.names
    assert names is not None
    assert [name for name in parsed if name != "_io"] == list(names)
    for name in names:
        value = row[name]
        assert parsed[name] == (bytes(value) if value.ndim else int(value))
    assert wire.data_record(every.fields).build(parsed) == raw


def test_reduced_sizes() -> None:
    sizes = {"octetDeltaCount": 4, "packetDeltaCount": 8, "tcpControlBits": 1, "minimumIpTotalLength": 2}
    reduced = template("any", *(f'{{element = "{name}", octets = {octets}}}' for name, octets in sizes.items()))
    assert reduced.dtype == np.dtype([(name, f">u{octets}") for name, octets in sizes.items()])
    assert wire.data_record(reduced.fields).sizeof() == 15


def test_template_record() -> None:
    parsed = wire.TemplateRecord.parse(default_templates()[0].record)
    assert (parsed.template_id, parsed.field_count) == (default_templates()[0].id, 26)
    assert (parsed.fields[7].element_id, parsed.fields[7].octets, parsed.fields[7].enterprise) == (6, 1, None)


def test_template_record_with_an_enterprise_element() -> None:
    element = InformationElement("own", 5, "unsigned32", 4, "", "", enterprise=32473)
    assert Template("any", (Field(element, 4),)).record[2:] == bytes.fromhex("0001 8005 0004 00007ed9")


def test_a_former_id_is_taken_and_means_nothing() -> None:
    """Files of earlier releases go on working, whatever the ids are."""
    for number in ("256", "1", '"x"'):
        former = (GOOD + SECOND).replace('family = "ipv6"', f'family = "ipv6"\nid = {number}')
        found, now = parse(former, "mine.toml"), parse(GOOD + SECOND, "mine.toml")
        assert found == now
        assert [each.id for each in found] == [each.id for each in now]
        assert (found.former_ids.startswith('mine.toml: key "id" is no longer used'), now.former_ids) == (True, "")


def test_parse_names_the_source() -> None:
    assert parse(GOOD, "mine.toml")[0].source == "mine.toml: [[template]] 1"
