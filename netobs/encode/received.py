"""What the decoders of IPFIX and NetFlow have in common: Templates as received, and how their Data Records are read."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import construct

from netobs.encode import wire
from netobs.encode.layout import SET_HEADER, VARIABLE_LENGTH
from netobs.encode.readable import reader
from netobs.encode.registry import InformationElement, by_id
from netobs.encode.template import Field

Record = dict[str, Any]


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
        self._codec: Any = None
        self._readers: list[tuple[str, Callable[[Any], Any]]] = []

    def _prepare(self) -> None:
        """Make the construct at the first Data Record. Compiled it is four times as fast, but does not see short reads.

        ``records`` rules these out where all fields have a fixed length.
        """
        self._codec = wire.data_record(self.fields)
        if all(item.octets != VARIABLE_LENGTH for item in self.fields):
            self._codec = self._codec.compile()
        for item in self.fields:
            read = reader(item.element.type, wire.is_number(item))
            if read is not None:
                self._readers.append((item.element.name, read))

    def records(self, body: bytes, offset: int) -> Iterator[Record]:
        """The Data Records in the body of a Set, ``offset`` bytes into the Message.

        What is left at its end and shorter than a record is padding.
        """
        if self._codec is None:
            self._prepare()
        stream = io.BytesIO(body)
        while len(body) - stream.tell() >= self.least_octets:
            start = stream.tell()
            try:
                record: Record = dict(self._codec.parse_stream(stream))
            except construct.ConstructError as error:
                raise Malformed(offset + start, "a Data Record runs past the end of its Set") from error
            record.pop("_io", None)
            for name, read in self._readers:
                record[name] = read(record[name])
            yield record


def sets(message: bytes, header_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Set ID, offset of the body, and body of each Set."""
    offset = header_bytes
    while offset < len(message):
        if len(message) - offset < SET_HEADER.itemsize:
            raise Malformed(offset, "no room for a Set Header")
        header = wire.SetHeader.parse(message[offset : offset + SET_HEADER.itemsize])
        end = offset + header.set_length
        if header.set_length < SET_HEADER.itemsize or end > len(message):
            raise Malformed(offset + 2, f"Set length {header.set_length}, {len(message) - offset} bytes are left")
        yield header.set_id, offset + SET_HEADER.itemsize, message[offset + SET_HEADER.itemsize : end]
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
