"""The record that travels from the kernel to the wire, and the containers it travels in.

The layout is defined once, in ``bpf/netobs.h`` (``struct flow_record``).
``tests/unit/datapath/test_layout.py`` compares this dtype with the BTF of the object, field by field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from netobs.base.clock import ClockPair
from netobs.flow.interface_names import NO_INTERFACES, InterfaceTable

KEY = np.dtype(
    [
        ("src_addr", "u1", (16,)),  # IPv4 as ::ffff:a.b.c.d
        ("dst_addr", "u1", (16,)),
        ("src_port", "<u2"),  # 0 for later fragments and for protocols without ports
        ("dst_port", "<u2"),
        ("icmp_type", "u1"),
        ("icmp_code", "u1"),
        ("protocol", "u1"),
        ("direction", "u1"),  # IE 61: 0 ingress, 1 egress
        ("ethertype", "<u2"),
        ("vlan_id", "<u2"),  # outer tag, 0 = untagged
        ("ifindex", "<u4"),
    ]
)
"""The Flow Key. 48 bytes, host byte order (the object is built for little-endian hosts)."""

METRICS = np.dtype(
    [
        ("packets", "<u8"),  # wire packets: a GSO super-packet counts its segments
        ("octets", "<u8"),  # IE 1: from the IP header on
        ("first_ns", "<u8"),  # CLOCK_MONOTONIC
        ("last_ns", "<u8"),
        ("tcp_flags", "<u2"),  # OR of the low 12 bits of bytes 12 and 13 of the TCP header
        ("min_ip_length", "<u2"),  # octets, of one wire packet
        ("max_ip_length", "<u2"),
        ("tos", "u1"),  # of the first packet
        ("min_ttl", "u1"),
        ("max_ttl", "u1"),
        ("dot1q_priority", "u1"),  # of the first packet
        ("errno", "u1"),  # why a ring buffer record did not fit the table; 0 = it comes from the table
        ("flow_end_reason", "u1"),  # IE 136; 0 in the kernel, set at expiry
        ("src_mac", "u1", (6,)),  # of the first packet
        ("dst_mac", "u1", (6,)),
        ("end", "<u4"),  # of the first FIN or RST, in units of 1,024 ns, modulo 2**32; for merging only, as syn
        ("syn", "<u4"),  # of the last SYN
    ]
)
"""What is measured of a flow. 64 bytes."""

RECORD = np.dtype([(name, *_spec) for part in (KEY, METRICS) for name, *_spec in part.descr])
"""One Flow Record: ``KEY`` then ``METRICS``. 112 bytes, no padding."""

OPAQUE_RECORD = np.dtype((np.void, RECORD.itemsize))
"""A record as opaque bytes: numpy copies a structured dtype field by field, and this one in one go."""

Records = npt.NDArray[np.void]
"""A one-dimensional array of ``RECORD``."""


@dataclass(frozen=True)
class FlowBatch:
    """Flow Records (shape ``(n,)``, dtype ``RECORD``), the clock pair that dates them, and interfaces' names."""

    records: Records
    clock: ClockPair
    interfaces: InterfaceTable = NO_INTERFACES

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True)
class MessageBlock:
    """Messages ready to send, back to back in one buffer.

    ``ends`` (shape ``(messages,)``, int64): where each one ends in ``buffer``, in bytes.
    ``flows``, ``packets`` and ``octets`` (the same shape and type) say what each Message carries,
    so that an unsent Message is accounted for. They are 0 for Messages that have only templates or options.
    """

    buffer: memoryview
    ends: npt.NDArray[np.int64] = field(repr=False)
    flows: npt.NDArray[np.int64] = field(repr=False)
    packets: npt.NDArray[np.int64] = field(repr=False)
    octets: npt.NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.flows)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The length of each Message in bytes, shape ``(messages,)``."""
        return np.diff(self.ends, prepend=0)

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


def empty(rows: int) -> Records:
    """An array of ``rows`` zeroed Flow Records."""
    return np.zeros(rows, dtype=RECORD)


def concatenate(parts: list[Records]) -> Records:
    """``parts`` as one array; without a copy where there is one part only."""
    filled = [part for part in parts if len(part)]
    if len(filled) == 1:
        return filled[0]
    if not filled:
        return empty(0)
    joined: Records = np.concatenate([part.view(OPAQUE_RECORD) for part in filled]).view(RECORD)
    return joined
