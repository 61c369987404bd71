"""Shared by the decoders of IPFIX and NetFlow: received Templates, and the reading of their Data Records."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from netobs.base.ipfix import SET_HEADER
from netobs.collector.readable import reader
from netobs.collector.received_element import TYPE_OF_ELEMENT, Element, element_of
from netobs.collector.work import Malformed, Notes, Work
from netobs.encode.layout import VARIABLE_LENGTH, big_endian
from netobs.encode.registry import InformationElement, abstract_type

Record = dict[str, Any]
Types = Mapping[Element, InformationElement]
"""The elements that an exporter has described by itself (RFC 5610), by enterprise and id."""
Parse = Callable[[bytes], Iterable[tuple[int, int, int]]]
"""Turns the Field Specifiers of a Template Record into ids, lengths and enterprises. They are kept as received, so that
an unused Template takes no memory for each field."""

_SET_HEADER = big_endian(SET_HEADER)
_LONG_LENGTH = 255
_NUMBERS = {
    "u": {1: "B", 2: "H", 4: "I", 8: "Q"},
    "i": {1: "b", 2: "h", 4: "i", 8: "q"},
    "f": {4: "f", 8: "d"},
    "b": {},
}
_LONGEST_OCTETS, _LONGEST_256_OCTETS = 8, 32
_MAX_PADDING_OCTETS = 7
"""RFC 7011, 3.3.1 lets an exporter align Sets to 4 or 8 octets. Longer padding is accepted, but odd."""
_RECORD_STEPS, _TIMES_STEPS, _PREPARE_STEPS = 22, 12, 10
"""Steps of work in addition to the fields: for a Data Record (mostly for the printed line), for one whose times are
relative or that describes an element, and for the lookup of a Layout."""
_SLOW = {
    "ipv6Address": 10,
    **dict.fromkeys((f"dateTime{unit}" for unit in ("Seconds", "Milliseconds", "Microseconds", "Nanoseconds")), 4),
}
"""Steps of a field whose value takes more than one."""
_TIMES = frozenset(("flowStartSysUpTime", "flowEndSysUpTime", "flowStartDeltaMicroseconds", "flowEndDeltaMicroseconds"))


class Layout:
    """A received Template: how to read its Data Records. ``content``: the content of its Template Record.

    ``former_octets``: the record length of the ID's previous Template, 0 if there was none.
    """

    __slots__ = (
        "_is_foreign", "_names", "_parse", "_readers", "_runs", "content", "count", "former_octets", "has_times",
        "is_options", "is_variable", "least_octets", "steps", "unknown", "version",
    )  # fmt: skip

    def __init__(self, parse: Parse, content: bytes, is_options: bool) -> None:
        self._parse, self.content, self.is_options = parse, content, is_options
        lengths = [octets for _, octets, _ in parse(content)]
        self.is_variable = VARIABLE_LENGTH in lengths
        self.count = len(lengths)
        self.least_octets = sum(1 if octets == VARIABLE_LENGTH else octets for octets in lengths)
        self.former_octets = 0
        self.version = -1
        self.unknown: list[Element] = []
        self.has_times = self._is_foreign = False
        self.steps = 0
        self._names: list[str] = []
        self._runs: list[struct.Struct | None] = []
        self._readers: list[tuple[str, Callable[[Any], Any]]] = []

    def prepare(self, types: Types, version: int, work: Work) -> bool:
        """Look up its elements, the first time and whenever new ``types`` (``version``) could have one of them.

        Returns whether it did. Raises Exhausted.
        """
        if self.version == version or (self.version >= 0 and not self._is_foreign):
            return False
        work.spend(_PREPARE_STEPS + 3 * self.count)
        self.version, self.unknown, self._is_foreign = version, [], False
        self._names, self._runs, self._readers = [], [], []
        self.steps = _RECORD_STEPS
        formats, repeats = ">", dict[str, int]()
        for number, octets, enterprise in self._parse(self.content):
            if octets == 0:  # It has no value: otherwise a short record could have 16,000 of them.
                continue
            element, is_known = element_of(number, octets, enterprise, types)
            if not is_known:
                self.unknown.append((enterprise, number))
            self._is_foreign |= not is_known or (enterprise, number) in types
            name = element.name
            repeats[name] = count = repeats.get(name, 0) + 1
            if count > 1:
                name = f"{name}#{count}"
            self._names.append(name)
            self.steps += _SLOW.get(element.type, 1) + (octets == VARIABLE_LENGTH)
            form, read = _value_reader(element.type, octets)
            if read is not None:
                self._readers.append((name, read))
            if octets == VARIABLE_LENGTH:
                self._add_run(formats)
                self._runs.append(None)
                formats = ">"
            else:
                formats += form
        self._add_run(formats)
        self.has_times = not _TIMES.isdisjoint(self._names)
        self.steps += _TIMES_STEPS * (self.has_times + (TYPE_OF_ELEMENT in self._names))
        return True

    def _add_run(self, formats: str) -> None:
        if formats != ">":
            self._runs.append(struct.Struct(formats))

    def read(self, body: bytes, offset: int, work: Work, into: list[Record], notes: Notes) -> None:
        """Append the Data Records in the body of a Set, ``offset`` bytes into the Message, to ``into``.

        A rest at its end that is shorter than a record is padding. Raises Malformed, and Exhausted if ``work`` is used
        up; the records before are then in ``into``.
        """
        at, end, names = 0, len(body), self._names
        while end - at >= self.least_octets:
            work.spend(self.steps, offset + at)
            values: list[Any] = []
            start = at
            for run in self._runs:
                if run is None:
                    at, length = _variable_length(body, at)
                    values.append(body[at : at + length])
                    at += length
                elif at + run.size <= end:
                    values += run.unpack_from(body, at)
                    at += run.size
                else:
                    at = end + 1
                if at > end:
                    raise Malformed(offset + start, "a Data Record runs past the end of its Set")
            record = dict(zip(names, values))
            for name, read in self._readers:
                record[name] = read(record[name])
            into.append(record)
        note_padding(body, at, notes, "data")


def note_padding(body: bytes, at: int, notes: Notes, where: str) -> None:
    """Note padding from ``at`` on that is not zero, or longer than an alignment needs."""
    rest = len(body) - at
    if rest > _MAX_PADDING_OCTETS:
        notes.add("padding", f"{rest} octets of padding after the {where} of a Set")
    elif rest and any(body[at:]):
        notes.add("padding", f"padding after the {where} of a Set is not zero: {body[at:].hex()}")


def _variable_length(body: bytes, at: int) -> tuple[int, int]:
    """Start and length of the value of a variable-length field that starts at ``at`` (RFC 7011, 7)."""
    length = body[at] if at < len(body) else 0
    if length < _LONG_LENGTH:
        return at + 1, length
    return at + 3, int.from_bytes(body[at + 1 : at + 3], "big")


@lru_cache(maxsize=512)
def _value_reader(kind: str, octets: int) -> tuple[str, Callable[[Any], Any] | None]:
    """The struct format of a field, and the function that makes its value readable; None if it already is."""
    form = _NUMBERS[abstract_type(kind).kind].get(octets)
    return (form, reader(kind, True)) if form else (f"{octets}s", _of_octets(kind))


def _of_octets(kind: str) -> Callable[[bytes], Any]:
    """The function that makes a value of any length readable. It accepts numbers of every length of their type."""
    number = abstract_type(kind).kind
    if number == "b":
        return reader(kind, False) or bytes.hex
    read = reader(kind, True) or (lambda value: value)
    most = _LONGEST_256_OCTETS if kind == "unsigned256" else _LONGEST_OCTETS

    def value(octets: bytes) -> Any:
        if number == "f":
            form = _NUMBERS["f"].get(len(octets))
            return read(struct.unpack(f">{form}", octets)[0]) if form else octets.hex()
        if 0 < len(octets) <= most:
            return read(int.from_bytes(octets, "big", signed=number == "i"))
        return octets.hex()

    return value


def sets(message: bytes, header_bytes: int, is_netflow9: bool) -> Iterator[tuple[int, int, bytes]]:
    """Set ID, offset of the body, and body of each Set. Raises Malformed.

    Zeros up to the end are not Sets: several firewalls and switches send NetFlow v9 in datagrams of one length. Up to
    three octets after the last FlowSet are not a Set either, because NetFlow v9 gives no length for the datagram.
    """
    offset, least = header_bytes, SET_HEADER.itemsize
    while offset < len(message):
        left = len(message) - offset
        set_id, length = _SET_HEADER.unpack_from(message, offset) if left >= least else (0, 0)
        if set_id == length == 0 and ((is_netflow9 and left < least) or not any(memoryview(message)[offset:])):
            return
        if left < least:
            raise Malformed(offset, "no room for a Set Header")
        end = offset + length
        if length < least or end > len(message):
            raise Malformed(offset + 2, f"Set length {length}, {left} bytes are left")
        yield set_id, offset + least, message[offset + least : end]
        offset = end
