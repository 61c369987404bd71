"""The account of the packet capture agent at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass
class StreamCounts:
    """Counts of the packets selected for one client, or for several. All in packets, except ``bytes``.

    ``sent + waiting + not_sent + queue_full + beyond_rate + other_link`` is the number of packets read for a client;
    ``lost`` packets were selected by the filter, and never read.
    """

    sent: int = 0
    """Accepted by the socket."""
    bytes: int = 0
    """Bytes sent, including headers and statistics."""
    waiting: int = 0
    not_sent: int = 0
    """Waited when the connection broke."""
    queue_full: int = 0
    beyond_rate: int = 0
    other_link: int = 0
    """Classic pcap has one link type: they begin with another kind of header."""
    lost: int = 0
    """In the kernel: the ring buffer of a CPU was full."""

    def __add__(self, other: StreamCounts) -> StreamCounts:
        names = [each.name for each in fields(self)]
        return StreamCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __str__(self) -> str:
        said = f"{self.sent} packets in {self.bytes} bytes sent"
        others = (
            (self.waiting, "waiting"),
            (self.not_sent, "not sent"),
            (self.queue_full, "dropped: the client is too slow"),
            (self.beyond_rate, "dropped: beyond max_rate"),
            (self.other_link, "left out: another link type"),
            (self.lost, "lost: the kernel's buffer was full"),
        )
        return "".join([said, *(f"; {count} {what}" for count, what in others if count)])


@dataclass(frozen=True)
class ClientStats:
    """One client: ``name`` as in the log."""

    name: str
    counts: StreamCounts
    queue_bytes: int
    """Memory of its queue now."""
    most_queue_bytes: int
    """The same, at its highest."""


@dataclass(frozen=True)
class RecorderStats:
    """The flight recorder: what it keeps now, and from how long ago."""

    packets: int
    bytes: int
    max_bytes: int
    age_ns: int


@dataclass(frozen=True)
class PacketCaptureStats:
    """Everything. ``ended`` sums up the clients that are gone."""

    clients: tuple[ClientStats, ...]
    clients_ever: int
    connections_ever: int
    refused: dict[str, int]
    """Connections that got no stream, by reason."""
    packets_read: int
    ended: StreamCounts
    recorder: RecorderStats | None = None
    unlogged: int = 0
    """Streams without a line in the log, because there were too many in a minute."""

    @property
    def total(self) -> StreamCounts:
        """Over all clients that there ever were."""
        return sum((client.counts for client in self.clients), self.ended)

    def lines(self) -> Iterator[str]:
        """The whole account, as lines of the log."""
        yield (
            f"packet capture: {len(self.clients)} clients now, {self.clients_ever} ever, of {self.connections_ever} "
            f"connections; {self.packets_read} packets read"
        )
        if self.unlogged:
            yield f"packet capture: {self.unlogged} streams without a line in the log, as there were so many"
        for reason, count in sorted(self.refused.items()):
            yield f"packet capture: refused, {reason}: {count} connections"
        for client in self.clients:
            yield f"{client.name}: {client.counts}; {client.queue_bytes} bytes wait"
        if self.clients_ever:
            yield f"packet capture, all clients: {self.total}"
        if self.recorder is not None:
            recorder = self.recorder
            yield (
                f"packet recorder: {recorder.packets} packets of the last {recorder.age_ns / 1e9:.1f} s, "
                f"{recorder.bytes} of {recorder.max_bytes} bytes"
            )
