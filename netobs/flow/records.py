"""The record that travels from the kernel to the wire, and the containers it travels in.

The layout is defined once, in ``bpf/netobs.h`` (``struct flow_record``).
``tests/unit/datapath/test_layout.py`` compares this dtype with the BTF of the object, field by field.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from netobs.base.clock import ClockPair
from netobs.flow import metrics
from netobs.flow.interface_names import NO_INTERFACES, InterfaceTable

if TYPE_CHECKING:  # numpy.typing takes a tenth of the time that numpy takes to import
    import numpy.typing as npt

    Records = npt.NDArray[np.void]
else:
    Records = np.ndarray
"""A one-dimensional array of one of ``RECORD_DTYPES``; which of them, its ``dtype`` says."""

KEY = np.dtype(
    [
        ("src_addr", "u1", (16,)),  # IPv4 as ::ffff:a.b.c.d
        ("dst_addr", "u1", (16,)),
        ("src_port", "<u2"),  # 0 for later fragments and for protocols without ports
        ("dst_port", "<u2"),  # ICMP and ICMPv6: type << 8 | code
        ("netns", "<u2"),  # number of the network namespace that ifindex belongs to; 0 = the first
        ("protocol", "u1"),
        ("direction", "u1"),  # IE 61: 0 ingress, 1 egress
        ("ethertype", "<u2"),
        ("vlan_id", "<u2"),  # outer tag, 0 = untagged
        ("ifindex", "<u4"),
    ]
)
"""The Flow Key. 48 bytes, host byte order (the object is built for little-endian hosts)."""

_INSIGHT = metrics.INSIGHT_GROUPS
METRICS, EXTRA, INSIGHT = (
    np.dtype([(each.name, each.dtype, each.shape) for each in metrics.METRICS if each.group in groups])
    for groups in (("",), {*metrics.GROUPS}.difference(_INSIGHT), _INSIGHT)
)
"""What is measured of each flow; only where a template asks for it; only where [insight] does. 64 bytes each."""
PROGRESS = np.dtype([("next_seq", "<u4"), ("reserved", "<u4")])
"""For the kernel only: how far a TCP connection is."""


def joined(*parts: np.dtype[np.void]) -> np.dtype[np.void]:
    """The fields of ``parts``, one behind the other, without padding."""
    return np.dtype([(name, *_spec) for part in parts for name, *_spec in part.descr])


RECORD = joined(KEY, METRICS)
"""One Flow Record: ``KEY`` then ``METRICS``. 112 bytes, no padding."""

EXTRA_RECORD = joined(RECORD, EXTRA)
"""One Flow Record where something of ``EXTRA`` is measured. 176 bytes, no padding."""

INSIGHT_RECORD = joined(RECORD, PROGRESS, INSIGHT)
"""One Flow Record where something of ``INSIGHT`` is measured. 184 bytes, no padding."""

FULL_RECORD = joined(RECORD, PROGRESS, EXTRA, INSIGHT)
"""One Flow Record where something of both is. 248 bytes, no padding."""

RECORD_DTYPES = (RECORD, EXTRA_RECORD, INSIGHT_RECORD, FULL_RECORD)

UNKNOWN = {each.name: each.unknown for each in metrics.METRICS if each.unknown}
"""The values of what was not measured, but for those that are 0."""

CHUNK_ROWS = 8192
"""Rows worked on at a time: temporary arrays stay in the CPU's cache, and the cost of the calls is hidden (measured:
2,048 rows cost 15 % more)."""


@dataclass(frozen=True, eq=False, repr=False)
class FlowBatch:
    """Flow Records (shape ``(n,)``), the clock pair that dates them, and interfaces' names.

    ``number``: counts up for ever, also over restarts, so that a batch that comes again is recognised; 0: it has none.
    """

    records: Records
    clock: ClockPair
    interfaces: InterfaceTable = NO_INTERFACES
    number: int = 0

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, eq=False, repr=False)
class MessageBlock:
    """Messages ready to send, back to back in one buffer.

    ``ends`` (shape ``(messages,)``, int64): where each one ends in ``buffer``, in bytes.
    ``flows``, ``packets`` and ``octets`` (the same shape and type) say what each Message carries,
    so that an unsent Message is accounted for. They are 0 for Messages that have only templates or options.
    """

    buffer: memoryview
    ends: npt.NDArray[np.int64]
    flows: npt.NDArray[np.int64]
    packets: npt.NDArray[np.int64]
    octets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.flows)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The length of each Message in bytes, shape ``(messages,)``."""
        return np.diff(self.ends, prepend=0)

    @cached_property
    def address(self) -> int:
        """Where ``buffer`` begins in the memory of this process."""
        return int(np.frombuffer(self.buffer, np.uint8).__array_interface__["data"][0])

    def end(self, index: int) -> int:
        """Where the Messages before the number ``index`` end in ``buffer``."""
        return int(self.ends[index - 1]) if index else 0

    def span(self, start: int, stop: int) -> memoryview:
        """The Messages ``start`` to ``stop``, back to back, without a copy."""
        return self.buffer[self.end(start) : self.end(stop)]

    def message(self, index: int) -> memoryview:
        """The Message number ``index``, without a copy."""
        return self.span(index, index + 1)

    def run(self, start: int, stop: int) -> int:
        """The end of the run of Messages from ``start`` that one UDP_SEGMENT call can send; at most ``stop``.

        All of them have the same length, except that the last may be shorter.
        """
        sizes = self.sizes[start:stop]
        other = np.flatnonzero(sizes != sizes[0])
        if not len(other):
            return stop
        first = int(other[0])
        return start + first + int(sizes[first] < sizes[0])


