"""What the Metering and Exporting Processes say about themselves to one collector: the content of options records."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ReportedInterface:
    """An interface that flows refer to. ``description``: its alias, else its name; ``mac``: 6 octets, or none."""

    index: int
    name: str
    description: str = ""
    mac: bytes = b""


@dataclass(frozen=True)
class Losses:
    """What was lost since the start, and when first and last (ns since 1970; 0: never)."""

    flows: int = 0
    packets: int = 0
    octets: int = 0
    first_ns: int = 0
    last_ns: int = 0


@dataclass(frozen=True)
class Exported:
    """What was sent to the collector since the start. ``octets`` are those of the Messages."""

    messages: int = 0
    flows: int = 0
    octets: int = 0


@dataclass(frozen=True)
class Report:
    """Everything at one moment. ``exporting_process``: a number that tells the collectors of a daemon apart.

    ``ignored``: packets that should be in a flow and are in none. ``not_sent``: Flow Records that the collector should
    have got and did not. ``sampling``: one packet in so many is measured, at random.
    """

    interfaces: tuple[ReportedInterface, ...] = ()
    sampling: int = 1
    exporting_process: int = 1
    exported: Exported = field(default_factory=Exported)
    ignored: Losses = field(default_factory=Losses)
    not_sent: Losses = field(default_factory=Losses)


class LossWatch:
    """Turns counters that only grow into ``Losses``: a loss is dated when it is seen first."""

    def __init__(self) -> None:
        self.losses = Losses()

    def observe(self, flows: int, packets: int, octets: int, realtime_ns: int) -> Losses:
        """Take in the counters of now."""
        known = self.losses
        if (flows, packets, octets) != (known.flows, known.packets, known.octets):
            self.losses = Losses(flows, packets, octets, known.first_ns or realtime_ns, realtime_ns)
        return self.losses
