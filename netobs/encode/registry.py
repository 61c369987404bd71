"""The IANA registry of IPFIX Information Elements, as data (``information_elements.csv``; RFC 7012).

The registry's content is CC0. It is read at the first look-up, not at import. ``tools/renew_registry.py`` renews it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from netobs.encode.layout import VARIABLE_LENGTH

_FILE = Path(__file__).with_name("information_elements.csv")


class InformationElement(NamedTuple):
    """One row of the registry, or an element of an enterprise that a template file defines.

    ``octets`` is the canonical length, ``VARIABLE_LENGTH`` where it is not fixed. ``semantics`` and ``units`` are the
    registry's names (RFC 5610, 3.6 and 3.7); some elements have none. ``description``: of an enterprise element, for
    its type information.
    """

    name: str
    id: int
    type: str
    octets: int
    semantics: str
    units: str
    enterprise: int = 0
    description: str = ""


class AbstractType(NamedTuple):
    """The wire form of an abstract data type (RFC 7011, 6.1). ``kind``: u, i, f (numbers) or b (bytes).

    ``reducible``: reduced-size encoding is allowed (RFC 7011, 6.2).
    """

    kind: str
    reducible: bool = False


_BYTES = AbstractType("b")
TYPES = {
    **{f"unsigned{bits}": AbstractType("u", reducible=bits > 8) for bits in (8, 16, 32, 64, 256)},
    **{f"signed{bits}": AbstractType("i", reducible=bits > 8) for bits in (8, 16, 32, 64)},
    "float32": AbstractType("f"),
    "float64": AbstractType("f", reducible=True),
    "boolean": AbstractType("u"),
    "dateTimeSeconds": AbstractType("u"),
    "dateTimeMilliseconds": AbstractType("u"),
    "dateTimeMicroseconds": AbstractType("u"),
    "dateTimeNanoseconds": AbstractType("u"),
}
"""The types that are numbers; any other type is bytes: see ``abstract_type``."""


def abstract_type(name: str) -> AbstractType:
    """The wire form of the abstract data type ``name``; bytes for addresses, strings, lists and unknown names."""
    return TYPES.get(name, _BYTES)


@lru_cache(maxsize=1)
def elements() -> tuple[InformationElement, ...]:
    """All rows of the registry, by ascending id."""
    with _FILE.open(encoding="utf-8") as file:
        next(file)
        return tuple(_parse(line.rstrip("\n")) for line in file)


def _parse(line: str) -> InformationElement:
    number, name, kind, length, semantics, units = line.split(",")
    octets = VARIABLE_LENGTH if length == "var" else int(length)
    return InformationElement(name, int(number), kind, octets, semantics, units)


@lru_cache(maxsize=1)
def _names() -> dict[str, InformationElement]:
    return {element.name: element for element in elements()}


@lru_cache(maxsize=1)
def _ids() -> dict[tuple[int, int], InformationElement]:
    return {(element.enterprise, element.id): element for element in elements()}


def by_name(name: str) -> InformationElement | None:
    """The element called ``name`` (IANA name, camelCase), or None."""
    return _names().get(name)


def by_id(number: int, enterprise: int = 0) -> InformationElement | None:
    """The element with this id (and private enterprise number), or None."""
    return _ids().get((enterprise, number))
