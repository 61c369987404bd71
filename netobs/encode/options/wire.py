"""Options Templates (RFC 7011, 3.4.2; RFC 3954, 6.1) and their Data Records: the wire form of each value."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Union

import numpy as np

from netobs.base.ipfix import NTP_EPOCH_S
from netobs.encode.layout import VARIABLE_LENGTH
from netobs.encode.registry import abstract_type, by_name
from netobs.encode.template.field import Field, specifier
from netobs.encode.template.id import record, template_id
from netobs.encode.template.template import Template
from netobs.flow.report import Report

Value = Union[int, float, str, bytes]
Row = Sequence[Value]
"""The values of a Data Record, scope first."""

SCOPE_SYSTEM = 1
_LONG_LENGTH = 255
_MAX_TEXT_BYTES = 254
_NS_PER_S, _NS_PER_US, _US_PER_S = 1_000_000_000, 1_000, 1_000_000
_V9_HEADER = np.dtype([("template_id", ">u2"), ("scope_bytes", ">u2"), ("option_bytes", ">u2")])


class Subject(NamedTuple):
    """The subjects of options records. ``templates``: the Templates of the flows."""

    report: Report
    templates: Sequence[Template]
    observation_domain: int


@dataclass(frozen=True)
class OptionsTemplate:
    """One Options Template. ``kind``: its name in template files; ``rows``: its Data Records at a moment.

    ``one_per_set``: each Data Record is in a Set of its own.
    """

    kind: str
    scopes: tuple[Field, ...]
    fields: tuple[Field, ...]
    rows: Callable[[Subject], Sequence[Row]]
    one_per_set: bool = False

    @cached_property
    def record(self) -> bytes:
        """The Options Template Record of IPFIX."""
        return record(self._content)

    @cached_property
    def id(self) -> int:
        """Its Template ID, which follows from scopes and fields; NetFlow v9 has the same."""
        return template_id(self._content)

    @property
    def _content(self) -> bytes:
        every = self.scopes + self.fields
        return struct.pack(">HH", len(every), len(self.scopes)) + b"".join(map(specifier, every))

    @cached_property
    def record_netflow9(self) -> bytes:
        """The Options Template Record of NetFlow v9, whose scope is the System; lengths are in bytes."""
        scopes = b"".join(struct.pack(">HH", SCOPE_SYSTEM, scope.octets) for scope in self.scopes)
        fields = b"".join(map(specifier, self.fields))
        return np.array((self.id, len(scopes), len(fields)), dtype=_V9_HEADER).tobytes() + scopes + fields

    def data(self, subject: Subject, room: int) -> list[tuple[bytes, int]]:
        """The bodies of its Data Sets, each of at most ``room`` bytes, and how many Data Records are in each."""
        every = self.scopes + self.fields
        bodies: list[tuple[bytes, int]] = []
        for row in self.rows(subject):
            record = b"".join(map(octets_of, every, row))
            body, count = bodies[-1] if bodies else (b"", 0)
            if bodies and not self.one_per_set and len(body) + len(record) <= room:
                bodies[-1] = (body + record, count + 1)
            else:
                bodies.append((record, 1))
        return bodies


def element(name: str, octets: int = 0) -> Field:
    """The Information Element ``name`` in ``octets``; without them, in its registered length."""
    found = by_name(name)
    assert found is not None, name
    return Field(found, octets or found.octets)


def octets_of(field: Field, value: Value) -> bytes:
    """``value`` encoded for ``field`` in a Data Record. dateTimeMicroseconds: from ns since 1970; 0 stays 0."""
    if isinstance(value, str):
        return _text(value, field.octets)
    if isinstance(value, bytes):
        return value[: field.octets].ljust(field.octets, b"\0")
    if abstract_type(field.element.type).kind == "f":
        return struct.pack(">d" if field.octets == struct.calcsize("d") else ">f", value)
    if field.element.type == "dateTimeMicroseconds":
        value = ntp_us(int(value))
    return (int(value) & (1 << 8 * field.octets) - 1).to_bytes(field.octets, "big")


def _text(text: str, octets: int) -> bytes:
    """UTF-8, whole and printable characters only: with its length before it, or in ``octets`` with NUL to the end.

    At least one NUL, because collectors in C need it.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "?" for char in text)
    most = _MAX_TEXT_BYTES if octets == VARIABLE_LENGTH else octets - 1
    data = text.encode("utf-8", "replace")
    if len(data) > most:
        data = data[:most].decode("utf-8", "ignore").encode("utf-8")
    return bytes([len(data)]) + data if octets == VARIABLE_LENGTH else data.ljust(octets, b"\0")


def ntp_us(wall_ns: int) -> int:
    """``wall_ns`` (since 1970) as dateTimeMicroseconds, rounded up to a fraction with 11 zero bits: RFC 7011, 6.1.9."""
    if not wall_ns:
        return 0
    seconds, us = divmod(wall_ns // _NS_PER_US, _US_PER_S)
    return (seconds + NTP_EPOCH_S) << 32 | -(-(us << 21) // _US_PER_S) << 11
