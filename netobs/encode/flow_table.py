"""Decoded flows as lines of an aligned table, for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from netobs.encode.received import Record

_ICMP = (1, 58)
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 58: "ICMPv6", 89: "OSPF", 132: "SCTP"}
_END_REASONS = {1: "idle", 2: "active", 3: "end", 4: "forced", 5: "resources"}
_DIRECTIONS = {0: "in", 1: "out"}
_TCP_FLAGS = "FSRPAUEC"
_UNITS = ("Milliseconds", "Microseconds", "Nanoseconds", "Seconds")
_MAX_WIDTH = 48
"""An IPv6 address with a port. A damaged Message has values of thousands of digits, and columns never shrink."""
_ISO_US = len("2026-01-01T00:00:00.000000")

_COLUMNS = {
    "start": 24,
    "duration": 10,
    "proto": 6,
    "source": 21,
    "": 2,
    "destination": 21,
    "if": 4,
    "dir": 3,
    "packets": 8,
    "octets": 10,
    "flags": 8,
    "end": 9,
}
_NUMBERS = frozenset(("duration", "if", "packets", "octets"))


class FlowTable:
    """Makes the lines of a table whose columns widen as they must."""

    def __init__(self) -> None:
        self._widths = list(_COLUMNS.values())

    def title(self) -> str:
        return self._line(list(_COLUMNS))

    def row(self, flow: Record) -> str:
        """One flow; "-" where its Template lacks the element."""
        start, duration = _times(flow)
        protocol, flags = _number(flow, "protocolIdentifier"), _number(flow, "tcpControlBits")
        cells = (
            start,
            duration,
            _PROTOCOLS.get(protocol, "-" if protocol < 0 else str(protocol)),
            _endpoint(flow, "source"),
            "->",
            _endpoint(flow, "destination"),
            flow.get("ingressInterface") or flow.get("egressInterface") or "-",
            _DIRECTIONS.get(_number(flow, "flowDirection"), "-"),
            flow.get("packetDeltaCount", "-"),
            flow.get("octetDeltaCount", "-"),
            "".join(letter if flags > 0 and flags >> bit & 1 else "." for bit, letter in enumerate(_TCP_FLAGS)),
            _END_REASONS.get(_number(flow, "flowEndReason"), "-"),
        )
        return self._line([str(cell) for cell in cells])

    def _line(self, cells: Sequence[str]) -> str:
        cells = [cell if len(cell) <= _MAX_WIDTH else cell[: _MAX_WIDTH - 3] + "..." for cell in cells]
        self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells)]
        return " ".join(
            cell.rjust(width) if title in _NUMBERS else cell.ljust(width)
            for title, cell, width in zip(_COLUMNS, cells, self._widths)
        ).rstrip()


def _number(flow: Record, name: str) -> int:
    """The value of an integer element; -1 if it is missing, or came in a field of impossible length."""
    value = flow.get(name)
    return value if isinstance(value, int) else -1


def _endpoint(flow: Record, end: str) -> str:
    """address:port; ICMP has type.code as the port of the destination."""
    address = str(flow.get(f"{end}IPv4Address") or flow.get(f"{end}IPv6Address", "-"))
    port = _number(flow, f"{end}TransportPort")
    is_icmp = _number(flow, "protocolIdentifier") in _ICMP
    if port < 0 or (is_icmp and end == "source"):
        return address
    text = f"{port >> 8}.{port & 0xFF}" if is_icmp else str(port)
    return f"[{address}]:{text}" if ":" in address else f"{address}:{text}"


def _times(flow: Record) -> tuple[str, str]:
    """Start, and duration in seconds, in whichever unit the flow has."""
    for unit in _UNITS:
        start, end = flow.get(f"flowStart{unit}"), flow.get(f"flowEnd{unit}")
        if isinstance(start, str) and isinstance(end, str):
            try:
                first, last = (datetime.fromisoformat(text[:-1][:_ISO_US]) for text in (start, end))
            except ValueError:  # hexadecimal digits: a field of impossible length
                break
            return start, f"{(last - first).total_seconds():.3f}"
    return "-", "-"
