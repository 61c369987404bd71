"""How NetFlow v9 and v5 change a Template, and what known collectors need then: as ``lint`` does for IPFIX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netobs.encode.layout_netflow import MAX_ELEMENT_ID, netflow5_template
from netobs.encode.lint.rules import ICMP_TYPE_CODE, RULES, Finding, Rule, missing
from netobs.encode.netflow9 import netflow9_name, netflow9_template
from netobs.encode.template.template import Template

NETFLOW9, NETFLOW5 = "netflow9", "netflow5"

_END = ("flowEndSysUpTime",)
_LOGSTASH_KNOWN = (range(1, 70), range(80, 87), range(89, 90), range(94, 97), range(98, 99))

NO_NETFLOW = {
    "go-ipfix": "its pkg/collector/process.go",
    "ipfixdump": "its manual: it reads IPFIX files",
}
"""Collectors that read only IPFIX, each with the source of this."""

_ICMP = Rule("without", "shows ICMP type and code 0: over NetFlow v9 it reads them in no other element", "tried",
             ICMP_TYPE_CODE, fatal=False, beside=("destinationTransportPort",))  # fmt: skip

RULES_NETFLOW9: dict[str, tuple[Rule, ...]] = {
    "nfdump": (_ICMP,),
    "pmacct": (
        Rule("without", "shows no end: it looks for it only here", "tried: 1.7.7", _END, fatal=False),
        *(rule for rule in RULES["pmacct"] if rule.elements == ("destinationTransportPort",)),
    ),
    "goflow2": (
        *(rule for rule in RULES["goflow2"] if "Delta" in rule.elements[0]),
        _ICMP,
        Rule("without", "shows the Export Time as end", "tried: 3", _END, fatal=False),
    ),
    "flowlogs-pipeline": (
        *(rule for rule in RULES["flowlogs-pipeline"] if "Delta" in rule.elements[0]),
        _ICMP,
    ),
    "solarwinds": tuple(rule for rule in RULES["solarwinds"] if rule.when == "without"),
    "logstash": (
        Rule("unknown", "drops the whole Template with all flows", "its netflow.yaml", known=_LOGSTASH_KNOWN),
    ),
}
"""By collector; the others have none. The rules are of two kinds: "without" and "unknown"."""


def sent(template: Template, protocol: str) -> Template | None:
    """What ``protocol`` ("ipfix", "netflow9", "netflow5") sends for ``template``; None if it sends nothing.

    Raises TemplateError if NetFlow v9 has no useful element of it.
    """
    if protocol == NETFLOW9:
        return netflow9_template(template)
    if protocol == NETFLOW5:
        return None if template.family == "ipv6" else netflow5_template()
    return template


def changes(template: Template, protocol: str) -> Iterator[str]:
    """How the records of ``protocol`` differ from ``template``: place in the file, element, sent form."""
    adapted = sent(template, protocol)
    if adapted is None:
        yield f"{template.source}: left out: NetFlow v5 has IPv4 flows only"
        return
    fields = {field.element.name: field for field in adapted.fields}
    for number, field in enumerate(template.fields, 1):
        place = f"{template.source}: elements, entry {number}: {field.element.name}"
        name = field.element.name if protocol not in (NETFLOW9, NETFLOW5) else netflow9_name(field)
        if name not in fields:
            yield f"{place}: left out: {_reason(protocol)}"
        elif name != field.element.name or fields[name].octets != field.octets:
            octets, other = fields[name].octets, "" if name == field.element.name else f"as {name} "
            yield f"{place}: sent {other}in {octets} {'octet' if octets == 1 else 'octets'}"


def _reason(protocol: str) -> str:
    return (
        "the record of NetFlow v5 is fixed" if protocol == NETFLOW5 else f"NetFlow v9 ends at element {MAX_ELEMENT_ID}"
    )


def check(templates: Sequence[Template], collector: str, protocol: str) -> list[Finding]:
    """The parts of ``templates`` over NetFlow that ``collector`` would misread. Raises TemplateError."""
    if collector in NO_NETFLOW:
        file = templates[0].source.rpartition(": ")[0]
        return [Finding(f"{file}: it does not read NetFlow ({NO_NETFLOW[collector]})", True)]
    if protocol != NETFLOW9:
        return []  # the record is what every collector knows
    return [
        Finding(f"{place}: {rule.effect} ({rule.source})", rule.fatal)
        for rule in RULES_NETFLOW9.get(collector, ())
        for template in templates
        for place in _places(rule, template)
    ]


def _places(rule: Rule, template: Template) -> Iterator[str]:
    """Where in the file ``rule`` applies to ``template`` as NetFlow v9 sends it."""
    adapted_template = netflow9_template(template)
    if rule.when == "without":
        yield from missing(rule, adapted_template)
        return
    fields = {field.element.name: field for field in adapted_template.fields}
    for number, field in enumerate(template.fields, 1):
        adapted = fields.get(netflow9_name(field))
        if adapted is not None and not any(adapted.element.id in numbers for numbers in rule.known):
            yield f"{template.source}: elements, entry {number}: {adapted.element.name}"
