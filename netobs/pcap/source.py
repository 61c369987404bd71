"""Where packets come from: what the server needs of the tap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import Numbers, PacketBatch
from netobs.pcap.selection import Selection


class PacketSource(Protocol):
    """The tap. Its errors are NetobsError."""

    @property
    def backlog_bytes(self) -> int:
        """What the last ``read`` left, for its limit."""

    def fileno(self) -> int:
        """Readable when there are many packets; the same at all times. Who waits for it also reads now and then."""

    def select(self, selection: Selection, now_ns: int) -> int:
        """Capture what it selects; the number of its bit in ``filters`` of the packets."""

    def release(self, bit: int, now_ns: int) -> None:
        """Nobody needs the packets with this bit any more. Those that were not read may be gone."""

    def attach_some(self) -> bool:
        """Go on with what ``select`` and ``release`` have begun. Whether there is more to do, soon."""

    def set_snaplen(self, octets: int) -> None:
        """The most octets of a packet that anybody wants."""

    def read(self, max_bytes: int, now_ns: int) -> PacketBatch:
        """What was captured, as much as about ``max_bytes`` of it. Does not wait."""

    def losses(self, bit: int) -> Mapping[int, int]:
        """Packets of this bit that the kernel had no room for since ``select``, by interface index. Not after
        ``release``."""

    def interfaces(self) -> Sequence[Interface]:
        """Those that are captured now."""

    def known_interfaces(self) -> Mapping[int, Interface]:
        """By index: those that are captured now or were, as packets of these may still come. Not changed later."""

    def capturable(self) -> Sequence[Interface]:
        """Those that are captured while anything is selected. Asks the kernel."""

    def set_own_port(self, port: int) -> None:
        """Where the server listens."""

    def own_stream(self, address: str, port: int) -> None:
        """A client is connected from there: its connection is not captured."""

    def forget_stream(self, address: str, port: int) -> None:
        """It is not any more."""


class ReadContext(NamedTuple):
    """What belongs to a batch: when it was read, how its times become wall-clock times, whose packets it has."""

    now_ns: int
    offset_ns: int
    """CLOCK_REALTIME less CLOCK_MONOTONIC."""
    interfaces: Mapping[int, Interface]
    """By index; also some that are gone by now."""


class Sink(Protocol):
    """Who gets packets."""

    snaplen: int
    """Octets of each packet that it needs."""

    def take(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> None:
        """The packets ``rows`` of ``batch``. The batch is used for others afterwards."""
