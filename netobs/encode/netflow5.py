"""NetFlow v5 Messages from IPv4 Flow Records: at most 30 records of 48 bytes, no templates.

The format is Cisco's ("NetFlow Services Solutions Guide", NetFlow Export Datagram Format); there is no RFC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.config.schema import MAX_NETFLOW5_SAMPLING
from netobs.encode.columns import COLUMNS, ETHERTYPES, Column, Fill
from netobs.encode.data_set import DataSet, Encoded, RecordEncoder, check_size, message_block
from netobs.encode.layout_netflow import (
    MAX_NETFLOW5_RECORDS,
    NETFLOW5_HEADER,
    NETFLOW5_VERSION,
    netflow5_template,
)
from netobs.encode.uptime import MAX_U32, Uptime
from netobs.flow.metrics import IPV4
from netobs.flow.records import FlowBatch, MessageBlock
from netobs.flow.report import Report

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_INTERFACE = 0xFFFF
"""Sent for every interface index that does not fit 16 bits. Not 0, which would reverse the direction."""
_RANDOM_SAMPLING = 2 << 14
_U16 = 0xFFFF
_TCP_FLAGS = 0xFF


class Header(NamedTuple):
    """A session's fields of the header. ``sequence``: flows sent before this Message.

    ``clock_offset_ns``: CLOCK_REALTIME minus CLOCK_MONOTONIC.
    """

    export_time_s: int
    sequence: int
    observation_domain: int
    clock_offset_ns: int = 0

    def advance(self, records: int, messages: int = 0) -> Header:
        """The header after ``records`` more flows (the sequence is modulo 2**32)."""
        return self._replace(sequence=(self.sequence + records) & MAX_U32)


class Encoder(RecordEncoder):
    """Builds Messages. Without state. IPv6 flows are ``unencodable``.

    A flow whose counters exceed 32 bits becomes several records. ``clamped`` counts flows whose interface index exceeds
    16 bits and is sent as ``MAX_INTERFACE``. ``boot_ns``: start of the exporter, CLOCK_MONOTONIC. ``sampling``: one
    packet in N is measured, at random; the field holds at most ``MAX_NETFLOW5_SAMPLING``, and 1 without sampling.
    """

    def __init__(self, boot_ns: int, sampling: int = 1) -> None:
        self._uptime = Uptime(boot_ns)
        self._sampling = _RANDOM_SAMPLING | min(sampling, MAX_NETFLOW5_SAMPLING) if sampling > 1 else 1
        super().__init__([netflow5_template()], {**self._uptime.columns(), **_COLUMNS})

    options = ()
    """There are no options records: the header of each Message has the sampling rate."""

    def check(self, max_message_size: int) -> None:
        """Raise TemplateError if a record is too large for ``max_message_size`` bytes."""
        check_size(self.templates[0], NETFLOW5_HEADER.itemsize + self.templates[0].dtype.itemsize, max_message_size)

    def encode(self, batch: FlowBatch) -> Encoded:
        """One Data Set of the IPv4 flows; none if there are none."""
        beyond, ipv4 = batch.records["ifindex"] > MAX_INTERFACE, batch.records["ethertype"] == ETHERTYPES[IPV4]
        return super().encode(batch)._replace(clamped=int(np.count_nonzero(beyond & ipv4)))

    def template_messages(self, header: Header, max_message_size: int) -> list[bytes]:
        """None: the format is fixed."""
        self.check(max_message_size)
        return []

    def announcement(
        self, report: Report, header: Header, max_message_size: int, templates: bool = True
    ) -> list[tuple[bytes, int]]:
        """Nothing: the format is fixed, and has no options records."""
        self.check(max_message_size)
        return []

    def data_messages(self, data_set: DataSet, header: Header, max_message_size: int) -> MessageBlock:
        """``data_set`` as Messages of at most 30 records and ``max_message_size`` bytes.

        The next header is ``header.advance(len(data_set))``. Raises TemplateError if not even one record fits.
        """
        self.check(max_message_size)
        fitting = (max_message_size - NETFLOW5_HEADER.itemsize) // data_set.rows.dtype.itemsize
        return message_block(data_set, min(fitting, MAX_NETFLOW5_RECORDS), lambda counts: self._heads(counts, header))

    def _heads(self, counts: npt.NDArray[np.int64], header: Header) -> npt.NDArray[np.void]:
        heads = np.zeros(len(counts), dtype=NETFLOW5_HEADER)
        heads["version"] = NETFLOW5_VERSION
        heads["count"] = counts
        heads["export_time"], heads["uptime_ms"] = self._uptime.header(header.export_time_s, header.clock_offset_ns)
        heads["sequence"] = (np.cumsum(counts) - counts + header.sequence) & MAX_U32
        heads["engine"] = header.observation_domain & _U16
        heads["sampling"] = self._sampling
        return heads


def _interface(element: str) -> Fill:
    return lambda batch: np.minimum(COLUMNS[element].values(batch), MAX_INTERFACE)


def _nothing(octets: int = 0) -> Column:
    """Zeros: numbers, or octets of this length."""
    return Column(lambda batch: np.zeros((len(batch), octets) if octets else len(batch), dtype=np.uint8))


_COLUMNS = {
    "ingressInterface": Column(_interface("ingressInterface")),
    "egressInterface": Column(_interface("egressInterface")),
    "tcpControlBits": Column(lambda batch: batch.records["tcp_flags"] & _TCP_FLAGS),
    "ipNextHopIPv4Address": _nothing(4),
    "bgpSourceAsNumber": _nothing(),
    "bgpDestinationAsNumber": _nothing(),
    "sourceIPv4PrefixLength": _nothing(),
    "destinationIPv4PrefixLength": _nothing(),
    "paddingOctets": _nothing(2),
}
"""Unmeasured fields are 0: next hop, autonomous systems and prefix lengths."""
