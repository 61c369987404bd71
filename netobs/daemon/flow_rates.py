"""Exported flows by protocol, interface and direction, for the metrics: added up from the columns of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.daemon.openmetrics import MOST_INTERFACES, OTHERS, SUM_OF_OTHERS, Family, labels
from netobs.flow.interface_key import NETNS_SHIFT
from netobs.flow.interface_names import InterfaceTable
from netobs.flow.records import INSIGHT as INSIGHT_DTYPE
from netobs.flow.records import FlowBatch

if TYPE_CHECKING:
    import numpy.typing as npt

    Counts = npt.NDArray[np.int64]

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmp6": 58, "sctp": 132}
"""Those with a number of their own, by their IANA number; all others are "other"."""
MOST_DENSE = 1 << 17
IDLE_NS = 600 * NS_PER_S
DIRECTIONS = ("ingress", "egress")  # IE 61
INSIGHT = {*(INSIGHT_DTYPE.names or ())}
AMOUNTS = {
    "netobs_flow_records": ("", "Flow Records exported"),
    "netobs_flow_packets": ("packets", "Packets in exported flows"),
    "netobs_flow_octets": ("octets", "IP octets in exported flows"),
    "netobs_tcp_rtt_samples": ("rtt_samples", "Samples of round-trip times in exported flows"),
    "netobs_tcp_rtt_microseconds": ("rtt_sum", "All samples of round-trip times together"),
    "netobs_tcp_retransmitted_packets": ("retransmitted_packets", "Packets that were sent again"),
    "netobs_tcp_out_of_order_packets": ("out_of_order_packets", "Packets that were overtaken on their way"),
    "netobs_tcp_zero_window_packets": ("zero_window_packets", "Packets with a window of 0"),
}
"""Counters: the name, the field of the records that is added up, or none for their number, and HELP. Those of [insight]
have samples for TCP only, and only where it is measured."""
_NAMES = (*PROTOCOLS, "other")
_TCP = _NAMES.index("tcp")
_CELLS = len(DIRECTIONS) * len(_NAMES)
_CLASSES = np.full(256, len(PROTOCOLS), np.intp)
_CLASSES[list(PROTOCOLS.values())] = np.arange(len(PROTOCOLS))


def _dense(table: InterfaceTable) -> npt.NDArray[np.intp] | None:
    """The positions in ``table`` by interface index, the last one for all larger ones; None if that takes much memory,
    or other network namespaces are there."""
    most = int(table.keys[-1]) if len(table.keys) else 0
    if most >= MOST_DENSE:
        return None
    dense = np.full(most + 2, len(table.keys), np.intp)
    dense[table.keys.astype(np.intp)] = np.arange(len(table.keys))
    return dense


class FlowRates:
    """``add`` each batch that is exported; ``families`` are the metrics. At most ``most`` interfaces have counters of
    their own. If more have flows, those that had none for ``IDLE_NS`` give way, and become part of the others."""

    def __init__(self, most: int = MOST_INTERFACES) -> None:
        self._most = most
        self._names: list[tuple[str, str]] = [(OTHERS, "")]  # and namespace, by row
        self._used_ns = np.zeros(1, np.int64)  # by row, as the next two
        self._counts: Counts = np.zeros((len(AMOUNTS), 1, _CELLS), np.int64)
        self._has_insight = False
        self._table: InterfaceTable | None = None
        self._rows: npt.NDArray[np.intp] = np.zeros(1, np.intp)  # by position in the table; -1: none yet
        self._written: tuple[tuple[Counts, Counts], list[str]] = (self._rows[:0], self._rows[:0]), []
        self._dense: npt.NDArray[np.intp] | None = None  # positions in the table by interface index

    def add(self, batch: FlowBatch) -> None:
        """Counts the Flow Records of ``batch``."""
        records, now_ns = batch.records, batch.clock.monotonic_ns
        rows = self._rows_of(records["netns"], records["ifindex"], batch.interfaces, now_ns)
        cells = (rows * len(DIRECTIONS) + (records["direction"] & 1)) * len(_NAMES) + _CLASSES[records["protocol"]]
        size = len(self._names) * _CELLS
        flows = np.bincount(cells, minlength=size).reshape(-1, _CELLS)
        self._used_ns[flows.any(axis=1)] = now_ns
        self._counts[0] += flows
        for number, (field, _) in enumerate(AMOUNTS.values()):
            if field in (records.dtype.names or ()):
                # The weights are float64: exact below 2**53, which no batch reaches.
                sums = np.bincount(cells, weights=records[field], minlength=size)
                self._counts[number] += sums.astype(np.int64).reshape(-1, _CELLS)
        self._has_insight |= "rtt_sum" in (records.dtype.names or ())

    def _rows_of(
        self, netns: npt.NDArray[np.uint16], ifindex: npt.NDArray[np.uint32], table: InterfaceTable, now_ns: int
    ) -> npt.NDArray[np.intp]:
        if table is not self._table:
            self._table, self._rows = table, np.append(np.full(len(table.keys), -1, np.intp), 0)
            self._dense = _dense(table)
        positions = self._positions(netns, ifindex, table)
        rows = self._rows[positions]
        if len(rows) and rows.min() < 0:
            self._find_rows(table, np.unique(positions[rows < 0]), now_ns)
            rows = self._rows[positions]
        return rows

    def _positions(
        self, netns: npt.NDArray[np.uint16], ifindex: npt.NDArray[np.uint32], table: InterfaceTable
    ) -> npt.NDArray[np.intp]:
        """As those of ``table``, but a tenth of the time where all indexes are small."""
        if self._dense is None or netns.any():
            return table.positions(netns, ifindex)
        return self._dense[np.minimum(ifindex, len(self._dense) - 1)]

    def _find_rows(self, table: InterfaceTable, positions: npt.NDArray[np.intp], now_ns: int) -> None:
        """Gives rows to the interfaces at ``positions`` of ``table``, which have none yet; if none is left, that of the
        others."""
        spaces = table.namespaces[table.namespace_positions((table.keys >> np.uint64(NETNS_SHIFT)).astype(np.uint16))]
        wanted = [(table.names[each].decode(), spaces[each].decode()) for each in positions.tolist()]
        if len(self._names) + len({*wanted} - {*self._names}) > self._most + 1:
            self._give_way(now_ns)
        known = {name: row for row, name in enumerate(self._names)}
        for name in wanted:
            if name not in known and len(self._names) <= self._most:
                known[name] = len(self._names)
                self._names.append(name)
        new = len(self._names) - len(self._used_ns)
        self._counts = np.pad(self._counts, ((0, 0), (0, new), (0, 0)))
        self._used_ns = np.pad(self._used_ns, (0, new))
        self._rows[positions] = [known.get(name, 0) for name in wanted]

    def _give_way(self, now_ns: int) -> None:
        """Rows without flows for some time become part of the others."""
        stays = self._used_ns > now_ns - IDLE_NS
        stays[0] = True
        self._counts[:, 0] += self._counts[:, ~stays].sum(axis=1)
        self._counts, self._used_ns = self._counts[:, stays], self._used_ns[stays]
        self._names = [name for name, has_flows in zip(self._names, stays.tolist()) if has_flows]
        self._written = (self._rows[:0], self._rows[:0]), []
        renumbered = np.where(stays, np.cumsum(stays) - 1, -1)
        self._rows = np.where(self._rows < 0, -1, renumbered[self._rows])

    def families(self) -> Iterator[Family]:
        """The metrics: a sample for each combination that has occurred."""
        rows, cells = self._counts[0].nonzero()
        if not np.array_equal((rows, cells), self._written[0]):
            self._written = (rows, cells), self._write(rows.tolist(), cells.tolist())
        is_tcp = (cells % len(_NAMES) == _TCP).tolist()
        for number, (name, (field, about)) in enumerate(AMOUNTS.items()):
            samples = [*zip(self._written[1], self._counts[number][rows, cells].tolist())]
            if field in INSIGHT:
                samples = [*compress(samples, is_tcp)] if self._has_insight else []
            yield Family(name, "counter", about + SUM_OF_OTHERS, samples)

    def _write(self, rows: list[int], cells: list[int]) -> list[str]:
        """Label sets take longer to write than all the rest, and seldom change."""
        ends = [f'direction="{way}",protocol="{name}"}}' for way in DIRECTIONS for name in _NAMES]
        names = {row: self._names[row] for row in rows}
        starts = {row: labels(interface=name, netns=space)[:-1] or "{" for row, (name, space) in names.items()}
        return [f"{starts[row]},{ends[cell]}" for row, cell in zip(rows, cells)]
