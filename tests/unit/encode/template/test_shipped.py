"""The template files that come with netobs: what each holds, and that its records say what was measured."""

from __future__ import annotations

from pathlib import Path

import construct
import pytest

from lab.samples import IPV4, TEMPLATES, golden_batch, model
from netobs.encode import Encoder, Header, load_templates
from netobs.encode.columns import COLUMNS
from netobs.encode.lint import netflow
from netobs.encode.lint.rules import RULES, check
from netobs.encode.options.choice import TemplateSet
from netobs.encode.template import wire

SIZES = {  # octets of a Data Record, IPv4 and IPv6
    "default": (96, 120),
    "strict": (97, 121),
    "minimal": (57, 81),
    "full": (120 + 16 + 258, 144 + 16 + 258),
    "go-ipfix": (97, 121),
    "solarwinds": (58, 82),
    "logstash": (97, 121),
    "nfdump": (96, 120),
}
OTHER_TIMES = {f"flow{end}{unit}" for end in ("Start", "End") for unit in ("Seconds", "Microseconds", "Nanoseconds")}
V5 = ([10, 14, 2, 1, 152, 153], [7, 11, 6, 4, 5])
"""The elements of a NetFlow v5 record behind its addresses, in its order, but for what only a router knows.

Between the two parts stand ICMP type and code, which v5 has in the port.
"""


def shipped(name: str) -> TemplateSet:
    return load_templates(name, [TEMPLATES])


def layout(name: str) -> list[list[tuple[str, int]]]:
    return [[(field.element.name, field.octets) for field in template.fields] for template in shipped(name)]


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_says_what_it_is_for_and_loads(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert len(path.read_text(encoding="utf-8").splitlines()[0]) <= 120
    assert load_templates(str(path))


@pytest.mark.parametrize("name", SIZES)
def test_families_and_sizes(name: str) -> None:
    assert [each.family for each in shipped(name)] == ["ipv4", "ipv6"]
    assert not shipped(name).has_ids
    assert tuple(each.dtype.itemsize for each in shipped(name)) == SIZES[name]


@pytest.mark.parametrize("name", SIZES)
def test_every_value_is_the_measured_one(name: str) -> None:
    flows = golden_batch()
    encoder = Encoder(shipped(name))
    parsed = {}
    for data_set in encoder.encode(flows).data_sets:
        block = encoder.data_messages(data_set, Header(0, 0, 1), 8972)
        assert len(block) == 1
        body = bytes(block.message(0))[20:]
        parsed[data_set.template.family] = construct.Array(
            len(data_set), wire.data_record(data_set.template.fields)
        ).parse(body)
    for family, records in parsed.items():
        rows = [row for row in flows.records if (row["ethertype"] == IPV4) == (family == "ipv4")]
        wanted = [model(row, flows.clock) for row in rows]
        names = [name for name in records[0] if name != "_io"]
        flags = 0xFF if ("tcpControlBits", 1) in layout(name)[0] else 0xFFFF
        assert [[record[each] for each in names] for record in records] == [
            [row[each] & flags if each == "tcpControlBits" else row[each] for each in names] for row in wanted
        ]
    assert encoder.encode(flows).unencodable.flows == 0
    assert sum(map(len, parsed.values())) == len(flows)


@pytest.mark.parametrize("name", ["strict", "full", "go-ipfix", "logstash"])
def test_registered_lengths(name: str) -> None:
    assert not [field for each in shipped(name) for field in each.fields if field.octets != field.element.octets]


@pytest.mark.parametrize("name", ["strict", "go-ipfix", "logstash"])
def test_elements_are_those_of_the_default(name: str) -> None:
    def names(which: str) -> list[list[str]]:
        return [[element for element, _ in each] for each in layout(which)]

    assert names(name) == names("default")


def test_minimal_is_netflow_5() -> None:
    ipv4, ipv6 = shipped("minimal")
    before, behind = V5
    assert [field.element.id for field in ipv4.fields] == [8, 12, *before, 32, *behind]
    assert [field.element.id for field in ipv6.fields] == [27, 28, *before, 139, *behind]


OF_NAMESPACES = {"ingressVRFID", "egressVRFID", "VRFname"}
"""Most hosts have one network namespace to measure, and these elements then say nothing."""


def test_full_has_every_element_once_that_costs_packets_nothing() -> None:
    for template in shipped("full"):
        possible = {
            name for name, column in COLUMNS.items() if column.family in ("", template.family) and not column.group
        }
        assert possible - set(template.dtype.names or ()) == OTHER_TIMES | OF_NAMESPACES


@pytest.mark.parametrize("name", sorted(set(SIZES) & set(RULES)))
def test_a_profile_suits_its_collector(name: str) -> None:
    assert not [finding for finding in check(shipped(name), name) if finding.fatal]


@pytest.mark.parametrize("collector", sorted(set(RULES) - {"go-ipfix"}))
def test_the_default_suits_every_collector_that_follows_the_rfc(collector: str) -> None:
    assert not [finding for finding in check(shipped("default"), collector) if finding.fatal]


def test_nfdump_is_another_name_of_the_default() -> None:
    assert [each.fields for each in shipped("nfdump")] == [each.fields for each in shipped("default")]
    assert shipped("nfdump").options == shipped("default").options


@pytest.mark.parametrize("protocol", ["ipfix", "netflow9"])
@pytest.mark.parametrize("name", SIZES)
def test_ports_and_icmp_are_read_by_every_collector(name: str, protocol: str) -> None:
    for collector in ("nfdump", "pmacct", "goflow2", "flowlogs-pipeline"):
        netflow9 = protocol == "netflow9"
        found = netflow.check(shipped(name), collector, protocol) if netflow9 else check(shipped(name), collector)
        assert [finding.text for finding in found if "ICMP" in finding.text or " port" in finding.text] == []
