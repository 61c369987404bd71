"""Shared by the export protocols: turns Flow Records into Data Records, and fills Messages with them."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.base.errors import TemplateError
from netobs.encode.columns import ALL_COLUMNS, ETHERTYPES, Column, fill, levels
from netobs.encode.template.template import Template
from netobs.encode.text import squeeze
from netobs.flow.metrics import Merge, named
from netobs.flow.records import FlowBatch, MessageBlock, Records
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    import numpy.typing as npt

    Heads = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.void]]
    """From the numbers of Data Records in Messages, shape ``(messages,)``, to the headers before them, same shape."""
    VariableHeads = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.void]]
    """The same, with the bytes of the Data Records of each Message as a second argument."""


_COUNTERS = {"octetDeltaCount": "octets", "packetDeltaCount": "packets"}
_COUNTER_OCTETS = 8
_MAX_COUNTER = (1 << 8 * _COUNTER_OCTETS) - 1


@dataclass(frozen=True, eq=False, repr=False)
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

    @property
    def kind(self) -> int:
        """The Template ID, by which ``RecordEncoder.restored`` knows the Template."""
        return self.template.id

    def slice(self, start: int, stop: int) -> DataSet:
        """The rows ``start`` to ``stop``, without a copy."""
        part = slice(start, stop)
        return replace(self, rows=self.rows[part], packets=self.packets[part], octets=self.octets[part])


class Encoded(NamedTuple):
    """The result of a batch: a Data Set per Template that accepts any of its records, and the rest.

    ``unencodable``: Flow Records that no Template of the set takes. ``clamped``: how many are exported with another
    interface than theirs, because the protocol has no number for it.
    """

    data_sets: list[DataSet]
    unencodable: Tally
    clamped: int = 0


class RecordEncoder:
    """Makes Data Records with one set of Templates; ``columns`` says how each element is filled. Without state."""

    def __init__(self, templates: Sequence[Template], columns: Mapping[str, Column] = ALL_COLUMNS) -> None:
        self._columns = columns
        self.templates = tuple(each for template in templates for each in self._by_level(template))

    @cached_property
    def fingerprint(self) -> str:
        """The same in every process whose encoder makes the same Data Records of the same rows."""
        layouts = [(template.record, template.dtype.descr) for template in self.templates]
        return f"{type(self).__module__} {zlib.crc32(repr(layouts).encode()):08x}"

    def restored(
        self, kind: int, rows: npt.NDArray[np.uint8], packets: npt.NDArray[np.int64], octets: npt.NDArray[np.int64]
    ) -> DataSet:
        """The Data Set of the Template with the ID ``kind`` whose ``rows`` were these octets; without a copy."""
        template = next(each for each in self.templates if each.id == kind)
        return DataSet(template, rows.view(template.dtype), packets, octets)

    def encode(self, batch: FlowBatch) -> Encoded:
        """The Data Sets of ``batch``.

        A record whose counter does not fit a reduced-size field becomes several, which together count the same.
        """
        ethertype, level = batch.records["ethertype"], self._levels(batch.records)
        data_sets = []
        left = np.ones(len(batch), dtype=np.bool_)
        for template in self.templates:
            families = ETHERTYPES if template.family == "any" else (template.family,)
            mask = np.zeros(len(batch), dtype=np.bool_)
            for family in families:
                mask |= ethertype == ETHERTYPES[family]
            mask &= left
            if template.needs:
                mask &= level >= template.needs
            left &= ~mask
            if mask.any():
                data_sets.append(self._data_set(template, batch, mask))
        return Encoded(data_sets, Tally.of_records(batch.records[left]) if left.any() else Tally())

    def _by_level(self, template: Template) -> Iterator[Template]:
        """``template``, and what is left of it for records that do not have all of its values: what was not measured
        has no number."""
        columns = {field: self._columns.get(field.filled_with) for field in template.fields}
        needs = {field: column.needs if column else 0 for field, column in columns.items()}
        for level in sorted({0, *needs.values()}, reverse=True):
            fields = tuple(field for field in template.fields if needs[field] <= level)
            if fields:
                yield replace(template, fields=fields, needs=level)

    def _levels(self, records: Records) -> npt.NDArray[np.int8]:
        return levels(records) if any(each.needs for each in self.templates) else np.zeros(0, np.int8)

    def _data_set(self, template: Template, batch: FlowBatch, mask: npt.NDArray[np.bool_]) -> DataSet:
        index = None if mask.all() else np.flatnonzero(mask)
        limits = _limits(template)
        if limits:
            records = batch.records if index is None else batch.records.take(index)
            batch, index = replace(batch, records=_split(records, limits)), None
        counts = [
            batch.records[name] if index is None else batch.records[name][index] for name in ("packets", "octets")
        ]
        rows = fill(template, batch, index, self._columns)
        return DataSet(template, rows, *(count.astype(np.int64) for count in counts))


def check_size(template: Template, needed: int, most: int) -> None:
    """Raise TemplateError if ``template`` needs a Message of more than ``most`` bytes."""
    if needed > most:
        raise TemplateError(
            f"{template.source or 'template'}: the template needs a Message of {needed} bytes, "
            f"the largest allowed has {most}",
            "use fewer elements or a larger max_message_size",
        )


def message_block(data_set: DataSet, per_message: int, heads: Heads, align: int = 1) -> MessageBlock:
    """``data_set`` as Messages of ``per_message`` Data Records (the last has the rest), padded to ``align``."""
    total = len(data_set)
    first = np.arange(0, total, per_message)
    counts = np.diff(np.append(first, total))
    head = heads(counts)
    record_bytes = data_set.rows.dtype.itemsize
    sizes = head.dtype.itemsize + -(-counts * record_bytes // align) * align
    rows = np.ascontiguousarray(data_set.rows)
    buffer = np.empty(int(sizes.sum()), dtype=np.uint8)
    full = total // per_message
    split = int(sizes[:full].sum())
    _write(buffer[:split], head[:full], rows[: full * per_message])
    _write(buffer[split:], head[full:], rows[full * per_message :])
    return MessageBlock(
        buffer=buffer.data,
        ends=np.cumsum(sizes),
        flows=counts,
        packets=_sums(data_set.packets, first),
        octets=_sums(data_set.octets, first),
    )


def variable_block(data_set: DataSet, room: int, heads: VariableHeads) -> MessageBlock:
    """``data_set`` as Messages whose Data Records differ in length: as many in each as ``room`` bytes hold."""
    body, ends = squeeze(data_set.template, data_set.rows)
    last = _last_records(ends.tolist(), room)
    first, cuts = np.append(0, last)[: len(last)], ends[last - 1]
    counts, body_bytes = np.diff(last, prepend=0), np.diff(cuts, prepend=0)
    head = heads(counts, body_bytes)
    records, starts = body.data, (cuts - body_bytes).tolist()
    parts = [part for at, start, cut in zip(head, starts, cuts.tolist()) for part in (at.tobytes(), records[start:cut])]
    return MessageBlock(
        buffer=memoryview(b"".join(parts)),
        ends=np.cumsum(body_bytes + head.dtype.itemsize),
        flows=counts,
        packets=_sums(data_set.packets, first),
        octets=_sums(data_set.octets, first),
    )


def _last_records(ends: Sequence[int], room: int) -> npt.NDArray[np.int64]:
    """One after the last record of each Message of ``room`` bytes; the records end at ``ends``, ascending."""
    last: list[int] = []
    stop = start = 0
    while stop < len(ends):
        stop = bisect_right(ends, start + room, stop)
        start = ends[stop - 1]
        last.append(stop)
    return np.array(last, dtype=np.int64)


def _write(buffer: npt.NDArray[np.uint8], heads: npt.NDArray[np.void], rows: npt.NDArray[np.void]) -> None:
    """Fill ``buffer`` with as many Messages as there are ``heads``, which share ``rows`` out evenly."""
    if not len(heads):
        return
    grid = buffer.reshape(len(heads), -1)
    start = heads.dtype.itemsize
    body = rows.view(np.uint8).reshape(len(heads), -1)
    grid[:, :start] = np.ascontiguousarray(heads).view(np.uint8).reshape(len(heads), -1)
    grid[:, start : start + body.shape[1]] = body
    grid[:, start + body.shape[1] :] = 0


def _limits(template: Template) -> dict[str, int]:
    """The highest values of a record's counters, if fields of ``template`` are too short for some values."""
    limits: dict[str, int] = {}
    for field in template.fields:
        counter = _COUNTERS.get(field.filled_with)
        if counter is not None and field.octets < _COUNTER_OCTETS:
            limits[counter] = min((1 << 8 * field.octets) - 1, limits.get(counter, _MAX_COUNTER))
    return limits


def _split(records: Records, limits: dict[str, int]) -> Records:
    """``records``, with each one repeated until its counters are at most ``limits``; the sums stay the same."""
    parts = np.ones(len(records), dtype=np.int64)
    for name, limit in limits.items():
        np.maximum(parts, -(-records[name].astype(np.int64) // limit), out=parts)
    if not len(parts) or parts.max() == 1:
        return records
    nth = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    pieces = np.repeat(records, parts)
    for name in (name for name in named(Merge.SUM) if name in (records.dtype.names or ())):
        if name in limits:
            pieces[name] = np.clip(pieces[name].astype(np.int64) - nth * limits[name], 0, limits[name])
        else:
            pieces[name][nth > 0] = 0
    return pieces


def _sums(values: npt.NDArray[np.int64], first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The sum of ``values`` from each index in ``first`` to the next."""
    return np.add.reduceat(values, first) if len(first) else np.zeros(0, dtype=np.int64)
