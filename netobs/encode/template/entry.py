"""One entry in the ``elements`` of a template file: a registered Information Element, or one of an enterprise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from netobs.base.errors import TemplateError
from netobs.config.text import nearest as nearest_word
from netobs.config.text import one_line, toml_text
from netobs.encode.columns import ALL_COLUMNS, COLUMNS, OWN_VALUES, Column
from netobs.encode.layout import ENTERPRISE_BIT, VARIABLE_LENGTH
from netobs.encode.options.table import SEMANTICS, UNITS
from netobs.encode.registry import TYPES, InformationElement, abstract_type, by_name, elements
from netobs.encode.template.field import Field

_KEYS = ("element", "octets")
_NEEDED_KEYS = ("name", "enterprise", "id", "type", "value")
_ENTERPRISE_KEYS = (*_NEEDED_KEYS, "octets", "description", "semantics", "units")
_WIDTHS = (1, 2, 4, 8, 16, 32)
_MAX_TEXT_OCTETS = 255
_MAX_ENTERPRISE = 0xFFFFFFFF
_REVERSE_ENTERPRISE = 29305
_NAME = re.compile(r"[a-z][A-Za-z0-9]{0,63}")
_BYTE_TYPES = ("string", "octetArray", "ipv4Address", "ipv6Address", "macAddress")
_UNSIGNED = "unsigned"


def parse_entry(entry: Any, family: str, where: str) -> Field:
    """The field that ``entry`` describes; ``where`` is its place in the file. Raises TemplateError."""
    if isinstance(entry, dict) and "element" not in entry and set(entry) & set(_NEEDED_KEYS):
        return _enterprise_field(entry, family, where)
    octets = None
    if isinstance(entry, dict):
        check_keys(entry, _KEYS, where)
        octets = _octets(entry, where)
        if "element" not in entry:
            raise TemplateError(
                f'{where}: key "element" is missing', 'an enterprise-specific element has the key "name" instead'
            )
        entry = entry["element"]
    if not isinstance(entry, str):
        raise TemplateError(
            f"{where}: expected an element name or {{element = NAME, octets = N}}, got {toml_text(entry)}"
        )
    where = f"{where}: {one_line(entry)}"
    element = _registered(entry, where)
    _check_family(entry, COLUMNS[entry], family, where)
    return _field(element, element, COLUMNS[entry], octets, where)


def _octets(entry: dict[str, Any], where: str) -> int | None:
    octets = entry.get("octets")
    if "octets" in entry and not is_int(octets):
        raise TemplateError(f"{where}: octets: expected an integer, got {toml_text(octets)}")
    return octets


def _registered(name: str, where: str) -> InformationElement:
    element = by_name(name)
    if element is None:
        raise TemplateError(
            f"{where}: no such Information Element", nearest(name, COLUMNS) or nearest(name, _registered_names())
        )
    if name not in COLUMNS:
        raise TemplateError(f"{where}: registered, but netobs does not measure it", nearest(name, COLUMNS))
    return element


def _registered_names() -> list[str]:
    return [element.name for element in elements()]


def _check_family(value: str, column: Column, family: str, where: str) -> None:
    if column.family and column.family != family:
        what = "" if where.endswith(f": {value}") else f"{value} "
        raise TemplateError(f'{where}: {what}exists only in family "{column.family}", and this template has "{family}"')


def _field(
    element: InformationElement, source: InformationElement, column: Column, octets: int | None, where: str
) -> Field:
    """``element`` in ``octets`` octets (None: its own), filled with the values of ``source`` by ``column``."""
    octets = (
        column.octets or element.octets if octets is None else _checked_octets(element, source, column, octets, where)
    )
    most = column.most_octets if octets == VARIABLE_LENGTH else 0
    return Field(element, octets, source.name if element.enterprise else "", most)


def _checked_octets(
    element: InformationElement, source: InformationElement, column: Column, octets: int, where: str
) -> int:
    """``octets`` if reduced-size encoding allows it (RFC 7011, 6.2) and our values fit; a fixed length for strings."""
    if octets == (column.octets or element.octets):
        return octets
    if column.octets:
        raise TemplateError(f"{where}: octets: {source.name} always takes {column.octets} octets, got {octets}")
    if element.octets == VARIABLE_LENGTH:
        if 0 < octets <= _MAX_TEXT_OCTETS:
            return octets
        raise TemplateError(
            f"{where}: octets: expected 1 to {_MAX_TEXT_OCTETS}, got {octets}", "without it, the length is variable"
        )
    if not abstract_type(element.type).reducible:
        raise TemplateError(f"{where}: octets: {element.type} always takes {element.octets} octets, got {octets}")
    least = column.least_octets or source.octets
    allowed = [width for width in _WIDTHS if least <= width <= element.octets]
    if octets not in allowed:
        choices = " or ".join(str(width) for width in allowed)
        hint = "in fewer octets, some values would not fit" if octets < least else ""
        raise TemplateError(f"{where}: octets: expected {choices}, got {octets}", hint)
    return octets


def _enterprise_field(entry: dict[str, Any], family: str, where: str) -> Field:
    """An element that the file defines: RFC 7011, 3.2 (number), RFC 5610 (type information)."""
    name = entry.get("name")
    if isinstance(name, str):
        where = f"{where}: {one_line(name)}"
    check_keys(entry, _ENTERPRISE_KEYS, where)
    for key in _NEEDED_KEYS:
        if key not in entry:
            raise TemplateError(f'{where}: key "{key}" is missing', "an enterprise-specific element needs it")
    _check_name(name, where)
    _check_number(entry["enterprise"], entry["id"], where)
    source, column = _source(entry["value"], where)
    _check_family(source.name, column, family, where)
    kind = entry["type"]
    _check_type(kind, source, where)
    element = InformationElement(
        name=entry["name"],
        id=entry["id"],
        type=kind,
        octets=int(kind[len(_UNSIGNED) :]) // 8 if kind.startswith(_UNSIGNED) else source.octets,
        semantics=_choice(entry, "semantics", SEMANTICS, where) or source.semantics or "default",
        units=_choice(entry, "units", UNITS, where) or source.units or "none",
        enterprise=entry["enterprise"],
        description=_description(entry, where),
    )
    return _field(element, source, column, _octets(entry, where), where)


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TemplateError(
            f"{where}: name: expected a lower-case letter, then up to 63 letters and digits, got {toml_text(name)}",
            'as in "acmeInterface"',
        )
    if by_name(name) is not None or name in ALL_COLUMNS:
        what = "registered by IANA" if by_name(name) is not None else "a value of netobs"
        raise TemplateError(f"{where}: name: {name} is {what}", "start it with a word for the enterprise")


def _check_number(enterprise: Any, number: Any, where: str) -> None:
    if not is_int(enterprise) or not 0 < enterprise <= _MAX_ENTERPRISE:
        raise TemplateError(
            f"{where}: enterprise: expected a private enterprise number, 1 to {_MAX_ENTERPRISE}, "
            f"got {toml_text(enterprise)}",
            "IANA assigns them; 32473 is for examples",
        )
    if enterprise == _REVERSE_ENTERPRISE:
        raise TemplateError(
            f"{where}: enterprise: {enterprise} stands for the reverse direction of IANA's elements (RFC 5103)",
            "use the number of your own enterprise",
        )
    if not is_int(number) or not 0 < number < ENTERPRISE_BIT:
        raise TemplateError(f"{where}: id: expected an integer from 1 to {ENTERPRISE_BIT - 1}, got {toml_text(number)}")


def _source(value: Any, where: str) -> tuple[InformationElement, Column]:
    """The column that fills the element: any value that netobs measures, by IANA's name or its own."""
    if isinstance(value, str) and value in OWN_VALUES:
        return OWN_VALUES[value]
    element = by_name(value) if isinstance(value, str) and value in COLUMNS else None
    if element is None:
        raise TemplateError(
            f"{where}: value: netobs does not measure {toml_text(value)}",
            nearest(value, ALL_COLUMNS) or f"name an element that a template can hold, or {', '.join(OWN_VALUES)}",
        )
    return element, COLUMNS[element.name]


