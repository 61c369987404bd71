"""``netobs template``: lists flow templates, shows one, and checks which collectors can read it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from netobs.base.errors import TemplateError
from netobs.base.ipfix import SET_HEADER
from netobs.base.words import PROTOCOLS
from netobs.encode import Encoder, Field, Template, load_templates, netflow5, netflow9, template_dirs
from netobs.encode.layout import VARIABLE_LENGTH, big_endian
from netobs.encode.layout_netflow import TEMPLATE_FLOWSET_ID, netflow5_template
from netobs.encode.lint import netflow, rules
from netobs.encode.options.choice import TemplateSet
from netobs.encode.options.table import spoken
from netobs.encode.options.wire import Subject
from netobs.flow.report import Report

IPFIX = "ipfix"
_SUFFIX = ".toml"


def listing() -> list[str]:
    """A line for each template file that a name can select; an unusable one has its error."""
    files: dict[str, Path] = {}
    for place in template_dirs():
        for path in sorted(place.glob("*" + _SUFFIX)):
            files.setdefault(path.stem, path)  # the first directory wins, as in loading
    width = max(map(len, files), default=0)
    return [f"{name:<{width}}  {_summary(path)}" for name, path in sorted(files.items())]


def _summary(path: Path) -> str:
    try:
        templates = load_templates(str(path))
    except TemplateError as error:
        return f"unusable: {error}"
    sizes = ", ".join(f"{each.family} {each.size}" for each in templates)
    return f"{sizes}  {path}"


def show(name: str, wire: bool = False, protocol: str = IPFIX) -> list[str]:
    """The Templates of the file ``name`` (a name or a path): Data Records, or with ``wire`` the Template Records.

    ``protocol``: one of ``PROTOCOLS``. NetFlow v9 has each Template in a FlowSet; v5 has none, and its fixed record is
    shown. After them come the Options Templates. Raises TemplateError.
    """
    templates = load_templates(name)
    if protocol == netflow.NETFLOW5:
        return ["NetFlow v5 sends no templates: this is its record", *list(_layout(netflow5_template()))[1:]]
    lines: list[str] = []
    for template in templates:
        lines += [""] if lines else []
        if protocol == netflow.NETFLOW9:
            adapted = netflow9.netflow9_template(template)
            lines += _flowset(adapted) if wire else _layout(adapted)
        else:
            lines += _wire(template) if wire else _layout(template)
    return lines + _options(templates, wire, protocol)


def _options(templates: TemplateSet, wire: bool, protocol: str) -> list[str]:
    """The Options Templates, a line each: their kind, and their elements or their record in hexadecimal.

    They are the Options Templates of an exporter that samples packets.
    """
    encoder: Encoder | netflow9.Encoder = Encoder(templates, templates.options)
    if protocol == netflow.NETFLOW9:
        encoder = netflow9.Encoder(templates, 0, templates.options)
    lines = [f"options records, form {templates.options.form}:"]
    for options in spoken(encoder.options, Subject(Report(sampling=2), encoder.templates, 0)):
        scopes, fields = (
            ", ".join(f"{field.element.name} {_octets(field)}" for field in each)
            for each in (options.scopes, options.fields)
        )
        what = encoder.options_record(options).hex(" ", 2) if wire else f"{scopes} | {fields}"
        lines.append(f"{options.id} {options.kind}: {what}")
    return ["", *lines] if lines[1:] else []


def _octets(field: Field) -> str:
    return "(variable)" if field.octets == VARIABLE_LENGTH else f"({field.octets})"


def _layout(template: Template) -> Iterator[str]:
    """Each field of a Data Record: offset, octets, number and name of the element, its type."""
    yield f"template {template.id}, {template.family}: {len(template.fields)} elements, Data Record of {template.size}"
    yield "offset octets element"
    at: int | None = 0
    for field in template.fields:
        element, octets = field.element, "var" if field.octets == VARIABLE_LENGTH else field.octets
        reduced = (
            f", registered with {element.octets} octets" if field.octets < element.octets < VARIABLE_LENGTH else ""
        )
        own = f" of enterprise {element.enterprise}, filled with {field.value}" if element.enterprise else ""
        offset = "" if at is None else at  # unknown after a field of variable length
        yield f"{offset:>6} {octets:>6} {element.id:>7}  {element.name} ({element.type}{reduced}){own}"
        at = None if at is None or field.octets == VARIABLE_LENGTH else at + field.octets


def _row(at: int, octets: bytes, meaning: str) -> str:
    return f"{at:>6}  {octets.hex(' ', 2):<19}  {meaning}"


def _flowset(template: Template) -> list[str]:
    """The Template FlowSet of NetFlow v9 with ``template`` alone, as it is sent."""
    octets = SET_HEADER.itemsize + len(template.record)
    header = big_endian(SET_HEADER).pack(TEMPLATE_FLOWSET_ID, octets)
    title, *rows = _wire(template, len(header))
    return [title, _row(0, header, f"FlowSet {TEMPLATE_FLOWSET_ID}, {octets} octets"), *rows]


def _wire(template: Template, start: int = 0) -> Iterator[str]:
    """The Template Record as it is sent: offset from ``start``, octets in hexadecimal, meaning."""
    record = template.record
    yield f"template {template.id}, {template.family}: Template Record of {len(record)} octets"
    yield _row(start, record[:4], f"template {template.id}, {len(template.fields)} elements")
    at = 4
    for field in template.fields:
        end = at + (8 if field.element.enterprise else 4)
        octets = "variable length" if field.octets == VARIABLE_LENGTH else f"{field.octets} octets"
        own = f", enterprise {field.element.enterprise}" if field.element.enterprise else ""
        meaning = f"{field.element.name} ({field.element.id}{own}), {octets if field.octets != 1 else '1 octet'}"
        yield _row(start + at, record[at:end], meaning)
        at = end


def _check_size(templates: Sequence[Template], protocol: str, max_message_size: int) -> None:
    if protocol == netflow.NETFLOW5:
        netflow5.Encoder(0).check(max_message_size)
    elif protocol == netflow.NETFLOW9:
        netflow9.Encoder(templates, 0).check(max_message_size)
    else:
        Encoder(templates).check(max_message_size)


def check(
    name: str, collector: str = "", max_message_size: int = 1400, protocol: str = IPFIX
) -> tuple[list[str], bool]:
    """Lines about the file ``name`` (a name or a path), and whether ``collector`` would accept its flows.

    Without ``collector``: lines for each known collector, and True. If ``protocol`` is NetFlow, the first lines name
    the elements that it leaves out or changes. Raises TemplateError for an unusable file, for one that does not fit
    Messages of ``max_message_size`` bytes, and for an unknown collector.
    """
    if collector and collector not in rules.RULES:
        nearest = difflib.get_close_matches(collector, rules.RULES, n=1)
        raise TemplateError(
            f'no rules for a collector "{collector}"',
            f'did you mean "{nearest[0]}"?' if nearest else f"the known ones are {', '.join(rules.RULES)}",
        )
    templates = load_templates(name)
    _check_size(templates, protocol, max_message_size)
    over = "" if protocol == IPFIX else f" with {PROTOCOLS[protocol]}"
    lines = [f"{name}: {len(templates)} {'template' if len(templates) == 1 else 'templates'}, usable{over}"]
    lines += [f"  note: {change}" for template in templates for change in netflow.changes(template, protocol)]
    if protocol != netflow.NETFLOW5 and not templates.says_sampling:
        lines.append(
            "  warning: nothing tells the sampling rate: with [capture] sampling above 1, collectors show too little "
            'traffic; add "sampling" to options, or samplingInterval to elements'
        )
    if templates.former_ids:
        lines.append(f"  warning: {templates.former_ids}")
    usable = True
    for each in [collector] if collector else rules.RULES:
        is_ipfix = protocol == IPFIX
        findings = rules.check(templates, each) if is_ipfix else netflow.check(templates, each, protocol)
        fatal = any(finding.fatal for finding in findings)
        usable = usable and not (fatal and collector)
        lines.append(f"for {each}: " + ("not usable" if fatal else "usable, with a loss" if findings else "good"))
        lines += [f"  {'error' if finding.fatal else 'warning'}: {finding.text}" for finding in findings]
    return lines, usable
