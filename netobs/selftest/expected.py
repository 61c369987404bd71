"""What was sent, and so what must come back: flows with their counts, and packets that belong to no flow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

INGRESS, EGRESS = 0, 1  # IE 61 flowDirection


class Flow(NamedTuple):
    """What tells a flow from others, as its record says it. Of ICMP, ``destination_port`` is type << 8 | code."""

    direction: int
    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    vlan: int = 0

    def __str__(self) -> str:
        vlan = f", VLAN {self.vlan}" if self.vlan else ""
        return (
            f"{'in' if self.direction == INGRESS else 'out'}, {self.source} port {self.source_port} -> "
            f"{self.destination} port {self.destination_port}, protocol {self.protocol}{vlan}"
        )


@dataclass
class Count:
    """Packets on the wire, and octets: of IP in flows, of the frame in the ledger."""

    packets: int = 0
    octets: int = 0

    def add(self, packets: int, octets: int) -> None:
        self.packets += packets
        self.octets += octets

    def __str__(self) -> str:
        return f"{self.packets:,} packets, {self.octets:,} octets"


@dataclass
class Sent(Count):
    """A flow. ``kind``: of traffic, for the operator; ``elements``: what else its records say, by IANA's names."""

    kind: str = ""
    elements: dict[str, Any] = field(default_factory=dict)


class Expected:
    """Adds up what is sent, flow by flow. It knows lengths and headers from who sends; nothing of it is measured."""

    def __init__(self) -> None:
        self.flows: dict[Flow, Sent] = {}
        self.ledger: dict[str, Count] = {}

    def add(self, kind: str, flow: Flow, packets: int, octets: int, elements: dict[str, Any]) -> None:
        """Packets of a flow: ``elements`` are those of each of them."""
        self.flows.setdefault(flow, Sent(kind=kind, elements=elements)).add(packets, octets)

    def add_to_ledger(self, reason: str, packets: int, octets: int) -> None:
        """Packets that belong to no flow; ``reason`` as in the ledger."""
        self.ledger.setdefault(reason, Count()).add(packets, octets)

    @property
    def total(self) -> Count:
        """All packets that pass the hooks."""
        total = Count()
        for count in (*self.flows.values(), *self.ledger.values()):
            total.add(count.packets, count.octets)
        return total
