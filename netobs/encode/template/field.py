"""A field of a Template: an Information Element, its length, and the column that fills it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from netobs.encode.layout import ENTERPRISE_BIT, FIELD_SPECIFIER, LONG_LENGTH, VARIABLE_LENGTH
from netobs.encode.registry import InformationElement, abstract_type

LONGEST_NUMBER = 8
"""Octets of the longest number that numpy has a type for."""


class Field(NamedTuple):
    """An Information Element and the number of octets that it takes in a Data Record.

    ``value`` names the column that fills an enterprise-specific element, see ``filled_with``. ``most_octets``: the
    length of the longest string, if ``octets`` is ``VARIABLE_LENGTH``.
    """

    element: InformationElement
    octets: int
    value: str = ""
    most_octets: int = 0

    @property
    def filled_with(self) -> str:
        """The name of the column that fills it."""
        return self.value or self.element.name

    @property
    def prefix_octets(self) -> int:
        """Most octets that the length before a string of variable length takes (RFC 7011, 7)."""
        if self.octets != VARIABLE_LENGTH:
            return 0
        return 1 if self.most_octets < LONG_LENGTH else 3

    @property
    def row_octets(self) -> int:
        """Most octets that it takes. In a row of a Data Set it always takes this number."""
        return self.octets if self.octets != VARIABLE_LENGTH else self.prefix_octets + self.most_octets

    @property
    def is_wide(self) -> bool:
        """Whether it is a number for which numpy has no type: in rows, so many octets."""
        return abstract_type(self.element.type).kind == "u" and self.octets > LONGEST_NUMBER


def specifier(field: Field) -> bytes:
    """The Field Specifier (RFC 7011, 3.2)."""
    number, enterprise = field.element.id, field.element.enterprise
    specifier = np.array((number | (ENTERPRISE_BIT if enterprise else 0), field.octets), dtype=FIELD_SPECIFIER)
    return specifier.tobytes() + (enterprise.to_bytes(4, "big") if enterprise else b"")
