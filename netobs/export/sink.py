"""The interface between the router and an exporter: a session of IPFIX or NetFlow, or another kind of sink.

``netobs.daemon.protocols`` has the sinks by protocol.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from netobs.base.clock import ClockPair
from netobs.export.queue import Part
from netobs.export.stats import ExportStats


class Reach(enum.Enum):
    """Whether a collector can be reached, as far as we know. Policies read no other state."""

    CONNECTING = enum.auto()  # the first attempt has not finished
    UP = enum.auto()  # it seems to accept data
    SUSPECT = enum.auto()  # data can be sent, but seem not to arrive
    DOWN = enum.auto()  # no data can be sent; attempts continue

    @property
    def is_open(self) -> bool:
        """Whether data can be sent."""
        return self in (Reach.UP, Reach.SUSPECT)

    def after(self, event: Event) -> Reach:
        """The state after ``event``."""
        return _AFTER.get((self, event), self)


class Event(enum.Enum):
    """Changes of a ``Reach``."""

    OPENED = enum.auto()  # a Transport Session started
    FAILED = enum.auto()  # an attempt to start one failed
    REFUSED = enum.auto()  # an error came back for sent data
    CLEARED = enum.auto()  # no error came back for long enough
    LOST = enum.auto()  # the Transport Session ended


_AFTER = {
    (Reach.CONNECTING, Event.OPENED): Reach.UP,
    (Reach.CONNECTING, Event.FAILED): Reach.DOWN,
    (Reach.UP, Event.REFUSED): Reach.SUSPECT,
    (Reach.UP, Event.LOST): Reach.DOWN,
    (Reach.SUSPECT, Event.OPENED): Reach.UP,
    (Reach.SUSPECT, Event.CLEARED): Reach.UP,
    (Reach.SUSPECT, Event.LOST): Reach.DOWN,
    (Reach.DOWN, Event.OPENED): Reach.UP,
}
"""All other events change nothing."""


class Trouble(NamedTuple):
    """The last error of a sink, and when it happened (CLOCK_MONOTONIC)."""

    text: str
    at_ns: int


class SinkState(NamedTuple):
    """What is known of a sink beside its account. ``address``: as in the log; None: no name is resolved yet.

    ``since_ns``: since when its reach is what it is (CLOCK_MONOTONIC). ``sequence``: the Sequence Number of the next
    Message. ``spool_bytes``: the files of the spool; None without one.
    """

    address: str | None
    since_ns: int
    sequence: int
    queue_bytes: int
    spool_bytes: int | None
    last_error: Trouble | None


class Sink(Protocol):
    """Exports to one collector. No call blocks. The collector's encoder has made the Data Sets.

    ``str()`` is the name of the collector in the log.
    """

    @property
    def account(self) -> ExportStats:
        """The account of every flow so far."""

    @property
    def reach(self) -> Reach: ...

    @property
    def state(self) -> SinkState:
        """Its state now."""

    @property
    def closed(self) -> bool:
        """Whether ``close`` has finished."""

    def open(self, clock: ClockPair, now_ns: int) -> None:
        """Start to connect to the collector."""

    def see_clock(self, clock: ClockPair) -> None:
        """Sets the present clocks: the wall clock may have been set."""

    def hold(self, held: bool) -> None:
        """Sets whether flows wait while the collector is suspect, instead of being sent without success."""

    @property
    def last_batch(self) -> int:
        """The number of the last batch that ``send`` has taken, in this process or the one before; 0: unknown."""

    def send(self, data_sets: Sequence[Any], clock: ClockPair, now_ns: int, number: int = 0) -> None:
        """Export ``data_sets``, now or when the collector accepts them. They must not be changed afterwards.

        ``number``: of the batch that they were made of, or 0.
        """

    def options_changed(self, now_ns: int) -> None:
        """The daemon's report about itself (``netobs.flow.report``) has changed."""

    def surrender(self, now_ns: int) -> list[Part[Any]]:
        """Give up what waits, if the collector is not up."""

    def hand_over(self, given: Sequence[Part[Any]]) -> None:
        """What it gave up belongs to another sink now, also for the next process."""

    @property
    def origin(self) -> tuple[int, int]:
        """What the next process needs to recognise what this sink has given up: see ``take_over``."""

    def take_over(self, source: Any, now_ns: int) -> None:
        """Export what waits for another collector with the same encoder, whose sink ``source`` is not up.

        Killed at any time, the next process has each flow with one of the two.
        """

    def close(self, now_ns: int, deadline_ns: int) -> None:
        """Send the waiting Data Sets, until ``deadline_ns`` or a little later; the rest counts as not sent."""

    def suspend(self, now_ns: int, deadline_ns: int) -> None:
        """Send nothing any more: the next process goes on with what waits, if that is kept, else as ``close``.

        ``closed`` becomes true when everything that was sent is acknowledged, or at ``deadline_ns`` or a little later.
        """
