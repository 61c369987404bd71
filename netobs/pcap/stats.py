"""What became of the packets that were selected for clients."""

from __future__ import annotations

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
