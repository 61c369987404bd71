"""A Template: from one list of fields come its dtype, its Template Record and its construct definition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netobs.encode.layout import ENTERPRISE_BIT, FIELD_SPECIFIER, TEMPLATE_HEADER
from netobs.encode.registry import InformationElement, abstract_type

if TYPE_CHECKING:
    import construct


class Field(NamedTuple):
    """An Information Element and the number of octets that it takes in a Data Record."""

    element: InformationElement
    octets: int


@dataclass(frozen=True)
class Template:
    """One Template (RFC 7011, 3.4.1). ``family``: the Flow Records it takes, "ipv4", "ipv6" or "any".

    ``source`` says where it was defined, for error messages.
    """

    id: int
    family: str
    fields: tuple[Field, ...]
    source: str = ""

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """One Data Record, packed and big-endian: ``>uN`` for numbers, ``(u1, (N,))`` for addresses."""
        return np.dtype([(field.element.name, *_format(field)) for field in self.fields])

    @cached_property
    def construct(self) -> construct.Struct[Any, Any]:
        """One Data Record for parsing and building: integers for numbers, bytes for addresses."""
        from netobs.encode import wire

        return wire.data_record(self.fields)

    @cached_property
    def record(self) -> bytes:
        """The Template Record: what a Template Set carries."""
        header = np.array((self.id, len(self.fields)), dtype=TEMPLATE_HEADER)
        return header.tobytes() + b"".join(specifier(field) for field in self.fields)


def _format(field: Field) -> tuple[Any, ...]:
    kind = abstract_type(field.element.type).kind
    return ("u1", (field.octets,)) if kind == "b" else (f">{kind}{field.octets}",)


def specifier(field: Field) -> bytes:
    """The Field Specifier (RFC 7011, 3.2)."""
    number, enterprise = field.element.id, field.element.enterprise
    specifier = np.array((number | (ENTERPRISE_BIT if enterprise else 0), field.octets), dtype=FIELD_SPECIFIER)
    return specifier.tobytes() + (enterprise.to_bytes(4, "big") if enterprise else b"")
