"""Capturing without a daemon: a tap, and one stream of what it has."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Sequence
from typing import Callable

import numpy as np

from netobs.base import clock
from netobs.base.errors import CaptureError
from netobs.base.loop import EventLoop
from netobs.config import PacketCaptureConfig
from netobs.kernel.attach import FilterPlace
from netobs.kernel.interfaces import Interface
from netobs.kernel.observation_points import RESTORE_NS
from netobs.pcap.batch import Numbers, PacketBatch
from netobs.pcap.cli.stream_reader import WholeRecords
from netobs.pcap.cli.tc_handle import own_place
from netobs.pcap.distribution import Distribution, Subscription
from netobs.pcap.formats.records import add_places, counts_by_place
from netobs.pcap.limits import Limits
from netobs.pcap.selection import Filter, Selection
from netobs.pcap.server.channel import common_link, stream_of, untold
from netobs.pcap.source import Moment
from netobs.pcap.tap.tap import Tap

log = logging.getLogger("netobs.pcap")

TURN_NS = 50_000_000
"""How long to wait for packets at most before the caller has its turn."""
STATISTICS_NS = clock.NS_PER_S


def capture(
    config: PacketCaptureConfig,
    chosen: Filter,
    attach: str,
    count: int,
    duration_ns: int,
    stopping: Callable[[], bool],
) -> Generator[bytes | WholeRecords, None, None]:
    """Whole records of a stream in ``config.format`` of what ``chosen`` selects, in pieces, an empty one now and then.

    It ends with ``count`` packets or after ``duration_ns`` (0: neither), or when ``stopping`` says so.

    :raises NetobsError: it cannot be done. The kernel and the interfaces are asked when the first piece is.
    """
    with EventLoop() as loop, own_place() as place, contextlib.closing(_tap(config, attach, place)) as tap:
        distribution = Distribution(tap, loop)
        loop.add_reader(tap.links.fileno(), lambda _now_ns: tap.follow_links())
        start_ns = clock.monotonic_ns()
        _keep_restoring(tap, loop, start_ns)
        stream = _Stream(config, tap.capturable, chosen.text, count, start_ns)
        subscription = distribution.subscribe(Selection(chosen), stream, start_ns)
        yield stream.begin()
        while not (stream.is_full or stopping() or (duration_ns and clock.monotonic_ns() - start_ns >= duration_ns)):
            loop.run_once(TURN_NS)
            now_ns = clock.monotonic_ns()
            distribution.read(now_ns)
            yield from stream.take_pieces()
            yield stream.statistics_if_due(subscription, distribution.moment(now_ns))
        tap.detach()
        while not stream.is_full and distribution.read_more(clock.monotonic_ns()):
            yield from stream.take_pieces()
        yield from stream.take_pieces()
        yield stream.statistics(subscription, distribution.moment(clock.monotonic_ns()))
        if stream.other_link:
            log.warning(
                "%d packets were left out: classic pcap has one link type, pcapng has place for all", stream.other_link
            )


def _tap(config: PacketCaptureConfig, attach: str, place: FilterPlace) -> Tap:
    tap = Tap(config.selector, config.direction, config.buffer_bytes, attach, place)
    try:
        tap.load()
        if not tap.capturable():
            present = ", ".join(interface.name for interface in tap.links.interfaces())
            raise CaptureError(f"no interface is called {', '.join(config.interfaces)}", f"the host has {present}")
    except BaseException:
        tap.close()
        raise
    return tap


def _keep_restoring(tap: Tap, loop: EventLoop, now_ns: int) -> None:
    tap.restore()
    loop.call_at(now_ns + RESTORE_NS, lambda later_ns: _keep_restoring(tap, loop, later_ns))


class _Stream:
    """Takes packets of the one selection that there is, and makes records of them."""

    def __init__(
        self,
        config: PacketCaptureConfig,
        capturable: Callable[[], Sequence[Interface]],
        text: str,
        count: int,
        start_ns: int,
    ) -> None:
        self.snaplen = config.snaplen
        self._capturable = capturable
        self._format = stream_of(config.format, common_link(capturable()), config.snaplen, text)
        self._limits = Limits(count, 0, 0, start_ns)
        self.is_full = False
        """Whether it has as many packets as were asked for."""
        self.other_link = 0
        """Packets that the format has no place for."""
        self._pieces: list[bytes | WholeRecords] = []
        self._sent = np.zeros(0, dtype=np.int64)  # by place of the interface in the stream
        self._dropped = np.zeros(0, dtype=np.int64)  # none: what it takes it keeps
        self._start_ns = start_ns
        self._next_statistics_ns = start_ns + STATISTICS_NS

    def begin(self) -> bytes:
        """What stands in front."""
        return self._format.header()

    def take(self, batch: PacketBatch, rows: Numbers, moment: Moment) -> None:
        """As a Sink of the distribution."""
        records = self._format.records(batch, rows, moment.offset_ns, moment.interfaces)
        self.other_link += len(rows) - len(records)
        allowed = self._limits.allow(records.ends, 0, moment.now_ns)
        self.is_full = self.is_full or bool(allowed.end)
        if not allowed.rows:
            return
        end = int(records.ends[allowed.rows - 1])
        self._limits.spend(end, allowed.rows)
        self._pieces += [records.head, WholeRecords(records.gather(allowed.rows), allowed.rows, end)]
        self._sent = add_places(self._sent, records.sources[: allowed.rows])

    def take_pieces(self) -> list[bytes | WholeRecords]:
        """What was made since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def statistics_if_due(self, subscription: Subscription, moment: Moment) -> bytes:
        """Once in a second."""
        if moment.now_ns < self._next_statistics_ns:
            return b""
        self._next_statistics_ns = moment.now_ns + STATISTICS_NS
        return self.statistics(subscription, moment)

    def statistics(self, subscription: Subscription, moment: Moment) -> bytes:
        """What the filter selected and what was lost, where the format has a place for it."""
        lost = subscription.losses()
        head = self._format.introduce(untold(self._format, moment.interfaces, lost, self._capturable))
        counts = counts_by_place(self._format.interfaces, self._sent, self._dropped, lost)
        offset_ns = moment.offset_ns
        return head + self._format.statistics(counts, self._start_ns + offset_ns, moment.now_ns + offset_ns)
