"""The queue of one client, bounded in memory."""

from __future__ import annotations

from collections import deque
from typing import Callable

from netobs.pcap.stats import StreamCounts

ROUND_BYTES = 4 << 20
"""The most bytes for one client before others have their turn."""

_PART_BYTES = 100  # memory of the objects of a part


class Outbox:
    """First in, first out. A part counts as a whole until its last byte is sent, because it takes memory until then."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self.most_held_bytes = 0
        self.counts = StreamCounts()
        """What became of what was put in, and of what others count."""
        self._parts: deque[tuple[bytes, int, int]] = deque()  # a part, its bytes that are sent, its packets

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def room(self) -> int:
        """Bytes that a further part may have."""
        return max(0, self.max_bytes - self.held_bytes - _PART_BYTES)

    def put(self, data: bytes, packets: int = 0) -> None:
        """Queues ``data`` with its number of packets. Essential parts of a stream always have a place."""
        if data:
            self._parts.append((data, 0, packets))
            self.counts.waiting += packets
            self.held_bytes += len(data) + _PART_BYTES
            self.most_held_bytes = max(self.most_held_bytes, self.held_bytes)

    def send(self, accept: Callable[[memoryview], int]) -> int:
        """Hand over what ``accept`` takes, up to about ``ROUND_BYTES``; returns the bytes. Raises what it raises."""
        total = 0
        while self._parts and total < ROUND_BYTES:
            data, done, packets = self._parts[0]
            taken = accept(memoryview(data)[done:])
            total += taken
            self.counts.bytes += taken
            if done + taken == len(data):
                self._parts.popleft()
                self.held_bytes -= len(data) + _PART_BYTES
                self.counts.waiting -= packets
                self.counts.sent += packets
            elif taken:
                self._parts[0] = data, done + taken, packets
            else:
                break
        return total

    def clear(self) -> None:
        """The client is gone."""
        self._parts.clear()
        self.counts.not_sent += self.counts.waiting
        self.counts.waiting = 0
        self.held_bytes = 0
