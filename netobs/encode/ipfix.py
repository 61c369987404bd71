"""IPFIX Messages (RFC 7011) from Flow Records: columns in, whole Messages out. No socket, no clock, no log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netobs.encode.columns import ETHERTYPES, fill
from netobs.encode.layout import (
    DATA_MESSAGE_HEADER,
    IPFIX_VERSION,
    MAX_MESSAGE_BYTES,
    MESSAGE_HEADER,
    SET_HEADER,
    TEMPLATE_SET_ID,
)
from netobs.encode.template import Template
from netobs.errors import TemplateError
from netobs.records import FlowBatch, MessageBlock, Records

_MAX_U32 = 0xFFFFFFFF
_COUNTERS = {"octetDeltaCount": "octets", "packetDeltaCount": "packets"}


class Header(NamedTuple):
    """What a Transport Session says in the Message Header. ``sequence``: Data Records sent before this Message."""

    export_time_s: int
    sequence: int
    observation_domain: int

    def advance(self, records: int) -> Header:
        """The header after ``records`` more Data Records (the Sequence Number is modulo 2**32)."""
        return self._replace(sequence=(self.sequence + records) & _MAX_U32)


@dataclass(frozen=True)
class DataSet:
    """Data Records of one Template, ready for Messages.

    ``rows``: shape ``(n,)``, dtype ``template.dtype``, contiguous. ``packets`` and ``octets``: shape ``(n,)``, int64,
    what each row carries.
    """

    template: Template
    rows: npt.NDArray[np.void]
    packets: npt.NDArray[np.int64]
    octets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> DataSet:
        """The rows ``start`` to ``stop``, without a copy."""
        part = slice(start, stop)
        return replace(self, rows=self.rows[part], packets=self.packets[part], octets=self.octets[part])


@dataclass
class Unencodable:
    """Flow Records, and what they carried, that no Template of the set takes."""

    flows: int = 0
    packets: int = 0
    octets: int = 0


class Encoder:
    """Builds Messages with one set of Templates. Without state except the count ``unencodable``.

    Raises TemplateError if a Data Record or Template Record does not fit in a Message at all.
    """

    def __init__(self, templates: Sequence[Template]) -> None:
        self.templates = tuple(templates)
        self.unencodable = Unencodable()
        self.check(MAX_MESSAGE_BYTES)

    def check(self, max_message_size: int) -> None:
        """Raise TemplateError if a Template or one of its Data Records is too large for ``max_message_size`` bytes."""
        for template in self.templates:
            _records_per_message(template, max_message_size)
            _check_size(
                template, MESSAGE_HEADER.itemsize + SET_HEADER.itemsize + len(template.record), max_message_size
            )

    def encode(self, batch: FlowBatch) -> list[DataSet]:
        """The Data Sets of ``batch``, one per Template that takes any of its records; the rest is ``unencodable``.

        A record whose counter does not fit a reduced-size field becomes several, which together count the same.
        """
        ethertype = batch.records["ethertype"]
        data_sets = []
        left = np.ones(len(batch), dtype=np.bool_)
        for template in self.templates:
            families = ETHERTYPES if template.family == "any" else (template.family,)
            mask = np.zeros(len(batch), dtype=np.bool_)
            for family in families:
                mask |= ethertype == ETHERTYPES[family]
            mask &= left
            left &= ~mask
            if mask.any():
                data_sets.append(_data_set(template, batch, mask))
        self._count_unencodable(batch.records, left)
        return data_sets

    def _count_unencodable(self, records: Records, left: npt.NDArray[np.bool_]) -> None:
        if left.any():
            self.unencodable.flows += int(np.count_nonzero(left))
            self.unencodable.packets += int(records["packets"][left].sum())
            self.unencodable.octets += int(records["octets"][left].sum())

    def template_messages(self, header: Header, max_message_size: int) -> list[bytes]:
        """Messages with all Templates: one unpadded Template Set each, as few Messages as ``max_message_size`` allows.

        They do not advance the Sequence Number.
        """
        self.check(max_message_size)
        room = max_message_size - MESSAGE_HEADER.itemsize - SET_HEADER.itemsize
        bodies: list[bytes] = []
        for template in self.templates:
            if bodies and len(bodies[-1]) + len(template.record) <= room:
                bodies[-1] += template.record
            else:
                bodies.append(template.record)
        return [_head(1, len(body), header, TEMPLATE_SET_ID, 0).tobytes() + body for body in bodies]

    def data_messages(self, data_set: DataSet, header: Header, max_message_size: int) -> MessageBlock:
        """``data_set`` as Messages of at most ``max_message_size`` bytes, each with one Data Set of whole records.

        The header to go on with is ``header.advance(len(data_set))``. Raises TemplateError if not one record fits.
        """
        template = data_set.template
        per_message = _records_per_message(template, max_message_size)
        rows = np.ascontiguousarray(data_set.rows)
        first = np.arange(0, len(rows), per_message)
        buffer = np.empty(rows.nbytes + len(first) * DATA_MESSAGE_HEADER.itemsize, dtype=np.uint8)
        message_bytes = DATA_MESSAGE_HEADER.itemsize + per_message * template.dtype.itemsize
        full = len(rows) // per_message
        in_full = full * per_message
        _write(buffer[: full * message_bytes], rows[:in_full], full, template.id, header)
        if in_full < len(rows):
            _write(buffer[full * message_bytes :], rows[in_full:], 1, template.id, header.advance(in_full))
        return MessageBlock(
            buffer=buffer.data,
            message_octets=min(message_bytes, len(buffer)),
            flows=np.diff(np.append(first, len(rows))),
            packets=_sums(data_set.packets, first),
            octets=_sums(data_set.octets, first),
        )


def _records_per_message(template: Template, max_message_size: int) -> int:
    size = min(max_message_size, MAX_MESSAGE_BYTES)
    _check_size(template, DATA_MESSAGE_HEADER.itemsize + template.dtype.itemsize, size)
    return (size - DATA_MESSAGE_HEADER.itemsize) // template.dtype.itemsize


def _check_size(template: Template, needed: int, max_message_size: int) -> None:
    if needed > min(max_message_size, MAX_MESSAGE_BYTES):
        raise TemplateError(
            f"{template.source or 'template'}: template {template.id} needs a Message of {needed} bytes, "
            f"the largest allowed has {min(max_message_size, MAX_MESSAGE_BYTES)}",
            "use fewer elements or a larger max_message_size",
        )


def _data_set(template: Template, batch: FlowBatch, mask: npt.NDArray[np.bool_]) -> DataSet:
    index = None if mask.all() else np.flatnonzero(mask)
    limits = {
        _COUNTERS[field.element.name]: (1 << 8 * field.octets) - 1
        for field in template.fields
        if field.element.name in _COUNTERS and field.octets < field.element.octets
    }
    if limits:
        records = batch.records if index is None else batch.records.take(index)
        batch, index = FlowBatch(_split(records, limits), batch.clock), None
    counts = [batch.records[name] if index is None else batch.records[name][index] for name in ("packets", "octets")]
    return DataSet(template, fill(template, batch, index), *(count.astype(np.int64) for count in counts))


def _split(records: Records, limits: dict[str, int]) -> Records:
    """``records`` with each one repeated until its counters are at most ``limits``; the sums stay as they are."""
    parts = np.ones(len(records), dtype=np.int64)
    for name, limit in limits.items():
        np.maximum(parts, -(-records[name].astype(np.int64) // limit), out=parts)
    if not len(parts) or parts.max() == 1:
        return records
    nth = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    pieces = np.repeat(records, parts)
    for name in _COUNTERS.values():
        if name in limits:
            pieces[name] = np.clip(pieces[name].astype(np.int64) - nth * limits[name], 0, limits[name])
        else:
            pieces[name][nth > 0] = 0
    return pieces


def _head(messages: int, body: int, header: Header, set_id: int, records: int) -> npt.NDArray[np.void]:
    """The headers of ``messages`` Messages with ``body`` bytes and ``records`` Data Records each: shape (messages,)."""
    heads = np.empty(messages, dtype=DATA_MESSAGE_HEADER)
    heads["version"] = IPFIX_VERSION
    heads["length"] = DATA_MESSAGE_HEADER.itemsize + body
    heads["export_time"] = header.export_time_s & _MAX_U32
    heads["sequence"] = (np.arange(messages, dtype=np.int64) * records + header.sequence) & _MAX_U32
    heads["observation_domain"] = header.observation_domain
    heads["set_id"] = set_id
    heads["set_length"] = SET_HEADER.itemsize + body
    return heads


def _write(
    buffer: npt.NDArray[np.uint8], rows: npt.NDArray[np.void], messages: int, set_id: int, header: Header
) -> None:
    """Fill ``buffer`` with ``messages`` Messages that share ``rows`` out evenly."""
    if not messages:
        return
    head_bytes = DATA_MESSAGE_HEADER.itemsize
    grid = buffer.reshape(messages, -1)
    heads = _head(messages, grid.shape[1] - head_bytes, header, set_id, len(rows) // messages)
    grid[:, :head_bytes] = heads.view(np.uint8).reshape(messages, head_bytes)
    grid[:, head_bytes:] = rows.view(np.uint8).reshape(messages, -1)


def _sums(values: npt.NDArray[np.int64], first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The sum of ``values`` from each index in ``first`` to the next."""
    return np.add.reduceat(values, first) if len(first) else np.zeros(0, dtype=np.int64)
