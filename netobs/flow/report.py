"""Reports of the Metering and Exporting Processes to one collector: the content of options records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class ReportedInterface:
    """An interface that flows refer to. ``description``: its alias, or its name; ``mac``: 6 octets, or empty.
    ``netns``: number of its network namespace, 0 = the first."""

    index: int
    name: str
    description: str = ""
    mac: bytes = b""
    netns: int = 0


class Losses(NamedTuple):
    """Losses since the start, and the times of the first and the last (ns since 1970; 0: never)."""

    flows: int = 0
    packets: int = 0
    octets: int = 0
    first_ns: int = 0
    last_ns: int = 0


class Exported(NamedTuple):
    """Amounts sent to the collector since the start. ``octets`` counts whole Messages."""

    messages: int = 0
    flows: int = 0
    octets: int = 0


class Report(NamedTuple):
    """The whole report at one moment. ``exporting_process``: a number that tells the collectors of a daemon apart.

    ``ignored``: packets that should be in a flow and are in none. ``not_sent``: Flow Records that the collector should
    have received and did not. ``sampling`` N: one packet in N is measured, at random. ``namespaces``: names of
    network namespaces by number; None if none are followed.
    """

    interfaces: tuple[ReportedInterface, ...] = ()
    sampling: int = 1
    exporting_process: int = 1
    exported: Exported = Exported()
    ignored: Losses = Losses()
    not_sent: Losses = Losses()
    namespaces: Mapping[int, str] | None = None


class LossWatch:
    """Turns counters that only grow into ``Losses``. A loss has the time at which it is first seen."""

    def __init__(self) -> None:
        self.losses = Losses()

    def observe(self, flows: int, packets: int, octets: int, realtime_ns: int) -> Losses:
        """Read the present counters."""
        known = self.losses
        if (flows, packets, octets) != (known.flows, known.packets, known.octets):
            self.losses = Losses(flows, packets, octets, known.first_ns or realtime_ns, realtime_ns)
        return self.losses