def empty(rows: int, dtype: np.dtype[np.void] = RECORD) -> Records:
    """An array of ``rows`` zeroed Flow Records."""
    return np.zeros(rows, dtype)


def opaque(records: Records) -> Records:
    """``records``, contiguous, as so many bytes each, without a copy.

    numpy copies records of a structured dtype field by field, these at once.
    """
    return records.view(np.dtype((np.void, records.dtype.itemsize)))


def in_parts(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """Records of ``dtype`` as two fields of so many bytes each, "key" and "metrics"."""
    assert dtype.fields is not None
    key_bytes: int = dtype.fields["packets"][1]
    return np.dtype([("key", f"V{key_bytes}"), ("metrics", f"V{dtype.itemsize - key_bytes}")])


def take(records: Records, indices: npt.NDArray[np.integer[Any]], out: Records | None = None) -> Records:
    """The rows ``indices`` of contiguous ``records``, in ``out`` (contiguous, of the same length) if it is given."""
    # With any mode but "raise", numpy writes to out without a buffer of its own.
    taken = opaque(records).take(indices, out=None if out is None else opaque(out), mode="clip")
    return taken.view(records.dtype)


def pick(records: Records, indices: npt.NDArray[np.integer[Any]]) -> Records:
    """As ``take``, of ascending ``indices`` without doubles: without a copy where they have no gap."""
    if len(indices) and indices[-1] - indices[0] == len(indices) - 1:
        return records[indices[0] : indices[-1] + 1]
    return take(records, indices)


def put(records: Records, indices: npt.NDArray[np.integer[Any]], rows: Records) -> None:
    """Write ``rows`` over the rows ``indices`` of contiguous ``records``; of doubles, the last counts."""
    opaque(records).put(indices, opaque(rows), mode="clip")


def concatenate(parts: list[Records]) -> Records:
    """``parts``, all of one dtype and at least one, as one array; without a copy where only one part has rows."""
    filled = [part for part in parts if len(part)] or parts[:1]
    if len(filled) == 1:
        return filled[0]
    whole: Records = np.concatenate([opaque(part) for part in filled]).view(filled[0].dtype)
    return whole


def in_dtype(records: Records, dtype: np.dtype[np.void]) -> Records:
    """``records`` with the fields of ``dtype``: what they do not have was not measured. Without a copy if they have
    exactly these."""
    if records.dtype == dtype:
        return records
    rows = empty(len(records), dtype)
    for name, value in UNKNOWN.items():
        if name in (dtype.names or ()):
            rows[name] = value
    for name in {*(dtype.names or ())}.intersection(records.dtype.names or ()):
        rows[name] = records[name]
    return rows
