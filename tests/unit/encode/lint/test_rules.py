"""The rules about collectors: each one fires where it should, says where, and not elsewhere."""

from __future__ import annotations

import pytest

from lab.samples import default_templates, template
from netobs.encode import Field, Template
from netobs.encode.lint.rules import RULES, Rule, check
from netobs.encode.options.choice import TemplateSet
from netobs.encode.registry import InformationElement, by_id, by_name
from netobs.encode.template.file import parse

MS = ("flowStartMilliseconds", "flowEndMilliseconds")
COUNTS = ("octetDeltaCount", "packetDeltaCount")
GOOD = ("sourceIPv4Address", "destinationIPv4Address", "icmpTypeCodeIPv4", "destinationTransportPort",
        "protocolIdentifier", "ipClassOfService", "ingressInterface", *COUNTS, *MS)  # fmt: skip
"""Elements about which no collector complains."""

WITHOUT = [
    ("pmacct", MS[1], True),
    ("pmacct", "destinationTransportPort", False),
    ("goflow2", COUNTS[0], True),
    ("goflow2", COUNTS[1], True),
    ("goflow2", MS[1], False),
    ("goflow2", "icmpTypeCodeIPv4", False),
    ("flowlogs-pipeline", COUNTS[0], True),
    ("flowlogs-pipeline", "icmpTypeCodeIPv4", False),
    ("solarwinds", "protocolIdentifier", True),
    ("solarwinds", "sourceIPv4Address", True),
    ("solarwinds", "destinationIPv4Address", True),
    ("solarwinds", "ingressInterface", True),
    ("solarwinds", "octetDeltaCount", True),
    ("solarwinds", "ipClassOfService", False),
]
WITH = [
    ("nfdump", "flowStartMicroseconds", True),
    ("nfdump", "flowEndNanoseconds", False),
    ("nfdump", "flowStartSeconds", False),
    ("pmacct", "flowEndMicroseconds", True),
    ("pmacct", "tcpControlBits", False),
    ("flowlogs-pipeline", "flowStartNanoseconds", True),
    ("ipfixdump", "flowStartNanoseconds", False),
    ("go-ipfix", "flowStartMicroseconds", True),
    ("go-ipfix", '{element = "tcpControlBits", octets = 1}', True),
    ("go-ipfix", '{element = "minimumIpTotalLength", octets = 2}', True),
]


def one(collector: str, *elements: str) -> list[tuple[str, bool]]:
    return [(text, fatal) for text, fatal in check([template("ipv4", *elements)], collector)]


@pytest.mark.parametrize("collector", RULES)
def test_no_complaint_about_a_good_template(collector: str) -> None:
    assert one(collector, *GOOD) == []


@pytest.mark.parametrize(("collector", "element", "fatal"), WITHOUT)
def test_a_missing_element_is_named(collector: str, element: str, fatal: bool) -> None:
    (finding,) = one(collector, *(name for name in GOOD if name != element))
    text, is_fatal = finding
    assert text.startswith("test.toml: [[template]] 1: without ")
    assert element in text.partition(" (")[0]
    assert is_fatal is fatal


@pytest.mark.parametrize(("collector", "element", "fatal"), WITH)
def test_an_element_that_is_misread_is_named_with_its_place(collector: str, element: str, fatal: bool) -> None:
    (finding,) = one(collector, *GOOD, element)
    text, is_fatal = finding
    name = element.split('"')[1] if element.startswith("{") else element
    assert text.startswith(f"test.toml: [[template]] 1: elements, entry {len(GOOD) + 1}: {name}: ")
    assert is_fatal is fatal


def test_the_tables_above_meet_every_rule_but_those_about_shape() -> None:
    met = {
        (collector, element.split('"')[1] if "{" in element else element) for collector, element, _ in WITHOUT + WITH
    }
    rules = {(name, rule) for name, rules in RULES.items() for rule in rules if rule.when in ("with", "without")}
    shared = {("flowlogs-pipeline", "packetDeltaCount")}
    assert [
        (collector, rule.elements)
        for collector, rule in rules
        if not any((collector, element) in met | shared for element in rule.elements)
    ] == []


def test_advice_is_for_the_family_of_the_template() -> None:
    (text, _), *_ = check([template("ipv6", "protocolIdentifier")], "solarwinds")
    assert "without sourceIPv6Address: " in text
    (text, _), *_ = check([template("any", "protocolIdentifier")], "solarwinds")
    assert "without sourceIPv4Address or sourceIPv6Address: " in text


