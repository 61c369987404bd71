"""The Options Templates that netobs sends, in a form that was tried with collectors, and in the form of the RFCs.

nfdump, pmacct, goflow2, ipfixcol2, libfixbuf's tools and tshark all read the form "fixed". It has strings of a fixed
length, and interfaces with their index as an ordinary field and one Data Record in a Set (nfdump looks for both).
The form "strict" has strings of variable length, the index as scope, sampling as RFC 5477 describes it, and the times
of the first and the last loss. These need one element twice (RFC 7011, 4.2 and 4.3), for which Logstash's codec raises.
In both forms, types of elements have names of variable length: fixed ones make ipfixDump 2.4.1 with --rfc5610 end with
a segmentation fault (tried).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from netobs.encode.options.choice import (
    ELEMENT_TYPES,
    EXPORTING_RELIABILITY,
    FLOW_KEYS,
    INTERFACES,
    METERING_RELIABILITY,
    METERING_STATISTICS,
    NAMESPACES,
    SAMPLING,
    STRICT,
    OptionsChoice,
)
from netobs.encode.options.wire import OptionsTemplate, Row, Subject, element
from netobs.encode.registry import InformationElement
from netobs.flow.report import Losses, ReportedInterface

METERING_PROCESS = 1
SELECTOR = 1
UNIFORM_PROBABILISTIC = 4  # registry psamp, psampSelectionAlgorithms: each packet independently, as our programs do
DETERMINISTIC_SAMPLING, RANDOM_SAMPLING = 1, 2  # IE 35
MAX_KEY_FIELDS = 64  # bits of flowKeyIndicator

FLOW_KEY_ELEMENTS = frozenset(
    f"{end}{name}" for end in ("source", "destination") for name in ("IPv4Address", "IPv6Address", "TransportPort")
) | {
    *(f"icmp{name}IPv{version}" for name in ("Type", "Code", "TypeCode") for version in (4, 6)),
    "protocolIdentifier", "flowDirection", "ethernetType", "ipVersion", "vlanId", "postVlanId", "dot1qVlanId",
    "ingressInterface", "egressInterface", "interfaceIndex", "observationPointId", "ingressVRFID", "egressVRFID",
}  # fmt: skip
"""The elements, and values of enterprise elements, that carry fields of ``netobs.flow.records.KEY``."""

DATA_TYPES = (
    "octetArray", "unsigned8", "unsigned16", "unsigned32", "unsigned64", "signed8", "signed16", "signed32", "signed64",
    "float32", "float64", "boolean", "macAddress", "string", "dateTimeSeconds", "dateTimeMilliseconds",
    "dateTimeMicroseconds", "dateTimeNanoseconds", "ipv4Address", "ipv6Address", "basicList", "subTemplateList",
    "subTemplateMultiList", "unsigned256",
)  # fmt: skip
SEMANTICS = ("default", "quantity", "totalCounter", "deltaCounter", "identifier", "flags", "list", "snmpCounter",
             "snmpGauge")  # fmt: skip
UNITS = ("none", "bits", "octets", "packets", "flows", "seconds", "milliseconds", "microseconds", "nanoseconds",
         "4-octet words", "messages", "hops", "entries", "frames", "ports", "inferred")  # fmt: skip
"""By code (RFC 5610, sections 3.1 to 3.3; RFC 6313; RFC 9740; the IANA registry)."""


def _interfaces(subject: Subject) -> list[Row]:
    return [
        (subject.observation_domain, each.index, each.name, each.description) for each in _in_namespace(subject, False)
    ]


def _interfaces_by_index(subject: Subject) -> list[Row]:
    return [(each.index, each.name, each.description, each.mac) for each in _in_namespace(subject, False)]


def _in_namespace(subject: Subject, other: bool) -> Iterator[ReportedInterface]:
    """The interfaces of the first network namespace, or those of all others: an index in one of these would give a
    collector that does not know of namespaces another interface's name."""
    return (each for each in subject.report.interfaces if bool(each.netns) == other)


