"""Decoded flows as lines of an aligned table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from netobs.collector.received import Record

_ICMP = (1, 58)
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 58: "ICMPv6", 89: "OSPF", 132: "SCTP"}
_END_REASONS = {1: "idle", 2: "active", 3: "end", 4: "forced", 5: "resources"}
_DIRECTIONS = {0: "in", 1: "out"}
_TCP_FLAGS = "FSRPAUEC"
_TIMES = tuple(
    (f"flowStart{unit}", f"flowEnd{unit}") for unit in ("Milliseconds", "Microseconds", "Nanoseconds", "Seconds")
)
_UPTIMES = ("flowStartSysUpTime", "flowEndSysUpTime")
_EVENTS = tuple(f"observationTime{unit}" for unit in ("Milliseconds", "Microseconds", "Nanoseconds", "Seconds"))
_INTERFACES = ("ingressInterface", "egressInterface")
_PACKETS = ("packetDeltaCount", "packetTotalCount", "initiatorPackets", "postPacketDeltaCount")
_OCTETS = ("octetDeltaCount", "octetTotalCount", "initiatorOctets", "postOctetDeltaCount")
"""Firewalls (Cisco ASA) count the initiator's part of a connection; some switches count what they send."""
_ADDRESSES = {end: (f"{end}IPv4Address", f"{end}IPv6Address") for end in ("source", "destination")}
_PORTS = {end: f"{end}TransportPort" for end in ("source", "destination")}
_ICMP_BOTH = ("icmpTypeCodeIPv4", "icmpTypeCodeIPv6")
_ICMP_PARTS = (("icmpTypeIPv4", "icmpCodeIPv4"), ("icmpTypeIPv6", "icmpCodeIPv6"))
_MAX_U32 = 0xFFFFFFFF
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
        self._format = ""

    def title(self) -> str:
        return self._line(list(_COLUMNS))

    def row(self, flow: Record) -> str:
        """One flow; "-" where its Template lacks the element."""
        start, duration = _times(flow)
        protocol = _number(flow, "protocolIdentifier")
        return self._line(
            [
                start,
                duration,
                _PROTOCOLS.get(protocol) or ("-" if protocol < 0 else str(protocol)),
                _endpoint(flow, "source", protocol),
                "->",
                _endpoint(flow, "destination", protocol),
                str(_first(flow, _INTERFACES) or "-"),
                _DIRECTIONS.get(_number(flow, "flowDirection"), "-"),
                str(_first(flow, _PACKETS)),
                str(_first(flow, _OCTETS)),
                _flags(_number(flow, "tcpControlBits")),
                _END_REASONS.get(_number(flow, "flowEndReason"), "-"),
            ]
        )

    def _line(self, cells: Sequence[str]) -> str:
        widths = [len(cell) for cell in cells]
        if not self._format or any(map(int.__gt__, widths, self._widths)):
            cells = [cell if len(cell) <= _MAX_WIDTH else cell[: _MAX_WIDTH - 3] + "..." for cell in cells]
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells)]
            self._format = " ".join(
                f"%{'' if title in _NUMBERS else '-'}{width}s" for title, width in zip(_COLUMNS, self._widths)
            )
        return (self._format % tuple(cells)).rstrip()


def _first(flow: Record, names: Sequence[str]) -> Any:
    """The first value of these elements that is not 0; else 0, or "-" if the flow has none of them."""
    found: Any = "-"
    for name in names:
        value = flow.get(name)
        if value:
            return value
        if value == 0:
            found = 0
    return found


@lru_cache(maxsize=1024)
def _flags(flags: int) -> str:
    return "".join(letter if flags > 0 and flags >> bit & 1 else "." for bit, letter in enumerate(_TCP_FLAGS))


def _number(flow: Record, name: str) -> int:
    """The value of an integer element; -1 if it is missing, or came in a field of impossible length."""
    value = flow.get(name)
    return value if isinstance(value, int) else -1


def _endpoint(flow: Record, end: str, protocol: int) -> str:
    """address:port; ICMP has type.code as the port of the destination."""
    ipv4, ipv6 = _ADDRESSES[end]
    address = flow.get(ipv4) or flow.get(ipv6) or "-"
    port = _number(flow, _PORTS[end])
    text = str(port) if port >= 0 else ""
    if protocol in _ICMP:
        text = _icmp(flow, port) if end == "destination" else ""
    if not text:
        return str(address)
    return f"[{address}]:{text}" if ":" in str(address) else f"{address}:{text}"


def _icmp(flow: Record, port: int) -> str:
    """type.code, from any element that the exporter has filled; many fill only the port, and have 0 elsewhere."""
    for name in _ICMP_BOTH:
        port = _number(flow, name) if port <= 0 and name in flow else port
    if port <= 0:
        for name, code in _ICMP_PARTS:
            if name in flow:
                kind = _number(flow, name)
                return f"{kind}.{max(_number(flow, code), 0)}" if kind >= 0 else ""
    return f"{port >> 8}.{port & 0xFF}" if port >= 0 else ""


def _times(flow: Record) -> tuple[str, str]:
    """Start, and duration in seconds, in whichever unit the flow has; an event has a time and no duration."""
    for first, last in _TIMES:
        start = flow.get(first)
        if isinstance(start, str) and start[-1:] == "Z":
            end = flow.get(last)
            if isinstance(end, str):
                return start, _seconds_between(start, end)
            ms = _number(flow, "flowDurationMilliseconds")
            return start, f"{ms / 1000:.3f}" if ms >= 0 else "-"
    start_ms, end_ms = (_number(flow, name) for name in _UPTIMES)
    duration = f"{(end_ms - start_ms & _MAX_U32) / 1000:.3f}" if min(start_ms, end_ms) >= 0 else "-"
    event = _first(flow, _EVENTS)
    return event if isinstance(event, str) and event[-1:] == "Z" else "-", duration


@lru_cache(maxsize=256)
def _seconds_between(start: str, end: str) -> str:
    try:
        first, last = (datetime.fromisoformat(text[:-1][:_ISO_US]) for text in (start, end))
    except ValueError:  # hexadecimal digits: a field of impossible length
        return "-"
    return f"{(last - first).total_seconds():.3f}"