@pytest.mark.parametrize("port", ["sourceTransportPort", "destinationTransportPort"])
def test_nfdump_wants_icmp_before_the_ports(port: str) -> None:
    others = [name for name in GOOD if name not in ("icmpTypeCodeIPv4", "destinationTransportPort")]
    assert one("nfdump", *others, "icmpTypeCodeIPv4", port) == []
    ((text, fatal),) = one("nfdump", *others, port, "icmpTypeCodeIPv4")
    assert text.startswith(
        f"test.toml: [[template]] 1: elements, entry {len(others) + 2}: icmpTypeCodeIPv4: shows port 0"
    )
    assert not fatal


@pytest.mark.parametrize("collector", ["goflow2", "flowlogs-pipeline"])
@pytest.mark.parametrize("element", ["destinationTransportPort", "icmpTypeIPv4", "icmpCodeIPv4"])
def test_icmp_that_is_sent_and_not_read_is_named(collector: str, element: str) -> None:
    others = [name for name in GOOD if name not in ("icmpTypeCodeIPv4", "destinationTransportPort")]
    assert one(collector, *others) == []
    ((text, _),) = one(collector, *others, element)
    assert text.startswith("test.toml: [[template]] 1: without icmpTypeCodeIPv4: shows ICMP type and code 0")


def test_flags_in_one_octet_are_right_for_pmacct() -> None:
    assert one("pmacct", *GOOD, '{element = "tcpControlBits", octets = 1}') == []


@pytest.mark.parametrize(
    ("number", "enterprise", "refused"),
    [(257, 0, False), (433, 0, False), (434, 0, True), (416, 0, True), (97, 0, True), (1, 32473, True), (500, 9, True)],
)
def test_logstash_knows_the_elements_of_its_table_only(number: int, enterprise: int, refused: bool) -> None:
    element = InformationElement("some", number, "unsigned32", 4, "", "", enterprise)
    found = check([Template("any", (Field(element, 4),), "x.toml: [[template]] 1")], "logstash")
    assert [finding.fatal for finding in found] == [True] * refused


def test_go_ipfix_closes_at_an_enterprise_element() -> None:
    element = InformationElement("own", 5, "unsigned32", 4, "", "", enterprise=32473)
    (finding,) = check([Template("any", (Field(element, 4),), "x.toml: [[template]] 1")], "go-ipfix")
    assert "entry 1: own: closes the connection" in finding.text


def with_options(lines: str, *elements: str) -> TemplateSet:
    listed = ", ".join(f'"{element}"' for element in elements)
    return parse(f'{lines}\n[[template]]\nfamily = "ipv4"\nelements = [{listed}]\n', "x.toml")


def test_go_ipfix_closes_at_options_records() -> None:
    (finding,) = check(with_options("", *GOOD), "go-ipfix")
    assert finding.text.startswith("x.toml: options: takes an Options Template for data without a Template")
    assert finding.fatal
    assert check(with_options("options = []", *GOOD), "go-ipfix") == []


@pytest.mark.parametrize(("collector", "fatal"), [("nfdump", False), ("pmacct", False), ("python-netflow", True)])
def test_strict_options_cost_something(collector: str, fatal: bool) -> None:
    (finding,) = check(with_options('options_form = "strict"', *GOOD), collector)
    assert finding.text.startswith("x.toml: options_form: ")
    assert finding.fatal is fatal
    assert check(with_options("", *GOOD), collector) == []


def test_each_place_is_a_finding_of_its_own() -> None:
    found = check(default_templates(), "go-ipfix")
    assert [finding.fatal for finding in found] == [True, True, True]
    for number, finding in enumerate(found[:2], 1):
        assert f"[[template]] {number}: elements, entry 8: tcpControlBits: " in finding.text


def test_a_template_of_every_family_can_be_checked() -> None:
    (both,) = parse('[[template]]\nfamily = "any"\nelements = ["octetDeltaCount"]\n', "any.toml")
    assert [len(check([both], collector)) for collector in ("nfdump", "goflow2", "solarwinds")] == [0, 2, 5]


@pytest.mark.parametrize("rule", [rule for rules in RULES.values() for rule in rules])
def test_rules_are_well_formed(rule: Rule) -> None:
    kinds = {"with", "without", "behind", "reduced", "variable", "enterprise", "unknown", "options", "strict"}
    assert rule.when in kinds
    assert bool(rule.elements) == (rule.when in {"with", "without", "behind"})
    assert not rule.beside or rule.when in {"without", "behind"}
    assert [name for name in rule.beside if by_name(name) is None] == []
    assert bool(rule.known) == (rule.when == "unknown")
    assert [name for name in rule.elements if by_name(name) is None] == []
    assert all(by_id(number) for numbers in rule.known for number in (numbers[0],))
    assert rule.effect
    assert rule.source
    assert not rule.effect.endswith(".")
