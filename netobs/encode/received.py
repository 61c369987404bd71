"""What the decoders of IPFIX and NetFlow have in common: Templates as received, and how their Data Records are read."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from netobs.encode import wire
from netobs.encode.layout import SET_HEADER, VARIABLE_LENGTH, big_endian
from netobs.encode.readable import reader
from netobs.encode.registry import InformationElement, abstract_type, by_id
from netobs.encode.template import Field

Record = dict[str, Any]

_SET_HEADER = big_endian(SET_HEADER)
_LONG_LENGTH = 255
_FLOATS = {octets: lambda raw, form=form: struct.unpack(form, raw)[0] for octets, form in ((4, ">f"), (8, ">d"))}


class Malformed(Exception):
    """A mistake ``offset`` bytes into the Message."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset


class Layout:
    """A Template as received: how to read its Data Records."""

    def __init__(self, fields: tuple[Field, ...], is_options: bool) -> None:
        self.fields = fields
        self.is_options = is_options
        self.least_octets = sum(1 if item.octets == VARIABLE_LENGTH else item.octets for item in fields)
        self._readers: list[tuple[str, int, Callable[[bytes], Any]]] | None = None

    def records(self, body: bytes, offset: int) -> Iterator[Record]:
        """The Data Records in the body of a Set, ``offset`` bytes into the Message.

        What is left at its end and shorter than a record is padding.
        """
        if self._readers is None:
            # A field of no octets has no value: otherwise a short record could have 16,000 of them.
            self._readers = [
                (item.element.name, item.octets, _value_reader(item)) for item in self.fields if item.octets
            ]
        at, end = 0, len(body)
        while end - at >= self.least_octets:
            record: Record = {}
            start = at
            for name, octets, read in self._readers:
                length = octets
                if octets == VARIABLE_LENGTH:
                    at, length = _variable_length(body, at)
                if at + length > end:
                    raise Malformed(offset + start, "a Data Record runs past the end of its Set")
                record[name] = read(body[at : at + length])
                at += length
            yield record


def _variable_length(body: bytes, at: int) -> tuple[int, int]:
    """Where a field of variable length that begins at ``at`` has its value, and how long it is (RFC 7011, 7)."""
    length = body[at] if at < len(body) else 0
    if length < _LONG_LENGTH:
        return at + 1, length
    return at + 3, int.from_bytes(body[at + 1 : at + 3], "big")


def _value_reader(item: Field) -> Callable[[bytes], Any]:
    """What makes the octets of a field a readable value."""
    if not wire.is_number(item):
        return reader(item.element.type, False) or bytes.hex
    kind = abstract_type(item.element.type).kind
    if kind == "f":
        number: Callable[[bytes], Any] = _FLOATS[item.octets]
    else:
        number = _signed if kind == "i" else _unsigned
    read = reader(item.element.type, True)
    return number if read is None else lambda octets: read(number(octets))


def _unsigned(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _signed(octets: bytes) -> int:
    return int.from_bytes(octets, "big", signed=True)


def sets(message: bytes, header_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Set ID, offset of the body, and body of each Set."""
    offset = header_bytes
    while offset < len(message):
        if len(message) - offset < SET_HEADER.itemsize:
            raise Malformed(offset, "no room for a Set Header")
        set_id, length = _SET_HEADER.unpack_from(message, offset)
        end = offset + length
        if length < SET_HEADER.itemsize or end > len(message):
            raise Malformed(offset + 2, f"Set length {length}, {len(message) - offset} bytes are left")
        yield set_id, offset + SET_HEADER.itemsize, message[offset + SET_HEADER.itemsize : end]
        offset = end


def received_field(number: int, octets: int, enterprise: int = 0) -> Field:
    """An element of a received Template; an unknown one is octets."""
    element = by_id(number, enterprise) or InformationElement(
        f"enterprise{enterprise}/id{number}", number, "octetArray", VARIABLE_LENGTH, "", "", enterprise
    )
    return Field(element, octets)


def distinct(fields: Iterable[Field]) -> tuple[Field, ...]:
    """``fields`` with a number in the name of each repeated one."""
    repeats: Counter[str] = Counter()
    found = []
    for item in fields:
        name = item.element.name
        repeats[name] += 1
        renamed = item.element._replace(name=f"{name}#{repeats[name]}")
        found.append(item if repeats[name] == 1 else item._replace(element=renamed))
    return tuple(found)
