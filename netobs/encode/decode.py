"""The IPFIX decoder: Messages to dicts keyed by Information Element names. For ``netobs listen`` and for tests.

It takes whatever a peer sends: a Message is decoded, or DecodeError says at which octet it is wrong.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import construct

from netobs.encode import wire
from netobs.encode.layout import (
    ENTERPRISE_BIT,
    FIRST_DATA_SET_ID,
    IPFIX_VERSION,
    MESSAGE_HEADER,
    OPTIONS_TEMPLATE_SET_ID,
    SET_HEADER,
    TEMPLATE_HEADER,
    TEMPLATE_SET_ID,
    VARIABLE_LENGTH,
)
from netobs.encode.readable import reader
from netobs.encode.registry import InformationElement, by_id
from netobs.encode.template import Field
from netobs.errors import DecodeError

_SEQUENCE_MASK = 0xFFFFFFFF
_MAX_GAP = 1 << 31
_MAX_DOMAINS = 1024
"""State is kept for so many Observation Domains: a peer that invents them cannot fill the memory."""

Record = dict[str, Any]


class Decoded(NamedTuple):
    """What one Message held. ``flows``: Data Records of Templates; ``options``: those of Options Templates."""

    export_time_s: int
    sequence: int
    observation_domain: int
    flows: list[Record]
    options: list[Record]


@dataclass
class DecodeStats:
    """What the decoder has seen. ``lost_records``: gaps in the Sequence Numbers, summed up."""

    messages: int = 0
    malformed: int = 0
    flows: int = 0
    options: int = 0
    sets_without_template: int = 0
    skipped_sets: int = 0
    sequence_errors: int = 0
    lost_records: int = 0


class _Layout:
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
                raise _Malformed(offset + start, "a Data Record runs past the end of its Set") from error
            record.pop("_io", None)
            for name, read in self._readers:
                record[name] = read(record[name])
            yield record


class _Malformed(Exception):
    """A mistake ``offset`` bytes into the Message."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset


@dataclass
class _Domain:
    """The state of one Observation Domain of one exporter."""

    layouts: dict[int, _Layout] = field(default_factory=dict)
    next_sequence: int | None = None


class Decoder:
    """Decodes the Messages of any number of exporters; Templates and Sequence Numbers are kept for each."""

    def __init__(self) -> None:
        self.stats = DecodeStats()
        self._domains: dict[tuple[Hashable, int], _Domain] = {}

    def forget(self, exporter: Hashable) -> None:
        """End the Transport Sessions of ``exporter``: its Templates are no longer valid."""
        for key in [key for key in self._domains if key[0] == exporter]:
            del self._domains[key]

    def decode(self, message: bytes, exporter: Hashable = None) -> Decoded:
        """The records of one whole Message. Raises DecodeError, which names the octet that is wrong."""
        try:
            decoded = self._decode(message, exporter)
        except _Malformed as error:
            self.stats.malformed += 1
            raise DecodeError(f"malformed IPFIX Message: octet {error.offset}: {error}") from error
        self.stats.messages += 1
        self.stats.flows += len(decoded.flows)
        self.stats.options += len(decoded.options)
        return decoded

    def _decode(self, message: bytes, exporter: Hashable) -> Decoded:
        header = _header(message)
        if header.length != len(message):
            raise _Malformed(2, f"length {header.length}, but {len(message)} bytes came")
        domain = self._domain(exporter, header.observation_domain)
        decoded = Decoded(header.export_time, header.sequence, header.observation_domain, [], [])
        expected, domain.next_sequence = domain.next_sequence, None
        countable = True
        for set_id, start, body in _sets(message):
            countable &= self._decode_set(domain, set_id, start, body, decoded)
        self._check_sequence(expected, header.sequence)
        if countable:
            records = len(decoded.flows) + len(decoded.options)
            domain.next_sequence = (header.sequence + records) & _SEQUENCE_MASK
        return decoded

    def _domain(self, exporter: Hashable, observation_domain: int) -> _Domain:
        key = (exporter, observation_domain)
        if key not in self._domains:
            while len(self._domains) >= _MAX_DOMAINS:
                del self._domains[next(iter(self._domains))]
            self._domains[key] = _Domain()
        return self._domains[key]

    def _decode_set(self, domain: _Domain, set_id: int, start: int, body: bytes, decoded: Decoded) -> bool:
        """Take in one Set; False if its Data Records cannot be counted."""
        if set_id in (TEMPLATE_SET_ID, OPTIONS_TEMPLATE_SET_ID):
            _learn(domain.layouts, set_id, start, body)
            return True
        if set_id < FIRST_DATA_SET_ID:  # reserved for future versions (RFC 7011, 3.3.2)
            self.stats.skipped_sets += 1
            return True
        layout = domain.layouts.get(set_id)
        if layout is None:
            self.stats.sets_without_template += 1
            return False
        (decoded.options if layout.is_options else decoded.flows).extend(layout.records(body, start))
        return True

    def _check_sequence(self, expected: int | None, sequence: int) -> None:
        if expected is None or expected == sequence:
            return
        gap = (sequence - expected) & _SEQUENCE_MASK
        self.stats.sequence_errors += 1
        self.stats.lost_records += gap if gap < _MAX_GAP else 0  # else reordered, or the exporter began anew