def _check_type(kind: Any, source: InformationElement, where: str) -> None:
    known = (*TYPES, *_BYTE_TYPES)
    if kind not in known:
        raise TemplateError(
            f"{where}: type: expected an abstract data type of RFC 7012, got {toml_text(kind)}", nearest(kind, known)
        )
    fitting = [source.type]
    if source.type.startswith(_UNSIGNED):
        bits = int(source.type[len(_UNSIGNED) :])
        fitting = [f"{_UNSIGNED}{8 * width}" for width in _WIDTHS[:4] if 8 * width >= bits] or fitting
    if kind not in fitting:
        raise TemplateError(
            f"{where}: type: {kind} cannot hold {source.name}, which is {source.type}", f"use {' or '.join(fitting)}"
        )


def _choice(entry: dict[str, Any], key: str, choices: Sequence[str], where: str) -> str:
    """The text at ``key``, one of ``choices``; empty without the key."""
    value = entry.get(key, "")
    if key in entry and value not in choices:
        raise TemplateError(
            f"{where}: {key}: expected one of {', '.join(choices)}, got {toml_text(value)}",
            nearest(value, choices),
        )
    return str(value)


def _description(entry: dict[str, Any], where: str) -> str:
    text = entry.get("description", "")
    if not isinstance(text, str) or len(text.encode("utf-8")) > _MAX_TEXT_OCTETS or not text.isprintable():
        raise TemplateError(
            f"{where}: description: expected text of one line, at most {_MAX_TEXT_OCTETS} octets, got {text!r:.60}"
        )
    return text


def check_keys(table: dict[str, Any], known: Sequence[str], where: str) -> None:
    """Raise TemplateError for a key of ``table`` that is not ``known``."""
    for key in table:
        if key not in known:
            raise TemplateError(
                f'{where}: unknown key "{one_line(key)}"', nearest(key, known) or f"the keys are {', '.join(known)}"
            )


def nearest(value: Any, known: Iterable[str]) -> str:
    """A hint with the known word nearest to ``value``; empty if there is none."""
    near = nearest_word(value, known) if isinstance(value, str) else ""
    return f'did you mean "{near}"?' if near else ""


def is_int(value: Any) -> bool:
    """A TOML integer: Python's booleans are integers too."""
    return isinstance(value, int) and not isinstance(value, bool)
