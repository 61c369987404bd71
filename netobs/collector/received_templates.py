"""Template Records and Withdrawals as received, in IPFIX (RFC 7011, 3.4) and NetFlow v9 (RFC 3954, 5.2, 6.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from netobs.base.ipfix import FIRST_DATA_SET_ID
from netobs.collector.decode_domain import Domain
from netobs.collector.received import Layout, note_padding
from netobs.collector.received_element import SCOPE
from netobs.collector.work import Malformed, Notes, Work
from netobs.encode.layout import (
    ENTERPRISE_BIT,
    FIELD_SPECIFIER,
    OPTIONS_TEMPLATE_SET_ID,
    TEMPLATE_HEADER,
    TEMPLATE_SET_ID,
    big_endian,
)
from netobs.encode.layout_netflow import OPTIONS_TEMPLATE_FLOWSET_ID, TEMPLATE_FLOWSET_ID

_HEADER, _SPECIFIER = big_endian(TEMPLATE_HEADER), big_endian(FIELD_SPECIFIER)
_COUNT, _ENTERPRISE = struct.Struct(">H"), struct.Struct(">I")  # what only some records have (3.4.2.2, 3.2)
_OPTIONS_HEADER = struct.Struct(">HHH")  # of NetFlow v9: Template ID, bytes of scopes, bytes of options
_TEMPLATE_STEPS = 10
"""The work of a Template Record, in Field Specifiers."""


class Kind(NamedTuple):
    """One kind of Template Set. ``least``: the length of its shortest record; a shorter rest is padding.

    ``read`` gives the Template ID, the Layout (None: a withdrawal) and the end of the record at an octet of the body.
    ``withdraws_all``: the Template ID by which all Templates of the kind are withdrawn.
    """

    is_options: bool
    least: int
    read: Callable[[bytes, int, int, Work], tuple[int, Layout | None, int]]
    withdraws_all: int | None = None


def learn(domain: Domain, kind: Kind, body: bytes, offset: int, work: Work, notes: Notes) -> int:
    """Store the records of a Template Set, ``offset`` bytes into the Message; returns their number.

    Raises Malformed and Exhausted. Zeros at the end are padding, and so is a rest that is too short for a record.
    """
    at = records = 0
    end = len(body.rstrip(b"\0"))
    while at < end and (not at or len(body) - at >= kind.least):
        start = offset + at
        work.spend(_TEMPLATE_STEPS, start)
        try:
            template_id, layout, at = kind.read(body, at, start, work)
        except struct.error as error:
            raise Malformed(start, "a Template Record runs past the end of its Set") from error
        records += 1
        if layout is None:
            _withdraw(domain, kind, template_id, start, notes)
        elif template_id < FIRST_DATA_SET_ID or layout.least_octets == 0:
            what = f"Template {template_id} with records of at least {layout.least_octets} octets"
            raise Malformed(start, what)
        else:
            domain.define(template_id, layout, notes)
    if at:
        note_padding(body, at, notes, "Templates")
    return records


def _withdraw(domain: Domain, kind: Kind, template_id: int, start: int, notes: Notes) -> None:
    """One Template, or all of a kind if the Template ID is the Set ID (RFC 7011, 8.1)."""
    if template_id == kind.withdraws_all:
        domain.withdraw_all(kind.is_options)
    elif template_id >= FIRST_DATA_SET_ID:
        domain.withdraw(template_id)
    else:
        raise Malformed(start, f"a withdrawal of Template {template_id}")
    notes.add("withdrawal", f"Template {template_id} is withdrawn")


def _read(body: bytes, at: int, start: int, work: Work) -> tuple[int, Layout | None, int]:
    template_id, count = _HEADER.unpack_from(body, at)
    at += _HEADER.size
    return (template_id, *_layout(body, at, count, False, work)) if count else (template_id, None, at)


def _read_options(body: bytes, at: int, start: int, work: Work) -> tuple[int, Layout | None, int]:
    template_id, count = _HEADER.unpack_from(body, at)
    at += _HEADER.size
    if count == 0:
        return template_id, None, at
    (scopes,) = _COUNT.unpack_from(body, at)
    if not 0 < scopes <= count:
        raise Malformed(start, f"Template {template_id} with {scopes} scope fields")
    return (template_id, *_layout(body, at + _COUNT.size, count, True, work))


def _layout(body: bytes, at: int, count: int, is_options: bool, work: Work) -> tuple[Layout, int]:
    work.spend(count)
    end = at
    for _ in range(count):
        (number,) = _COUNT.unpack_from(body, end)
        end += _SPECIFIER.size + (_ENTERPRISE.size if number & ENTERPRISE_BIT else 0)
    if end > len(body):
        raise struct.error
    return Layout(_specifiers, body[at:end], is_options), end


def _specifiers(content: bytes) -> list[tuple[int, int, int]]:
    found, at, end = [], 0, len(content)
    while at < end:
        number, octets = _SPECIFIER.unpack_from(content, at)
        at += _SPECIFIER.size
        enterprise = 0
        if number & ENTERPRISE_BIT:
            number &= ~ENTERPRISE_BIT
            (enterprise,) = _ENTERPRISE.unpack_from(content, at)
            at += _ENTERPRISE.size
        found.append((number, octets, enterprise))
    return found


def _read_netflow9(body: bytes, at: int, start: int, work: Work) -> tuple[int, Layout | None, int]:
    template_id, count = _HEADER.unpack_from(body, at)
    return (template_id, *_layout_netflow9(body, at + _HEADER.size, 0, count, False, work))


def _read_options_netflow9(body: bytes, at: int, start: int, work: Work) -> tuple[int, Layout | None, int]:
    """Lengths in bytes, and scopes with a type (RFC 3954, 6.1)."""
    template_id, scope_bytes, option_bytes = _OPTIONS_HEADER.unpack_from(body, at)
    if scope_bytes % _SPECIFIER.size or option_bytes % _SPECIFIER.size:
        raise Malformed(start + 2, f"lengths {scope_bytes} and {option_bytes} are not multiples of 4")
    scopes, count = scope_bytes // _SPECIFIER.size, (scope_bytes + option_bytes) // _SPECIFIER.size
    return (template_id, *_layout_netflow9(body, at + _OPTIONS_HEADER.size, scopes, count, True, work))


def _layout_netflow9(body: bytes, at: int, scopes: int, count: int, is_options: bool, work: Work) -> tuple[Layout, int]:
    work.spend(count)
    end = at + count * _SPECIFIER.size
    if end > len(body):
        raise struct.error
    return Layout(specifiers_netflow9, _COUNT.pack(scopes) + body[at:end], is_options), end


def specifiers_netflow9(content: bytes) -> list[tuple[int, int, int]]:
    """Fields of a Layout whose content is the number of scopes, and Field Specifiers without enterprises."""
    (scopes,) = _COUNT.unpack_from(content)
    every = enumerate(_SPECIFIER.iter_unpack(content[_COUNT.size :]))
    return [(number, octets, SCOPE if at < scopes else 0) for at, (number, octets) in every]


IPFIX_KINDS = {
    TEMPLATE_SET_ID: Kind(False, _HEADER.size, _read, TEMPLATE_SET_ID),
    OPTIONS_TEMPLATE_SET_ID: Kind(True, _HEADER.size, _read_options, OPTIONS_TEMPLATE_SET_ID),
}
NETFLOW9_KINDS = {
    TEMPLATE_FLOWSET_ID: Kind(False, _HEADER.size + _SPECIFIER.size, _read_netflow9),
    OPTIONS_TEMPLATE_FLOWSET_ID: Kind(True, _OPTIONS_HEADER.size + _SPECIFIER.size, _read_options_netflow9),
}
"""By Set ID."""