def message_length(data: bytes) -> int:
    """The length of the Message that starts with ``data`` (at least its header), for framing on TCP.

    Raises DecodeError if it is no IPFIX Message.
    """
    try:
        return int(_header(data).length)
    except _Malformed as error:
        raise DecodeError(f"not an IPFIX Message: octet {error.offset}: {error}") from error


def _header(data: bytes) -> Any:
    """The Message Header at the start of ``data``, a construct Container."""
    if len(data) < MESSAGE_HEADER.itemsize:
        raise _Malformed(len(data), f"a Message Header has {MESSAGE_HEADER.itemsize} bytes")
    header = wire.MessageHeader.parse(data[: MESSAGE_HEADER.itemsize])
    if header.version != IPFIX_VERSION:
        raise _Malformed(0, f"version {header.version}, expected {IPFIX_VERSION} (IPFIX)")
    if header.length < MESSAGE_HEADER.itemsize:
        raise _Malformed(2, f"length {header.length} is less than that of the Message Header")
    return header


def _sets(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Set ID, offset of the body, and body of each Set."""
    offset = MESSAGE_HEADER.itemsize
    while offset < len(message):
        if len(message) - offset < SET_HEADER.itemsize:
            raise _Malformed(offset, "no room for a Set Header")
        header = wire.SetHeader.parse(message[offset : offset + SET_HEADER.itemsize])
        end = offset + header.set_length
        if header.set_length < SET_HEADER.itemsize or end > len(message):
            raise _Malformed(offset + 2, f"Set length {header.set_length}, {len(message) - offset} bytes are left")
        yield header.set_id, offset + SET_HEADER.itemsize, message[offset + SET_HEADER.itemsize : end]
        offset = end


def _learn(layouts: dict[int, _Layout], set_id: int, offset: int, body: bytes) -> None:
    """Take over the Template Records and Template Withdrawals of a Set, ``offset`` bytes into the Message."""
    is_options = set_id == OPTIONS_TEMPLATE_SET_ID
    stream = io.BytesIO(body)
    while any(body[stream.tell() :]):  # zeros at the end are padding
        start = offset + stream.tell()
        try:
            template_id, fields = _template_record(stream, is_options, start)
        except construct.ConstructError as error:
            raise _Malformed(start, "a Template Record runs past the end of its Set") from error
        if not fields:
            _withdraw(layouts, template_id, set_id)
            continue
        layout = _Layout(fields, is_options)
        if template_id < FIRST_DATA_SET_ID or layout.least_octets == 0:
            raise _Malformed(start, f"Template {template_id} with records of at least {layout.least_octets} octets")
        known = layouts.get(template_id)
        if known is None or (known.fields, known.is_options) != (fields, is_options):
            layouts[template_id] = layout


def _template_record(stream: io.BytesIO, is_options: bool, offset: int) -> tuple[int, tuple[Field, ...]]:
    """Template ID and fields of the next record; no fields in a withdrawal, which is a header only."""
    header = wire.TemplateHeader.parse_stream(stream)
    if header.field_count == 0:
        return header.template_id, ()
    stream.seek(-TEMPLATE_HEADER.itemsize, io.SEEK_CUR)
    record = (wire.OptionsTemplateRecord if is_options else wire.TemplateRecord).parse_stream(stream)
    if is_options and not 0 < record.scope_field_count <= record.field_count:
        raise _Malformed(offset, f"Template {record.template_id} with {record.scope_field_count} scope fields")
    return record.template_id, _received_fields(record.fields)


def _withdraw(layouts: dict[int, _Layout], template_id: int, set_id: int) -> None:
    """One Template, or all of a kind if the Template ID is the Set ID (RFC 7011, 8.1)."""
    if template_id != set_id:
        layouts.pop(template_id, None)
        return
    for known in [key for key, layout in layouts.items() if layout.is_options == (set_id == OPTIONS_TEMPLATE_SET_ID)]:
        del layouts[known]


def _received_fields(specifiers: Any) -> tuple[Field, ...]:
    """The elements of a received Template; an unknown one is octets, and a repeated one gets a number in its name."""
    fields = []
    repeats: Counter[str] = Counter()
    for specifier in specifiers:
        number, enterprise = specifier.element_id & ~ENTERPRISE_BIT, specifier.enterprise or 0
        element = by_id(number, enterprise) or InformationElement(
            f"enterprise{enterprise}/id{number}", number, "octetArray", VARIABLE_LENGTH, "", "", enterprise
        )
        repeats[element.name] += 1
        if repeats[element.name] > 1:
            element = element._replace(name=f"{element.name}#{repeats[element.name]}")
        fields.append(Field(element, specifier.octets))
    return tuple(fields)