def _namespaces(subject: Subject) -> list[Row]:
    return list((subject.report.namespaces or {}).items())


def _interfaces_of_namespaces(subject: Subject) -> list[Row]:
    return [(each.netns, each.index, each.name, each.description) for each in _in_namespace(subject, True)]


def _sampling(subject: Subject) -> list[Row]:
    """Also sent for 1 in 1: without it, collectors assume that they do not know the rate yet."""
    return [(subject.observation_domain, subject.report.sampling)]


def _sampling_algorithm(subject: Subject) -> list[Row]:
    algorithm = RANDOM_SAMPLING if subject.report.sampling > 1 else DETERMINISTIC_SAMPLING
    return [(*row, algorithm) for row in _sampling(subject)]


def _selector(subject: Subject) -> list[Row]:
    sampling = subject.report.sampling
    return [(SELECTOR, UNIFORM_PROBABILISTIC, 1 / sampling)] if sampling > 1 else []


def _metering_statistics(subject: Subject) -> list[Row]:
    exported = subject.report.exported
    return [(subject.observation_domain, exported.messages, exported.flows, exported.octets)]


def _exporting_reliability(subject: Subject) -> list[Row]:
    losses = subject.report.not_sent
    return [(subject.report.exporting_process, losses.flows, losses.packets, losses.octets)]


def _metering_reliability(subject: Subject) -> list[Row]:
    losses = subject.report.ignored
    return [(subject.observation_domain, losses.packets, losses.octets)]


def _exporting_reliability_and_times(subject: Subject) -> list[Row]:
    return _with_times(_exporting_reliability(subject), subject.report.not_sent)


def _metering_process_reliability(subject: Subject) -> list[Row]:
    rows = [(domain, METERING_PROCESS, *counts) for domain, *counts in _metering_reliability(subject)]
    return _with_times(rows, subject.report.ignored)


def _with_times(rows: Sequence[Row], losses: Losses) -> list[Row]:
    """``rows`` with the times of the first and the last loss. None before the first loss: no time means "never"."""
    return [(*row, losses.first_ns, losses.last_ns) for row in rows] if losses.first_ns else []


