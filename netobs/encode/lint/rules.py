"""What known collectors need in a Template, and what they cannot read: rules as data, and their application.

A rule names its source; "tried" means that such a Template was sent to that release of the collector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from netobs.encode.layout import VARIABLE_LENGTH
from netobs.encode.options.choice import STRICT, TemplateSet
from netobs.encode.template.field import Field
from netobs.encode.template.template import Template


class Rule(NamedTuple):
    """A collector's behaviour, in words, if a Template meets the condition.

    ``when``: "without" any of ``elements``, if it has one of ``beside`` (or ``beside`` is empty); "behind": one of
    ``elements`` behind one of ``beside``; "with" one of ``elements`` (in ``octets`` octets, 0 = any number); "reduced":
    an element in fewer octets than registered; "variable": an element of variable length; "enterprise": an element that
    is not IANA's; "unknown": one whose number is in none of the ranges ``known``; "options": options records, "strict":
    options records of the form "strict".
    ``fatal``: flows are lost or wrong with every examined release; else with some releases, or in a detail.
    """

    when: str
    effect: str
    source: str
    elements: tuple[str, ...] = ()
    octets: int = 0
    known: tuple[range, ...] = ()
    fatal: bool = True
    beside: tuple[str, ...] = ()


class Finding(NamedTuple):
    """A rule that applies. ``text``: place in the file, element, effect and source, one line."""

    text: str
    fatal: bool


_SECONDS = ("flowStartSeconds", "flowEndSeconds")
_MICROSECONDS = ("flowStartMicroseconds", "flowEndMicroseconds")
_NANOSECONDS = ("flowStartNanoseconds", "flowEndNanoseconds")
_ENDS = ("flowEndMilliseconds", "flowEndSeconds", "flowEndMicroseconds", "flowEndNanoseconds")
_PORTS = ("sourceTransportPort", "destinationTransportPort")
ICMP_TYPE_CODE = ("icmpTypeCodeIPv4", "icmpTypeCodeIPv6")
_ICMP_ELSEWHERE = (
    "destinationTransportPort", *(f"icmp{what}IPv{version}" for what in ("Type", "Code") for version in (4, 6))
)  # fmt: skip
_NTA = "SolarWinds, Required fields in NTA"
_LOGSTASH_KNOWN = (range(1, 65), range(70, 97), range(98, 105), range(128, 416), range(417, 419), range(420, 434))
_DELTAS_ONLY = tuple(
    Rule("without", f"shows 0 {what}: it reads no other counter", "tried: goflow2 3 and 1.3.7", (element,))
    for what, element in (("octets", "octetDeltaCount"), ("packets", "packetDeltaCount"))
)


def _icmp_only_there(source: str) -> Rule:
    """For collectors that look for ICMP type and code only in IE 32 and 139."""
    effect = "shows ICMP type and code 0: it reads them in no other element"
    return Rule("without", effect, source, ICMP_TYPE_CODE, fatal=False, beside=_ICMP_ELSEWHERE)


RULES: dict[str, tuple[Rule, ...]] = {
    "nfdump": (
        Rule("with", "shown as a time in 1970", "tried: 1.7.1 and 1.7.8", _MICROSECONDS),
        Rule("with", "1.7.1 shows a time in 1970, 1.7.8 the right one", "tried", _NANOSECONDS, fatal=False),
        Rule("with", "releases before 1.7.6 show a time in 1970", "tried: 1.7.1", _SECONDS, fatal=False),
        Rule("behind", "shows port 0 for SCTP, DCCP and UDP-Lite; write it before sourceTransportPort",
             "tried: 1.7.1 to 1.7.8", ICMP_TYPE_CODE, fatal=False, beside=_PORTS),
        Rule("strict", "shows no interface names: it expects them in a fixed length, beside the index", "tried: 1.7.1",
             fatal=False),
    ),
    "pmacct": (
        Rule("with", "the Export Time is shown as start, 0 as end", "tried: 1.7.7", _MICROSECONDS + _NANOSECONDS),
        Rule("without", "shows 0 as end, whatever the duration", "tried: 1.7.7", _ENDS),
        Rule("without", "shows no ICMP type and code: it looks for them here", "tried: 1.7.7",
             ("destinationTransportPort",), fatal=False),
        Rule("variable", "not shown by its primitives", "tried: 1.7.7", fatal=False),
        Rule("with", "releases before 1.7.8 show no TCP flags; write {element = \"tcpControlBits\", octets = 1}",
             "tried: 1.7.7; fixed by its commit fd1e4257", ("tcpControlBits",), octets=2, fatal=False),
        Rule("strict", "skips options records with strings of variable length, and so interface names", "tried: 1.7.7",
             fatal=False),
    ),
    "goflow2": (
        *_DELTAS_ONLY,
        Rule("without", "shows the Export Time as end", "tried: 3", _ENDS, fatal=False),
        _icmp_only_there("tried: 3"),
    ),
    "flowlogs-pipeline": (
        *_DELTAS_ONLY,
        Rule("with", "shown as garbage", "tried: with goflow2 1.3.7", _MICROSECONDS + _NANOSECONDS),
        _icmp_only_there("tried: with goflow2 1.3.7"),
    ),
    "ipfixcol2": (),
    "ipfixdump": (
        Rule("with", "shown in whole seconds", "tried: libfixbuf-tools", _MICROSECONDS + _NANOSECONDS, fatal=False),
    ),
    "go-ipfix": (
        Rule("reduced", "it still reads the registered length, and panics", "tried"),
        Rule("with", "refused: the Template is lost", "tried", _MICROSECONDS + _NANOSECONDS),
        Rule("enterprise", "closes the connection: it knows no other enterprises than its own", "tried"),
        Rule("options", "takes an Options Template for data without a Template, and closes the connection; "
             "write options = []", "its pkg/collector/process.go and tcp.go"),
    ),
    "solarwinds": (
        Rule("without", "ignores the flows", _NTA, ("protocolIdentifier",)),
        Rule("without", "ignores the flows", _NTA, ("sourceIPv4Address", "sourceIPv6Address")),
        Rule("without", "ignores the flows", _NTA, ("destinationIPv4Address", "destinationIPv6Address")),
        Rule("without", "ignores the flows", _NTA, ("ingressInterface", "egressInterface")),
        Rule("without", "ignores the flows", _NTA, (
            "octetDeltaCount", "octetTotalCount", "postOctetDeltaCount", "initiatorOctets", "responderOctets")),
        Rule("without", "has no data for its type-of-service views", _NTA, ("ipClassOfService",), fatal=False),
    ),
    "logstash": (
        Rule("enterprise", "drops the whole Template with all flows", "logstash-codec-netflow issues 12, 124, 184"),
        Rule("unknown", "drops the whole Template with all flows", "its ipfix.yaml", known=_LOGSTASH_KNOWN),
    ),
    "python-netflow": (
        Rule("variable", "raises PaddingCalculationError and ends; write {element = NAME, octets = N}", "tried"),
        Rule("strict", "ends at options records with strings of variable length", "tried"),
    ),
}  # fmt: skip
"""By collector. One without rules reads all that netobs can send (tried)."""


def check(templates: Sequence[Template], collector: str) -> list[Finding]:
    """The parts of ``templates`` that ``collector`` (a key of ``RULES``) would misread."""
    found = []
    for rule in RULES[collector]:
        if rule.when in ("options", "strict"):
            found += [_finding(rule, place) for place in _options_places(rule, templates)]
        else:
            found += [_finding(rule, place) for template in templates for place in _places(rule, template)]
    return found


def _options_places(rule: Rule, templates: Sequence[Template]) -> Iterator[str]:
    """Where ``rule``, about options records, applies to a template file."""
    if isinstance(templates, TemplateSet) and templates.options.kinds:
        source = templates[0].source.rpartition(": ")[0]
        if rule.when == "options":
            yield f"{source}: options"
        elif templates.options.form == STRICT:
            yield f"{source}: options_form"


def _finding(rule: Rule, place: str) -> Finding:
    return Finding(f"{place}: {rule.effect} ({rule.source})", rule.fatal)


def _places(rule: Rule, template: Template) -> Iterator[str]:
    """Where in the file ``rule`` applies to ``template``."""
    if rule.when == "without":
        yield from missing(rule, template)
        return
    seen: set[str] = set()
    for number, field in enumerate(template.fields, 1):
        is_behind = rule.when != "behind" or bool(seen & set(rule.beside))
        if is_behind and _applies(rule, field):
            yield f"{template.source}: elements, entry {number}: {field.element.name}"
        seen.add(field.element.name)


def missing(rule: Rule, template: Template) -> Iterator[str]:
    """The place where ``template`` lacks what ``rule`` ("without") asks for."""
    names = {field.element.name for field in template.fields}
    if not names & set(rule.elements) and (not rule.beside or names & set(rule.beside)):
        # Do not suggest elements that this family cannot have.
        other = {"ipv4": "IPv6", "ipv6": "IPv4"}.get(template.family, "")
        wanted = [name for name in rule.elements if not other or other not in name]
        yield f"{template.source}: without {' or '.join(wanted)}"


def _applies(rule: Rule, field: Field) -> bool:
    """Whether ``rule`` applies to ``field``."""
    element = field.element
    if rule.when in ("with", "behind"):
        return element.name in rule.elements and rule.octets in {0, field.octets}
    if rule.when == "reduced":
        return field.octets < element.octets
    if rule.when == "variable":
        return field.octets == VARIABLE_LENGTH
    if rule.when == "enterprise":
        return element.enterprise != 0
    return not element.enterprise and not any(element.id in numbers for numbers in rule.known)
