"""The decoder of IPFIX, NetFlow v9 and v5: Messages to dicts keyed by Information Element names.

For ``netobs listen`` and for tests.
It takes whatever a peer sends: a Message is decoded, or DecodeError says at which octet it is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netobs.encode import wire
from netobs.encode.decode_netflow import decode_netflow5, learn_netflow9, netflow9_header
from netobs.encode.layout import (
    ENTERPRISE_BIT,
    FIELD_SPECIFIER,
    FIRST_DATA_SET_ID,
    IPFIX_VERSION,
    MESSAGE_HEADER,
    OPTIONS_TEMPLATE_SET_ID,
    TEMPLATE_HEADER,
    TEMPLATE_SET_ID,
    big_endian,
)
from netobs.encode.layout_netflow import (
    NETFLOW5_VERSION,
    NETFLOW9_HEADER,
    NETFLOW9_VERSION,
    OPTIONS_TEMPLATE_FLOWSET_ID,
    TEMPLATE_FLOWSET_ID,
)
from netobs.encode.received import Layout, Malformed, Record, distinct, received_field, sets
from netobs.encode.template import Field
from netobs.errors import DecodeError

_PROTOCOLS = {NETFLOW9_VERSION: "NetFlow v9", NETFLOW5_VERSION: "NetFlow v5"}
_SEQUENCE_MASK = 0xFFFFFFFF
_MS_PER_S = 1_000
_MAX_GAP = 1 << 31
_MAX_DOMAINS = 1024
"""State is kept for so many Observation Domains: a peer that invents them cannot fill the memory."""
_MAX_ROOM, _TEMPLATE_ROOM = 1 << 18, 64
"""The same for Templates: the most fields of all that are kept, where a Template counts as so many more."""

_TEMPLATE_HEADER, _SPECIFIER = big_endian(TEMPLATE_HEADER), big_endian(FIELD_SPECIFIER)
_ENTRY_COUNT, _ENTERPRISE = struct.Struct(">H"), struct.Struct(">I")  # what only some records have (3.4.2.2, 3.2)

_Learn = Callable[[dict[int, Layout], int, int, bytes], None]


class Decoded(NamedTuple):
    """What one Message held. ``flows``: Data Records of Templates; ``options``: those of Options Templates.

    ``options_template_ids``: for each of ``options`` the Template ID of its Options Template.
    """

    export_time_s: int
    sequence: int
    observation_domain: int
    flows: list[Record]
    options: list[Record]
    options_template_ids: list[int]


@dataclass
class DecodeStats:
    """What the decoder has seen. ``lost_records``: gaps in the Sequence Numbers, summed up.

    ``lost_messages``: the same for NetFlow v9, which numbers Messages.
    """

    messages: int = 0
    malformed: int = 0
    flows: int = 0
    options: int = 0
    sets_without_template: int = 0
    skipped_sets: int = 0
    sequence_errors: int = 0
    lost_records: int = 0
    lost_messages: int = 0


@dataclass
class _Domain:
    """The state of one Observation Domain of one exporter."""

    layouts: dict[int, Layout] = field(default_factory=dict)
    next_sequence: int | None = None
    room: int = 0


class Decoder:
    """Decodes the Messages of any number of exporters; Templates and Sequence Numbers are kept for each."""

    def __init__(self) -> None:
        self.stats = DecodeStats()
        self._domains: dict[tuple[Hashable, int, int], _Domain] = {}
        self._room = 0

    def forget(self, exporter: Hashable) -> None:
        """End the Transport Sessions of ``exporter``: its Templates are no longer valid."""
        for key in [key for key in self._domains if key[0] == exporter]:
            self._drop(key)

    def _drop(self, key: tuple[Hashable, int, int]) -> None:
        self._room -= self._domains.pop(key).room

    def decode(self, message: bytes, exporter: Hashable = None) -> Decoded:
        """The records of one whole Message. Raises DecodeError, which names the octet that is wrong."""
        try:
            decoded = self._decode(message, exporter)
        except Malformed as error:
            self.stats.malformed += 1
            protocol = _PROTOCOLS.get(_version(message), "IPFIX")
            raise DecodeError(f"malformed {protocol} Message: octet {error.offset}: {error}") from error
        self.stats.messages += 1
        self.stats.flows += len(decoded.flows)
        self.stats.options += len(decoded.options)
        return decoded

    def length(self, data: bytes) -> int:
        """As ``message_length``; what is no Message is counted."""
        try:
            return message_length(data)
        except DecodeError:
            self.stats.malformed += 1
            raise

    def _decode(self, message: bytes, exporter: Hashable) -> Decoded:
        version = _version(message)
        if version == NETFLOW9_VERSION:
            return self._decode_netflow9(message, exporter)
        if version == NETFLOW5_VERSION:
            return self._decode_netflow5(message, exporter)
        return self._decode_ipfix(message, exporter)

    def _decode_ipfix(self, message: bytes, exporter: Hashable) -> Decoded:
        header = _header(message)
        if header.length != len(message):
            raise Malformed(2, f"length {header.length}, but {len(message)} bytes came")
        domain = self._domain(exporter, IPFIX_VERSION, header.observation_domain)
        decoded = Decoded(header.export_time, header.sequence, header.observation_domain, [], [], [])
        expected, domain.next_sequence = domain.next_sequence, None
        learners = dict.fromkeys((TEMPLATE_SET_ID, OPTIONS_TEMPLATE_SET_ID), _learn)
        countable = self._decode_sets(domain, sets(message, MESSAGE_HEADER.itemsize), learners, decoded)
        self.stats.lost_records += self._gap(expected, header.sequence)
        if countable:
            records = len(decoded.flows) + len(decoded.options)
            domain.next_sequence = (header.sequence + records) & _SEQUENCE_MASK
        return decoded

    def _decode_netflow9(self, message: bytes, exporter: Hashable) -> Decoded:
        header = netflow9_header(message)
        domain = self._domain(exporter, NETFLOW9_VERSION, header.observation_domain)
        decoded = Decoded(header.time_ms // _MS_PER_S, header.sequence, header.observation_domain, [], [], [])
        self.stats.lost_messages += self._gap(domain.next_sequence, header.sequence)
        domain.next_sequence = (header.sequence + 1) & _SEQUENCE_MASK
        learners = dict.fromkeys((TEMPLATE_FLOWSET_ID, OPTIONS_TEMPLATE_FLOWSET_ID), learn_netflow9)
        self._decode_sets(domain, sets(message, NETFLOW9_HEADER.itemsize), learners, decoded)
        header.add_times(decoded.flows)
        return decoded

    def _decode_netflow5(self, message: bytes, exporter: Hashable) -> Decoded:
        header, flows = decode_netflow5(message)
        domain = self._domain(exporter, NETFLOW5_VERSION, header.observation_domain)
        self.stats.lost_records += self._gap(domain.next_sequence, header.sequence)
        domain.next_sequence = (header.sequence + header.records) & _SEQUENCE_MASK
        return Decoded(header.time_ms // _MS_PER_S, header.sequence, header.observation_domain, flows, [], [])

    def _domain(self, exporter: Hashable, version: int, observation_domain: int) -> _Domain:
        """The state of a domain; of too many, the one goes that has been silent for longest."""
        key = (exporter, version, observation_domain)
        domain = self._domains.pop(key, None)
        if domain is None:
            while len(self._domains) >= _MAX_DOMAINS:
                self._drop(next(iter(self._domains)))
            domain = _Domain()
        self._domains[key] = domain
        return domain

    def _decode_sets(
        self, domain: _Domain, found: Iterable[tuple[int, int, bytes]], learners: Mapping[int, _Learn], decoded: Decoded
    ) -> bool:
        """Take in the Sets of a Message; False if not all of its Data Records can be counted."""
        countable = True
        for set_id, start, body in found:
            layout = domain.layouts.get(set_id)
            if set_id in learners:
                try:
                    learners[set_id](domain.layouts, set_id, start, body)
                finally:
                    self._make_room(domain)
            elif set_id < FIRST_DATA_SET_ID:  # reserved for future versions (RFC 7011, 3.3.2)
                self.stats.skipped_sets += 1
            elif layout is None:
                self.stats.sets_without_template += 1
                countable = False
            elif layout.is_options:
                decoded.options.extend(layout.records(body, start))
                decoded.options_template_ids.extend(
                    [set_id] * (len(decoded.options) - len(decoded.options_template_ids))
                )
            else:
                decoded.flows.extend(layout.records(body, start))
        return countable

    def _make_room(self, domain: _Domain) -> None:
        """Count the Templates of ``domain`` anew; while there are too many in all, the domain with most loses them."""
        room = sum(_TEMPLATE_ROOM + len(layout.fields) for layout in domain.layouts.values())
        self._room += room - domain.room
        domain.room = room
        while self._room > _MAX_ROOM:
            largest = max(self._domains.values(), key=lambda each: each.room)
            self._room -= largest.room
            largest.room = 0
            largest.layouts.clear()

    def _gap(self, expected: int | None, sequence: int) -> int:
        """How many were lost before ``sequence``."""
        if expected is None or expected == sequence:
            return 0
        gap = (sequence - expected) & _SEQUENCE_MASK
        self.stats.sequence_errors += 1
        return gap if gap < _MAX_GAP else 0  # else reordered, or the exporter began anew


def _version(message: bytes) -> int:
    return int.from_bytes(message[:2], "big")


def message_length(data: bytes) -> int:
    """The length of the Message that starts with ``data`` (at least its header), for framing on TCP.

    Raises DecodeError if it is no IPFIX Message.
    """
    try:
        return int(_header(data).length)
    except Malformed as error:
        raise DecodeError(f"not an IPFIX Message: octet {error.offset}: {error}") from error


def _header(data: bytes) -> Any:
    """The Message Header at the start of ``data``, a construct Container."""
    if len(data) < MESSAGE_HEADER.itemsize:
        raise Malformed(len(data), f"a Message Header has {MESSAGE_HEADER.itemsize} bytes")
    header = wire.MessageHeader.parse(data[: MESSAGE_HEADER.itemsize])
    if header.version != IPFIX_VERSION:
        raise Malformed(0, f"version {header.version}, expected {IPFIX_VERSION} (IPFIX)")
    if header.length < MESSAGE_HEADER.itemsize:
        raise Malformed(2, f"length {header.length} is less than that of the Message Header")
    return header


def _learn(layouts: dict[int, Layout], set_id: int, offset: int, body: bytes) -> None:
    """Take over the Template Records and Template Withdrawals of a Set, ``offset`` bytes into the Message."""
    is_options = set_id == OPTIONS_TEMPLATE_SET_ID
    at = 0
    while any(body[at:]):  # zeros at the end are padding
        start = offset + at
        try:
            template_id, fields, at = _template_record(body, at, is_options, start)
        except struct.error as error:
            raise Malformed(start, "a Template Record runs past the end of its Set") from error
        if not fields:
            _withdraw(layouts, template_id, set_id)
            continue
        layout = Layout(fields, is_options)
        if template_id < FIRST_DATA_SET_ID or layout.least_octets == 0:
            raise Malformed(start, f"Template {template_id} with records of at least {layout.least_octets} octets")
        known = layouts.get(template_id)
        if known is None or (known.fields, known.is_options) != (fields, is_options):
            layouts[template_id] = layout


def _template_record(body: bytes, at: int, is_options: bool, offset: int) -> tuple[int, tuple[Field, ...], int]:
    """Template ID and fields of the record at ``at``, and its end; no fields in a withdrawal, which ends there."""
    template_id, count = _TEMPLATE_HEADER.unpack_from(body, at)
    at += _TEMPLATE_HEADER.size
    if count == 0:
        return template_id, (), at
    if is_options:
        (scopes,) = _ENTRY_COUNT.unpack_from(body, at)
        at += _ENTRY_COUNT.size
        if not 0 < scopes <= count:
            raise Malformed(offset, f"Template {template_id} with {scopes} scope fields")
    fields = []
    for _ in range(count):
        number, octets = _SPECIFIER.unpack_from(body, at)
        at += _SPECIFIER.size
        enterprise = 0
        if number & ENTERPRISE_BIT:
            (enterprise,) = _ENTERPRISE.unpack_from(body, at)
            at += _ENTERPRISE.size
        fields.append(received_field(number & ~ENTERPRISE_BIT, octets, enterprise))
    return template_id, distinct(fields), at


def _withdraw(layouts: dict[int, Layout], template_id: int, set_id: int) -> None:
    """One Template, or all of a kind if the Template ID is the Set ID (RFC 7011, 8.1)."""
    if template_id != set_id:
        layouts.pop(template_id, None)
        return
    for known in [key for key, layout in layouts.items() if layout.is_options == (set_id == OPTIONS_TEMPLATE_SET_ID)]:
        del layouts[known]
