"""Information Elements as exporters name them: of the registry, of their reverse, of RFC 5610, or unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from netobs.encode.layout import VARIABLE_LENGTH
from netobs.encode.options.table import DATA_TYPES
from netobs.encode.registry import InformationElement, by_id, by_name

Element = tuple[int, int]
"""Enterprise and id."""

REVERSE_ENTERPRISE = 29305
"""RFC 5103, 6.1: the elements of the registry, for the packets in the reverse direction of a Biflow."""
SCOPE = -1
"""Instead of an enterprise: marks a scope of NetFlow v9 (RFC 3954, 6.1), which has numbers of its own."""
TYPE_OF_ELEMENT = "informationElementDataType"
"""An options record with it describes an element."""
_SCOPES = {1: "scopeSystem", 2: "scopeInterface", 3: "scopeLineCard", 4: "scopeCache", 5: "scopeTemplate"}
_INTEGER_OCTETS = (1, 2, 4, 8)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_MAX_TYPES = 1024
_MAX_ID = 0x7FFF


def element_of(
    number: int, octets: int, enterprise: int, types: Mapping[Element, InformationElement]
) -> tuple[InformationElement, bool]:
    """The element, and whether it is known; an unknown one has type octets. ``types``: the exporter's descriptions."""
    if enterprise == SCOPE:
        return _scope(number, octets), True
    found = _registered(number, enterprise) or types.get((enterprise, number))
    return (found, True) if found else (_unknown(number, enterprise), False)


@lru_cache(maxsize=4096)
def _registered(number: int, enterprise: int) -> InformationElement | None:
    if enterprise != REVERSE_ENTERPRISE:
        return by_id(number, enterprise)
    forward = by_id(number)
    if forward is None:
        return None
    return forward._replace(name=f"reverse{forward.name[0].upper()}{forward.name[1:]}", enterprise=enterprise)


@lru_cache(maxsize=4096)
def _unknown(number: int, enterprise: int) -> InformationElement:
    return InformationElement(
        f"enterprise{enterprise}/id{number}", number, "octetArray", VARIABLE_LENGTH, "", "", enterprise
    )


@lru_cache(maxsize=1024)
def _scope(number: int, octets: int) -> InformationElement:
    kind = "unsigned64" if octets in _INTEGER_OCTETS else "octetArray"
    return InformationElement(_SCOPES.get(number, f"scope{number}"), number, kind, octets, "", "")


def learn_type(types: MutableMapping[Element, InformationElement], record: Mapping[str, Any]) -> bool:
    """Store an options record's description of an element (RFC 5610, 3); returns whether it is new.

    A name that looks like an element of the registry, or that has terminal control characters, is not used.
    """
    number, enterprise = record.get("informationElementId"), record.get("privateEnterpriseNumber", 0)
    kind, name = record.get(TYPE_OF_ELEMENT), record.get("informationElementName")
    if not (isinstance(number, int) and isinstance(enterprise, int) and isinstance(kind, int)):
        return False
    number &= _MAX_ID
    if not 0 <= kind < len(DATA_TYPES) or not isinstance(name, str) or _NAME.fullmatch(name) is None:
        return False
    if enterprise in (0, REVERSE_ENTERPRISE) and _registered(number, enterprise):
        return False
    if by_name(name) is not None:
        name = f"enterprise{enterprise}/{name}"
    known = types.get((enterprise, number))
    described = InformationElement(name, number, DATA_TYPES[kind], VARIABLE_LENGTH, "", "", enterprise)
    if known == described or (known is None and len(types) >= _MAX_TYPES):
        return False
    types[enterprise, number] = described
    return True
