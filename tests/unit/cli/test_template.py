"""``netobs template``: what it prints, and its exit status."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from netobs.base.errors import TemplateError
from netobs.cli import template as template_command
from netobs.encode import load_templates, netflow9
from netobs.encode.options.choice import KINDS
from netobs.encode.template import wire
from tests.unit.cli import command

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ("default", "full", "go-ipfix", "logstash", "minimal", "nfdump", "solarwinds", "strict")
ONE = '[[template]]\nfamily = "ipv4"\nelements = [{elements}]\n'


def netobs(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return command.netobs("template", *arguments)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(ONE.format(elements='"octetDeltaCount", "flowEndMicroseconds"'), encoding="utf-8")
    return path


def test_list_names_every_shipped_file() -> None:
    lines = template_command.listing()
    names = [line.split()[0] for line in lines]
    assert set(SHIPPED) <= set(names)
    assert names == sorted(names)
    (default,) = [line for line in lines if line.startswith("default ")]
    assert re.search(r"^default +ipv4 96 octets, ipv6 120 octets ", default)
    assert default.endswith("default.toml")
    assert netobs("list").stdout.splitlines() == lines


@pytest.mark.parametrize("name", SHIPPED)
def test_wire_is_the_template_record(name: str) -> None:
    lines = template_command.show(name, wire=True)
    blocks = [block.splitlines() for block in "\n".join(lines).split("\n\n")]
    for template, (title, *rows) in zip(load_templates(name), blocks):
        matches = [re.match(r" *(\d+)  ([0-9a-f ]+?)  +(\S.*)$", row) for row in rows]
        octets = [bytes.fromhex(match[2]) for match in matches if match]
        assert title == f"template {template.id}, {template.family}: Template Record of {len(template.record)} octets"
        assert b"".join(octets) == template.record
        offsets = [sum(map(len, octets[:number])) for number in range(len(octets))]
        assert [int(match[1]) for match in matches if match] == offsets
        parsed = wire.TemplateRecord.parse(b"".join(octets))
        assert parsed.field_count == len(rows) - 1
        assert [f"({field.element_id})" in row for field, row in zip(parsed.fields, rows[1:])] == [True] * len(rows[1:])


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"full"}))
def test_show_adds_up_to_the_data_record(name: str) -> None:
    blocks = [block.splitlines() for block in "\n".join(template_command.show(name)).split("\n\n")]
    assert len(blocks) == 3 - (name == "go-ipfix")  # the last one is about options records
    for template, (title, _, *rows) in zip(load_templates(name), blocks):
        at = 0
        for field, row in zip(template.fields, rows):
            offset, octets, number, element, *_ = row.split()
            assert (int(offset), int(octets), int(number)) == (at, field.octets, field.element.id)
            assert element == field.element.name
            at += field.octets
        assert title.endswith(f"{len(rows)} elements, Data Record of {at} octets")


def test_show_says_what_varies_and_whose_an_element_is(tmp_path: Path) -> None:
    own = '{name = "acmeIf", enterprise = 32473, id = 5, type = "unsigned64", value = "interfaceIndex"}'
    path = tmp_path / "own.toml"
    text = "options = []\n" + ONE.format(elements=f'"ipVersion", "interfaceName", {own}')
    path.write_text(text, encoding="utf-8")
    assert template_command.show(str(path)) == [
        f"template {load_templates(str(path))[0].id}, ipv4: 3 elements, Data Record of 10 to 25 octets",
        "offset octets element",
        "     0      1      60  ipVersion (unsigned8)",
        "     1    var      82  interfaceName (string)",
        "            8       5  acmeIf (unsigned64) of enterprise 32473, filled with interfaceIndex",
    ]
    assert template_command.show(str(path), wire=True)[2:] == [
        "     4  003c 0001            ipVersion (60), 1 octet",
        "     8  0052 ffff            interfaceName (82), variable length",
        "    12  8005 0008 0000 7ed9  acmeIf (5, enterprise 32473), 8 octets",
    ]
    lines, usable = template_command.check(str(path), max_message_size=20 + 25)
    assert usable
    assert "for python-netflow: not usable" in lines
    assert f"  error: {path}: [[template]] 1: elements, entry 3: acmeIf: closes the connection" in "\n".join(lines)
    with pytest.raises(TemplateError, match="needs a Message of 45 bytes, the largest allowed has 44"):
        template_command.check(str(path), max_message_size=20 + 24)


def test_show_says_what_is_reduced() -> None:
    (line,) = [line for line in template_command.show("default") if "tcpControlBits" in line][:1]
    assert line.endswith("tcpControlBits (unsigned16, registered with 2 octets)")


def test_show_from_a_shell() -> None:
    argv = [sys.executable, "-m", "netobs", "template", "show", "minimal", "--wire"]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == template_command.show("minimal", wire=True)


def test_check_tells_of_every_collector_and_is_content(mine: Path) -> None:
    lines, usable = template_command.check(str(mine))
    assert usable
    assert lines[0] == f"{mine}: 1 template, usable"
    assert "for ipfixcol2: good" in lines
    assert "for nfdump: not usable" in lines
    assert "for ipfixdump: usable, with a loss" in lines
    assert netobs("check", mine).returncode == 0


def test_check_says_where_no_sampling_rate_is_sent() -> None:
    for protocol, warns in (("ipfix", 1), ("netflow9", 1), ("netflow5", 0)):
        lines, _ = template_command.check("go-ipfix", protocol=protocol)
        assert len([line for line in lines if line.startswith("  warning: nothing tells the sampling rate")]) == warns
        lines, _ = template_command.check("default", protocol=protocol)
        assert [line for line in lines if "sampling rate" in line] == []


def test_check_names_the_former_key(tmp_path: Path) -> None:
    path = tmp_path / "former.toml"
    path.write_text(ONE.format(elements='"octetDeltaCount"') + "id = 256\n", encoding="utf-8")
    lines, usable = template_command.check(str(path))
    warning = f'  warning: {path}: key "id" is no longer used: Template IDs follow from the elements; remove it'
    assert (warning in lines, usable) == (True, True)


def test_show_lists_the_options_templates_that_are_sent() -> None:
    listed = [line.partition(":")[0].split()[1] for line in template_command.show("strict") if " | " in line]
    unsent = {"element_types", "namespaces"}  # no element of an enterprise is in it, and no namespace is followed
    assert sorted(set(listed)) == sorted(set(KINDS) - unsent)


def test_check_for_a_collector_that_lacks_something(mine: Path) -> None:
    result = netobs("check", mine, "--for", "solarwinds")
    assert (result.returncode, result.stderr) == (1, "")
    assert "for solarwinds: not usable" in result.stdout
    assert f"  error: {mine}: [[template]] 1: without protocolIdentifier: ignores the flows" in result.stdout
    assert "nfdump" not in result.stdout


def test_check_for_a_collector_that_only_grumbles(mine: Path) -> None:
    result = netobs("check", mine, "--for", "ipfixdump")
    assert result.returncode == 0
    assert f"  warning: {mine}: [[template]] 1: elements, entry 2: flowEndMicroseconds: shown in whole" in result.stdout


@pytest.mark.parametrize("name", ["solarwinds", "logstash", "go-ipfix", "nfdump"])
def test_a_profile_passes_its_own_check(name: str) -> None:
    assert netobs("check", name, "--for", name).returncode == 0


def test_check_refuses_a_bad_file_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(ONE.format(elements='"octetDeltaCont"'), encoding="utf-8")
    result = netobs("check", path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"netobs: {path}: [[template]] 1: elements, entry 1: octetDeltaCont: no such Information Element; "
        'did you mean "octetDeltaCount"?\n'
    )


def test_check_refuses_what_exceeds_a_message() -> None:
    result = netobs("check", "default", "--max-message-size", "115")
    assert result.returncode == 1
    assert "default.toml: [[template]] 1: the template needs a Message of 116 bytes" in result.stderr
    assert template_command.check("minimal", max_message_size=115)[1]
    with pytest.raises(TemplateError, match=r"\[\[template\]\] 2: the template needs a Message of 140 bytes"):
        template_command.check("default", max_message_size=139)


def test_unknown_collector() -> None:
    with pytest.raises(TemplateError, match='no rules for a collector "nfdum"; did you mean "nfdump"'):
        template_command.check("default", "nfdum")
    with pytest.raises(TemplateError, match="the known ones are nfdump, pmacct"):
        template_command.check("default", "zzz")


def test_unknown_template() -> None:
    result = netobs("show", "defualt")
    assert result.returncode == 1
    assert 'no template file "defualt.toml"' in result.stderr


@pytest.mark.parametrize("name", SHIPPED)
def test_wire_of_netflow9_is_the_flowset_that_is_sent(name: str) -> None:
    blocks = "\n".join(template_command.show(name, True, "netflow9")).split("\n\n")
    sent = netflow9.Encoder(load_templates(name), 0).template_messages(netflow9.Header(0, 0, 1), 1400)
    assert len(blocks) == len(sent) + (name != "go-ipfix")  # the last one is about options records
    for block, message in zip(blocks, sent):
        rows = [re.match(r" *(\d+)  ([0-9a-f ]+?)  +\S", row) for row in block.splitlines()[1:]]
        octets = [(int(match[1]), bytes.fromhex(match[2])) for match in rows if match]
        starts = [sum(len(part) for _, part in octets[:number]) for number in range(len(octets))]
        assert [at for at, _ in octets] == starts
        assert b"".join(part for _, part in octets) == message[20:]


def test_the_record_of_netflow5_is_shown() -> None:
    title, _, *rows = netobs("show", "default", "--protocol", "netflow5", "--wire").stdout.splitlines()
    assert title == "NetFlow v5 sends no templates: this is its record"
    assert sum(int(row.split()[1]) for row in rows) == 48
    assert [row.split()[2] for row in rows[:3]] == ["8", "12", "15"]
    assert "65535" not in rows[-1]


def test_show_of_netflow9_without_wire() -> None:
    lines = template_command.show("minimal", protocol="netflow9")
    assert any("flowEndSysUpTime" in line for line in lines)
    assert not any("Milliseconds" in line for line in lines)


def test_check_for_netflow() -> None:
    nine = netobs("check", "default", "--protocol", "netflow9")
    assert nine.returncode == 0
    assert nine.stdout.startswith("default: 2 templates, usable with NetFlow v9\n  note: ")
    assert "entry 16: flowEndReason: left out: NetFlow v9 ends at element 127\n" in nine.stdout
    assert "for nfdump: good\n" in nine.stdout
    five = netobs("check", "default", "--protocol", "netflow5", "--for", "go-ipfix")
    assert five.returncode == 1
    assert "[[template]] 2: left out: NetFlow v5 has IPv4 flows only" in five.stdout
    assert "default.toml: it does not read NetFlow" in five.stdout


def test_check_refuses_what_netflow9_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ONE.format(elements='"flowEndReason", "ethernetType"'), encoding="utf-8")
    assert netobs("check", path).returncode == 0
    result = netobs("check", path, "--protocol", "netflow9")
    assert result.returncode == 1
    assert f"{path}: [[template]] 1: the template has almost no element of NetFlow v9; use" in result.stderr
    with pytest.raises(TemplateError, match="needs a Message of 72 bytes"):
        template_command.check("default", max_message_size=71, protocol="netflow5")
