"""The source of packets: the server's view of the tap."""

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
        """Bytes that the last ``read`` left because of its limit."""

    def fileno(self) -> int:
        """Readable when there are many packets; it never changes. Its user must also read now and then."""

    def select(self, selection: Selection, now_ns: int) -> int:
        """Capture what it selects; the number of its bit in ``filters`` of the packets."""

    def release(self, bit: int, now_ns: int) -> None:
        """Ends the use of this bit. Unread packets may be gone."""

    def attach_some(self) -> bool:
        """Go on with what ``select`` and ``release`` have begun. Whether there is more to do, soon."""

    def set_snaplen(self, octets: int) -> None:
        """The largest snaplen of any user."""

    def read(self, max_bytes: int, now_ns: int) -> PacketBatch:
        """Captured packets, up to about ``max_bytes``. Does not wait."""

    def losses(self, bit: int) -> Mapping[int, int]:
        """Packets of this bit that the kernel had no room for since ``select``, by interface index. Not after
        ``release``."""

    def interfaces(self) -> Sequence[Interface]:
        """Those that are captured now."""

    def known_interfaces(self) -> Mapping[int, Interface]:
        """By index: present and former captured interfaces, whose packets may still come. Not changed later."""

    def capturable(self) -> Sequence[Interface]:
        """The interfaces that are captured while anything is selected. Asks the kernel."""

    def set_own_port(self, port: int) -> None:
        """Where the server listens."""

    def own_stream(self, address: str, port: int) -> None:
        """A client is connected from there: do not capture its connection."""

    def forget_stream(self, address: str, port: int) -> None:
        """The client is gone."""


class ReadContext(NamedTuple):
    """The context of a batch: when it was read, the offset of its clock, its interfaces."""

    now_ns: int
    offset_ns: int
    """CLOCK_REALTIME minus CLOCK_MONOTONIC."""
    interfaces: Mapping[int, Interface]
    """By index; also some that are gone by now."""


class Sink(Protocol):
    """A user of packets."""

    snaplen: int
    """Octets of each packet that it needs."""

    def take(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> None:
        """The packets ``rows`` of ``batch``. The batch is used for others afterwards."""
