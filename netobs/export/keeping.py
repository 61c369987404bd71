"""What links and spools need of the state that outlives the process (``netobs.export.kept``), where there is any."""

from __future__ import annotations

import socket
from typing import NamedTuple, Protocol

from netobs.export.protocol import D
from netobs.export.queue import Part
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally


class Amount(NamedTuple):
    """Messages, the Data Records in them, and what these carry; ``bytes`` of Messages."""

    rows: int = 0
    messages: int = 0
    packets: int = 0
    octets: int = 0
    bytes: int = 0


class Spooling(NamedTuple):
    """The ``rows`` from ``at`` on that the disk is being given, as Messages from ``message`` of ``segment`` on."""

    at: int
    rows: int
    segment: int
    message: int


class KeptSocket(Protocol):
    """For a link over UDP."""

    @property
    def port(self) -> int:
        """The source port of the former process, or 0."""

    def former_socket(self) -> socket.socket | None:
        """The socket of the former process, if it was kept."""

    def send(self, sock: socket.socket, block: MessageBlock, start: int, stop: int, tally: Tally) -> int:
        """Send the Messages ``start`` to ``stop`` of ``block``, with ``tally``, in one call; 0, or the errno.

        A later process knows whether it was sent.
        """


class KeptSpool(Protocol[D]):
    """For a spool."""

    @property
    def spool_place(self) -> tuple[int, int]:
        """Number of the segment and of its Message from which on the spool is to be sent; segment 0: unknown."""

    @property
    def doubtful(self) -> tuple[Part[D], Spooling] | None:
        """Rows that the disk was given when the former process ended: it has none, some or all of them."""

    def begin_spooling(self, part: Part[D], segment: int, message: int) -> None:
        """The disk is about to get ``part``, as Messages from ``message`` of ``segment`` on. For the spool's thread."""

    def end_spooling(self, part: Part[D] | None) -> None:
        """The disk has ``part`` now, as the account says; None: it has nothing of it."""
