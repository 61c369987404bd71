"""What NetFlow leaves out of a Template, and what collectors need of the rest."""

from __future__ import annotations

import pytest

from lab.samples import default_templates, template
from netobs.encode import Field, Template
from netobs.encode.lint import netflow
from netobs.encode.lint.netflow import NETFLOW5, NETFLOW9, NO_NETFLOW, RULES_NETFLOW9, changes, check
from netobs.encode.lint.rules import RULES
from netobs.encode.registry import InformationElement, by_name

PLACE = "test.toml: [[template]] 1: "
GOOD = (
    *("sourceIPv4Address", "destinationIPv4Address", "icmpTypeCodeIPv4", "destinationTransportPort"),
    "protocolIdentifier",
    *("ipClassOfService", "ingressInterface", "octetDeltaCount", "packetDeltaCount", "flowEndMilliseconds"),
)


def test_what_netflow9_leaves_out_or_changes() -> None:
    found = template("ipv4", "vlanId", "flowEndReason", "tcpControlBits", "flowStartSeconds", "octetDeltaCount")
    assert list(changes(found, NETFLOW9)) == [
        f"{PLACE}elements, entry 2: flowEndReason: left out: NetFlow v9 ends at element 127",
        f"{PLACE}elements, entry 3: tcpControlBits: sent in 1 octet",
        f"{PLACE}elements, entry 4: flowStartSeconds: sent as flowStartSysUpTime in 4 octets",
    ]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_icmp_in_two_elements_becomes_the_one_that_netflow9_has(family: str) -> None:
    version = family[-1]
    found = template(family, *GOOD[3:], f"icmpTypeIPv{version}", f"icmpCodeIPv{version}")
    (line, *_) = [line for line in changes(found, NETFLOW9) if "icmpType" in line]
    assert line.endswith(f": icmpTypeIPv{version}: sent as icmpTypeCodeIPv4 in 2 octets")
    assert check([found], "nfdump", NETFLOW9) == []


def test_what_netflow5_leaves_out_or_changes() -> None:
    found = template("ipv4", "vlanId", "protocolIdentifier", "octetDeltaCount", "flowEndMicroseconds")
    assert list(changes(found, NETFLOW5)) == [
        f"{PLACE}elements, entry 1: vlanId: left out: the record of NetFlow v5 is fixed",
        f"{PLACE}elements, entry 3: octetDeltaCount: sent in 4 octets",
        f"{PLACE}elements, entry 4: flowEndMicroseconds: sent as flowEndSysUpTime in 4 octets",
    ]
    assert list(changes(template("ipv6", "vlanId"), NETFLOW5)) == [f"{PLACE}left out: NetFlow v5 has IPv4 flows only"]


def test_ipfix_changes_nothing() -> None:
    assert [line for each in default_templates() for line in changes(each, "ipfix")] == []


@pytest.mark.parametrize("collector", RULES)
@pytest.mark.parametrize("protocol", [NETFLOW9, NETFLOW5])
def test_a_good_template_is_refused_only_by_those_who_read_no_netflow(collector: str, protocol: str) -> None:
    found = check([template("ipv4", *GOOD)], collector, protocol)
    assert [(finding.text, finding.fatal) for finding in found] == (
        [(f"test.toml: it does not read NetFlow ({NO_NETFLOW[collector]})", True)] if collector in NO_NETFLOW else []
    )


@pytest.mark.parametrize(
    ("collector", "missing", "text", "fatal"),
    [
        ("pmacct", "flowEndMilliseconds", "without flowEndSysUpTime: shows no end", False),
        ("pmacct", "destinationTransportPort", "without destinationTransportPort: shows no ICMP type", False),
        ("goflow2", "flowEndMilliseconds", "without flowEndSysUpTime: shows the Export Time", False),
        ("goflow2", "octetDeltaCount", "without octetDeltaCount: shows 0 octets", True),
        ("goflow2", "icmpTypeCodeIPv4", "without icmpTypeCodeIPv4: shows ICMP type and code 0", False),
        ("flowlogs-pipeline", "icmpTypeCodeIPv4", "without icmpTypeCodeIPv4: shows ICMP type and code 0", False),
        ("nfdump", "icmpTypeCodeIPv4", "without icmpTypeCodeIPv4: shows ICMP type and code 0", False),
        ("flowlogs-pipeline", "packetDeltaCount", "without packetDeltaCount: shows 0 packets", True),
        ("solarwinds", "sourceIPv4Address", "without sourceIPv4Address: ignores the flows", True),
        ("solarwinds", "ipClassOfService", "without ipClassOfService: has no data", False),
    ],
)
def test_what_a_collector_lacks_in_netflow9(collector: str, missing: str, text: str, fatal: bool) -> None:
    (finding,) = check([template("ipv4", *(name for name in GOOD if name != missing))], collector, NETFLOW9)
    assert finding.text.startswith(PLACE + text)
    assert finding.fatal is fatal


def test_logstash_knows_what_we_send_over_netflow9_but_not_every_number() -> None:
    assert check(default_templates(), "logstash", NETFLOW9) == []
    element = InformationElement("some", 70, "unsigned32", 4, "", "")
    (finding,) = check([Template("any", (Field(element, 4),), "x.toml: [[template]] 1")], "logstash", NETFLOW9)
    assert finding.text.startswith("x.toml: [[template]] 1: elements, entry 1: some: drops the whole Template")


def test_rules_are_well_formed() -> None:
    assert set(RULES_NETFLOW9) | set(NO_NETFLOW) <= set(RULES)
    for rule in (rule for rules in RULES_NETFLOW9.values() for rule in rules):
        assert rule.when in {"without", "unknown"}
        assert bool(rule.elements) == (rule.when == "without")
        assert bool(rule.known) == (rule.when == "unknown")
        assert [name for name in rule.elements if by_name(name) is None] == []
        assert rule.source
    assert netflow.sent(template("ipv6", "vlanId"), NETFLOW5) is None
