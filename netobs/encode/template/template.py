"""A Template: from one list of fields come its dtype, its Template Record and its construct definition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netobs.encode.layout import ENTERPRISE_BIT, FIELD_SPECIFIER, LONG_LENGTH, VARIABLE_LENGTH
from netobs.encode.registry import InformationElement, abstract_type
from netobs.encode.template.id import template_id

if TYPE_CHECKING:
    import construct


class Field(NamedTuple):
    """An Information Element and the number of octets that it takes in a Data Record.

    ``value`` names what fills an enterprise-specific element, see ``filled_with``. ``most_octets``: the length of the
    longest string, where ``octets`` is ``VARIABLE_LENGTH``.
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
        """Octets that its length takes, before a string of variable length, at most (RFC 7011, 7)."""
        if self.octets != VARIABLE_LENGTH:
            return 0
        return 1 if self.most_octets < LONG_LENGTH else 3

    @property
    def row_octets(self) -> int:
        """Octets that it takes at most; in a row of a Data Set it always takes these."""
        return self.octets if self.octets != VARIABLE_LENGTH else self.prefix_octets + self.most_octets


@dataclass(frozen=True)
class Template:
    """One Template (RFC 7011, 3.4.1). ``family``: the Flow Records it takes, "ipv4", "ipv6" or "any".

    ``source`` says where it was defined, for error messages.
    """

    family: str
    fields: tuple[Field, ...]
    source: str = ""

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """A row of a Data Set, packed and big-endian: ``>uN`` for numbers, ``(u1, (N,))`` for addresses and strings.

        It is one Data Record, the longest one where there are strings of variable length: ``netobs.encode.text``.
        """
        return np.dtype([(field.element.name, *_format(field)) for field in self.fields])

    @cached_property
    def is_variable(self) -> bool:
        """Whether Data Records differ in length."""
        return any(field.octets == VARIABLE_LENGTH for field in self.fields)

    @property
    def size(self) -> str:
        """The length of a Data Record in words: "96 octets", "98 to 370 octets"."""
        least = sum(1 if field.octets == VARIABLE_LENGTH else field.octets for field in self.fields)
        return f"{least} to {self.dtype.itemsize} octets" if self.is_variable else f"{least} octets"

    @cached_property
    def construct(self) -> construct.Struct[Any, Any]:
        """One Data Record for parsing and building: integers for numbers, bytes for addresses."""
        from netobs.encode.template import wire

        return wire.data_record(self.fields)

    @cached_property
    def record(self) -> bytes:
        """The Template Record: what a Template Set carries."""
        return self.id.to_bytes(2, "big") + self._content

    @cached_property
    def id(self) -> int:
        """Its Template ID, which follows from the fields."""
        return template_id(self._content)

    @property
    def _content(self) -> bytes:
        return len(self.fields).to_bytes(2, "big") + b"".join(map(specifier, self.fields))


def _format(field: Field) -> tuple[Any, ...]:
    kind = abstract_type(field.element.type).kind
    return ("u1", (field.row_octets,)) if kind == "b" else (f">{kind}{field.octets}",)


def specifier(field: Field) -> bytes:
    """The Field Specifier (RFC 7011, 3.2)."""
    number, enterprise = field.element.id, field.element.enterprise
    specifier = np.array((number | (ENTERPRISE_BIT if enterprise else 0), field.octets), dtype=FIELD_SPECIFIER)
    return specifier.tobytes() + (enterprise.to_bytes(4, "big") if enterprise else b"")