def _flow_keys(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    for template in {each.id: each for each in subject.templates}.values():
        names = [field.filled_with for field in template.fields[:MAX_KEY_FIELDS]]
        rows.append((template.id, sum(1 << bit for bit, name in enumerate(names) if name in FLOW_KEY_ELEMENTS)))
    return rows


def _element_types(subject: Subject) -> list[Row]:
    found = {field.element: None for template in subject.templates for field in template.fields}
    return [_element_type(each) for each in found if each.enterprise]


def _element_type(each: InformationElement) -> Row:
    """The codes are 0 for octets, no semantics, no units, no range."""
    codes = [
        table.index(word) if word in table else 0
        for table, word in ((DATA_TYPES, each.type), (SEMANTICS, each.semantics), (UNITS, each.units))
    ]
    return (each.enterprise, each.id, *codes, 0, 0, each.name, each.description)


_DOMAIN = element("observationDomainId")
_INDEX, _MAC = element("ingressInterface"), element("sourceMacAddress")
_NAME, _DESCRIPTION = "interfaceName", "interfaceDescription"
_VRF = element("ingressVRFID")
_INTERVAL, _ALGORITHM = element("samplingInterval"), element("samplingAlgorithm")
_TIMES = (element("observationTimeMicroseconds"), element("observationTimeMicroseconds"))
_EXPORTED = (
    element("exportedMessageTotalCount"),
    element("exportedFlowRecordTotalCount"),
    element("exportedOctetTotalCount"),
)
_IGNORED = (element("ignoredPacketTotalCount"), element("ignoredOctetTotalCount"))
_PROCESS = element("exportingProcessId")
_NOT_SENT = tuple(element(f"notSent{what}TotalCount") for what in ("Flow", "Packet", "Octet"))
_TYPE = tuple(
    element(f"informationElement{what}") for what in ("DataType", "Semantics", "Units", "RangeBegin", "RangeEnd")
)
_TYPE_NAMES = (element("informationElementName"), element("informationElementDescription"))
_TYPE_SCOPE = (element("privateEnterpriseNumber"), element("informationElementId"))

_INTERFACES_FIXED = OptionsTemplate(
    INTERFACES, (_DOMAIN,), (_INDEX, element(_NAME, 16), element(_DESCRIPTION, 64)), _interfaces, one_per_set=True
)
_SAMPLING = OptionsTemplate(SAMPLING, (_DOMAIN,), (_INTERVAL,), _sampling)
_METERING_STATISTICS = OptionsTemplate(METERING_STATISTICS, (_DOMAIN,), _EXPORTED, _metering_statistics)
_EVERYWHERE = (
    _METERING_STATISTICS,
    OptionsTemplate(FLOW_KEYS, (element("templateId"),), (element("flowKeyIndicator"),), _flow_keys),
    OptionsTemplate(ELEMENT_TYPES, _TYPE_SCOPE, (*_TYPE, *_TYPE_NAMES), _element_types),
)

_FIXED = (
    _INTERFACES_FIXED,
    _SAMPLING,
    *_EVERYWHERE,
    OptionsTemplate(EXPORTING_RELIABILITY, (_PROCESS,), _NOT_SENT, _exporting_reliability),
    OptionsTemplate(METERING_RELIABILITY, (_DOMAIN,), _IGNORED, _metering_reliability),
)
_STRICT = (
    OptionsTemplate(INTERFACES, (_INDEX,), (element(_NAME), element(_DESCRIPTION), _MAC), _interfaces_by_index, True),
    _SAMPLING,
    OptionsTemplate(
        SAMPLING,
        (element("selectorId"),),
        (element("selectorAlgorithm"), element("samplingProbability")),
        _selector,
    ),
    *_EVERYWHERE,
    OptionsTemplate(EXPORTING_RELIABILITY, (_PROCESS,), (*_NOT_SENT, *_TIMES), _exporting_reliability_and_times),
    OptionsTemplate(
        METERING_RELIABILITY,
        (_DOMAIN, element("meteringProcessId")),
        (*_IGNORED, *_TIMES),
        _metering_process_reliability,
    ),
)
_OF_NAMESPACES = (
    OptionsTemplate(NAMESPACES, (_VRF,), (element("VRFname"),), _namespaces),
    OptionsTemplate(NAMESPACES, (_VRF, _INDEX), (element(_NAME), element(_DESCRIPTION)), _interfaces_of_namespaces),
)
_NETFLOW9 = (
    _INTERFACES_FIXED,
    _SAMPLING,  # nfdump before 1.7.6 reads this one, later ones read the other
    OptionsTemplate(SAMPLING, (_DOMAIN,), (_INTERVAL, _ALGORITHM), _sampling_algorithm),
    _METERING_STATISTICS,
)


def options_templates(choice: OptionsChoice, netflow9: bool = False) -> tuple[OptionsTemplate, ...]:
    """The Options Templates of ``choice``; NetFlow v9 has no elements for most of them."""
    table = _NETFLOW9 if netflow9 else (*(_STRICT if choice.form == STRICT else _FIXED), *_OF_NAMESPACES)
    return tuple(each for each in table if each.kind in choice.kinds)


def spoken(options: Iterable[OptionsTemplate], subject: Subject) -> list[OptionsTemplate]:
    """The ``options`` to announce: those with records, or with possible later records (interfaces, losses, and
    namespaces if these are followed)."""
    later = [INTERFACES, METERING_RELIABILITY, EXPORTING_RELIABILITY]
    later += [NAMESPACES] * (subject.report.namespaces is not None)
    return [each for each in options if each.kind in later or each.rows(subject)]
