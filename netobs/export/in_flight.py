"""Messages under way: those that the link is taking, and those that the collector's host has not acknowledged."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic

from netobs.export.batch import Batch
from netobs.export.protocol import D, H
from netobs.export.queue import Part
from netobs.flow.records import MessageBlock


@dataclass(eq=False, repr=False)
class Shipment(Generic[H, D]):
    """Messages on their way into the socket, the first with ``header``.

    ``part`` came from the queue, ``batch`` from the spool; both are None for templates and options, of which
    ``records`` are Data Records.
    """

    block: MessageBlock
    header: H
    part: Part[D] | None = None
    batch: Batch | None = None
    index: int = 0  # of the next Message
    records: int = 0

    @property
    def is_announcement(self) -> bool:
        return self.part is None and self.batch is None

    def waiting_bytes(self) -> int:
        return self.part.bytes if self.part is not None else 0

    def rows_before(self, index: int) -> int:
        """Data Records in the Messages before the number ``index``."""
        return int(self.block.flows[:index].sum())


@dataclass(eq=False, repr=False)
class Sent(Generic[H, D]):
    """The Messages ``start`` to ``stop`` of a shipment, which the kernel has accepted."""

    shipment: Shipment[H, D]
    start: int
    stop: int


class Unacknowledged(Generic[H, D]):
    """Messages that the kernel has accepted in this Transport Session and the collector's host has not acknowledged.

    The kernel bounds their number, by the congestion window and TCP_NOTSENT_LOWAT.
    """

    def __init__(self) -> None:
        self._sent: deque[Sent[H, D]] = deque()
        self._acknowledged = 0  # acknowledged Messages of the Transport Session

    def __bool__(self) -> bool:
        return bool(self._sent)

    def add(self, shipment: Shipment[H, D], start: int, stop: int) -> None:
        """The kernel has accepted the Messages ``start`` to ``stop`` of ``shipment``."""
        if stop > start:
            self._sent.append(Sent(shipment, start, stop))

    def acknowledge(self, messages: int) -> list[Sent[H, D]]:
        """The first ``messages`` of the Transport Session have arrived; return those that are news."""
        through = []
        news, self._acknowledged = messages - self._acknowledged, messages
        while news > 0:
            oldest = self._sent[0]
            done = min(news, oldest.stop - oldest.start)
            news -= done
            through.append(Sent(oldest.shipment, oldest.start, oldest.start + done))
            oldest.start += done
            if oldest.start == oldest.stop:
                self._sent.popleft()
        return through

    def take_back(self) -> list[tuple[Shipment[H, D], int, int]]:
        """The Transport Session is over: returns the unacknowledged parts, newest first, without templates."""
        left = [(sent.shipment, sent.start, sent.stop) for sent in reversed(self._sent)]
        self._sent.clear()
        self._acknowledged = 0
        return [entry for entry in left if not entry[0].is_announcement]
