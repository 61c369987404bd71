"""What waits for one client, bounded by the memory that it takes."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from netobs.pcap.batch import Numbers
from netobs.pcap.server.transport import Transport
from netobs.pcap.vectors import Vectors

ROUND_BYTES = 4 << 20
"""The most that one client is sent before others have their turn."""

_PART_BYTES = 100  # the objects that a part is made of


class _Part(NamedTuple):
    data: bytes
    packets: int


class Outbox:
    """First in, first out. A part counts wholly until its last byte is sent: that is how long it takes memory."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self.most_held_bytes = 0
        self.waiting_packets = 0
        self.sent_packets = 0
        self.sent_bytes = 0
        self._parts: deque[_Part] = deque()
        self._done = 0  # bytes of the first part that are sent

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def room(self) -> int:
        """Bytes that a further part may have."""
        return max(0, self.max_bytes - self.held_bytes - _PART_BYTES)

    def put(self, data: bytes, packets: int = 0) -> None:
        """``data`` waits, with so many packets in it. There is always place for what a stream cannot do without."""
        if data:
            self._parts.append(_Part(data, packets))
            self.waiting_packets += packets
            self.held_bytes += len(data) + _PART_BYTES
            self.most_held_bytes = max(self.most_held_bytes, self.held_bytes)

    def send(self, transport: Transport) -> int:
        """Hand over what ``transport`` takes, ``ROUND_BYTES`` or a little more; how many bytes. Raises OSError."""
        total = 0
        while self._parts and total < ROUND_BYTES:
            data, packets = self._parts[0]
            taken = transport.send(memoryview(data)[self._done :])
            total += taken
            self.sent_bytes += taken
            self._done += taken
            if self._done < len(data):
                if not taken:
                    break
                continue
            self._parts.popleft()
            self._done = 0
            self.held_bytes -= len(data) + _PART_BYTES
            self.waiting_packets -= packets
            self.sent_packets += packets
        return total

    def send_at_once(self, transport: Transport, pieces: Vectors, ends: Numbers) -> int:
        """Hand over what ``transport`` takes of ``pieces``, packets that end at ``ends``, while nothing waits; how many
        bytes. Raises OSError."""
        sent = transport.send_pieces(pieces)
        self.sent_bytes += sent
        self.sent_packets += int(ends.searchsorted(sent, side="right"))
        return sent

    def clear(self) -> None:
        """Nobody is there any more to send it to. ``waiting_packets`` still tells what was not sent."""
        self._parts.clear()
        self.held_bytes = 0
