"""Distributes packets of the tap to its users: one selection for equal wishes, and none without users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, NamedTuple, Protocol

import numpy as np

from netobs.base import clock
from netobs.base.clock import ClockPair
from netobs.base.loop import EventLoop, Timer
from netobs.base.vectors import Numbers
from netobs.kernel import many
from netobs.kernel.interfaces import Interface
from netobs.kernel.observation_points import RESTORE_NS
from netobs.pcap.batch import PacketBatch
from netobs.pcap.selection import Selection
from netobs.pcap.tap.tap import Tap

READ_BYTES = 960 << 10
"""The most that is read in a round: small enough for short rounds, large enough for a low cost per round. Its results
fit the memory allocator's pool (netobs/base/malloc.py: larger memory comes from the kernel each time)."""
LINGER_NS = clock.NS_PER_S
"""How long the last selection stays without users, so that clients that come and go do not attach again."""
JITTER_NS = 10_000
"""Two readings of the clocks differ by less, unless the wall clock was set or corrected in between. Below it the offset
stays: packets in order keep times in order."""

Losses = Callable[[], Mapping[int, int]]
"""Packets that the kernel had no room for, by interface index."""


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


class Subscription:
    """A selection, and who gets its packets."""

    def __init__(self, tap: Tap, selection: Selection, bit: int) -> None:
        self.selection = selection
        self.bit = bit
        self.sinks: list[Sink] = []
        self._tap = tap

    def losses_from_now(self) -> Losses:
        """What tells how many packets were lost since this call."""
        before = self._tap.losses(self.bit)
        return lambda: dict(self._tap.losses(self.bit) - before)


class Distribution:
    """Reads the tap and hands out what it has. ``read_pair`` is asked for each batch."""

    def __init__(self, tap: Tap, loop: EventLoop, read_pair: Callable[[], ClockPair] = clock.read_pair) -> None:
        self.packets = 0
        """All that were read."""
        self._tap = tap
        self._loop = loop
        self._read_pair = read_pair
        self._offset_ns = 0
        self._subscriptions: dict[Selection, Subscription] = {}
        self._lingering: Timer | None = None
        self._attaching: Timer | None = None
        self._rested_ns = 0
        self._snaplen = 0
        self._last_read_ns = -1

    def subscribe(self, selection: Selection, sink: Sink, now_ns: int) -> Subscription:
        """``sink`` gets what ``selection`` selects. Raises NetobsError."""
        self._set_snaplen(sink.snaplen)
        subscription = self._subscriptions.get(selection)
        if subscription is None:
            bit = self._tap.select(selection, now_ns)
            self._attach(now_ns)
            if not self._subscriptions:
                self._loop.add_reader(self._tap.fileno(), self.read)
            subscription = self._subscriptions[selection] = Subscription(self._tap, selection, bit)
        subscription.sinks.append(sink)
        self._release_unused(now_ns)
        return subscription

    def unsubscribe(self, subscription: Subscription, sink: Sink, now_ns: int) -> None:
        """``sink`` gets no more."""
        subscription.sinks.remove(sink)
        if subscription.sinks or len(self._subscriptions) > 1:
            self._release_unused(now_ns)
        else:
            self._lingering = self._loop.call_at(now_ns + LINGER_NS, self._release_unused)

    def context(self, now_ns: int) -> ReadContext:
        """What belongs to a batch that is read now."""
        pair = self._read_pair()
        offset_ns = pair.realtime_ns - pair.monotonic_ns
        if abs(offset_ns - self._offset_ns) >= JITTER_NS:
            self._offset_ns = offset_ns
        return ReadContext(now_ns, self._offset_ns, self._tap.known_interfaces())

    def read(self, now_ns: int) -> None:
        """Hand out what the tap has, once in a round of the loop, and go on in the next if there is more."""
        if now_ns != self._last_read_ns:
            self._last_read_ns = now_ns
            self.read_more(now_ns)
            if self._tap.backlog_bytes:
                self._loop.call_at(now_ns + 1, self.read)  # not in this round, which is over for us

    def read_more(self, now_ns: int) -> int:
        """Hand out what the tap has; how many packets."""
        if not self._subscriptions:
            return 0
        batch = self._tap.read(READ_BYTES, now_ns)
        if len(batch):
            self.packets += len(batch)
            self._hand_out(batch, self.context(now_ns))
        return len(batch)

    def close(self, now_ns: int) -> None:
        """End all selections."""
        for subscription in self._subscriptions.values():
            subscription.sinks.clear()
        self._release_unused(now_ns)

    def _hand_out(self, batch: PacketBatch, context: ReadContext) -> None:
        filters = batch.meta["filters"]
        for subscription in tuple(self._subscriptions.values()):
            rows = np.flatnonzero(filters & np.uint32(1 << subscription.bit)) if subscription.sinks else ()
            if len(rows):
                for sink in tuple(subscription.sinks):
                    sink.take(batch, np.asarray(rows, dtype=np.int64), context)

    def _release_unused(self, now_ns: int) -> None:
        """End the selections without users: the time of the last one is over, or it is not the last any more."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        for subscription in [each for each in self._subscriptions.values() if not each.sinks]:
            del self._subscriptions[subscription.selection]
            if not self._subscriptions:
                self._loop.remove(self._tap.fileno())
            self._tap.release(subscription.bit, now_ns)
            self._attach(now_ns)
        self._set_snaplen()

    @property
    def is_attaching(self) -> bool:
        """Whether some interfaces have no program yet, or still have one."""
        return self._attaching is not None

    def _attach(self, now_ns: int) -> None:
        """Attach and detach, a slice at a time, with pauses for others."""
        if self._attaching is None:
            self._attaching = self._loop.call_at(max(now_ns, self._rested_ns), self._attach_some)

    def _attach_some(self, now_ns: int) -> None:
        self._attaching, began_ns = None, clock.monotonic_ns()
        is_busy = self._tap.attach_some()
        self._rested_ns = many.rested_ns(began_ns)
        if is_busy:
            self._attach(now_ns)

    def follow_links(self, now_ns: int) -> None:
        """Follow interfaces that came and went: call when ``links`` of the tap is readable."""
        self._tap.follow_links()
        self._attach(now_ns)

    def restore(self, now_ns: int) -> None:
        """Attach again where somebody has removed a filter of ours, and call this again in a while."""
        self._tap.restore()
        self._attach(now_ns)
        self._loop.call_at(now_ns + RESTORE_NS, self.restore)

    def _set_snaplen(self, least: int = 0) -> None:
        """Sets the largest snaplen of any user, in advance."""
        wanted = max([least, *(sink.snaplen for each in self._subscriptions.values() for sink in each.sinks)])
        if wanted and wanted != self._snaplen:
            self._snaplen = wanted
            self._tap.set_snaplen(wanted)
