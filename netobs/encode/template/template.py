"""A Template: one list of fields gives its dtype and its Template Record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from netobs.encode.layout import VARIABLE_LENGTH
from netobs.encode.registry import abstract_type
from netobs.encode.template.field import Field, specifier
from netobs.encode.template.id import record, template_id


@dataclass(frozen=True)
class Template:
    """One Template (RFC 7011, 3.4.1). ``family``: the family of its Flow Records, "ipv4", "ipv6" or "any".

    ``source``: where it was defined, for error messages. ``needs``: one of ``columns.LEVELS``: only records that have
    this one, at least, have all of its values.
    """

    family: str
    fields: tuple[Field, ...]
    source: str = ""
    needs: int = 0

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """A row of a Data Set, packed and big-endian: ``>uN`` for numbers, ``(u1, (N,))`` for addresses, strings and
        numbers of more than 8 octets.

        It is one Data Record; the longest possible one if there are strings of variable length: ``netobs.encode.text``.
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
    def record(self) -> bytes:
        """The Template Record, which a Template Set carries."""
        return record(self._content)

    @cached_property
    def id(self) -> int:
        """Its Template ID, which follows from the fields."""
        return template_id(self._content)

    @property
    def _content(self) -> bytes:
        return len(self.fields).to_bytes(2, "big") + b"".join(map(specifier, self.fields))


def _format(field: Field) -> tuple[Any, ...]:
    kind = abstract_type(field.element.type).kind
    return ("u1", (field.row_octets,)) if kind == "b" or field.is_wide else (f">{kind}{field.octets}",)
