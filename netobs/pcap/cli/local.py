"""Captures without a daemon: a tap, and one stream of its packets."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Sequence
from typing import Callable

from netobs.base import clock
from netobs.base.errors import CaptureError
from netobs.base.loop import EventLoop
from netobs.base.vectors import Numbers
from netobs.config import PacketCaptureConfig
from netobs.kernel.attach import FilterPlace
from netobs.kernel.interfaces import Interface
from netobs.kernel.tc_handle import own_place
from netobs.pcap.batch import PacketBatch
from netobs.pcap.distribution import Distribution, Losses, ReadContext
from netobs.pcap.formats import stream_of
from netobs.pcap.formats.stream import common_link
from netobs.pcap.limits import Limits
from netobs.pcap.selection import Filter, Selection
from netobs.pcap.tap.tap import Tap

log = logging.getLogger("netobs.pcap")

TURN_NS = 50_000_000
"""The longest wait for packets before the caller gets control."""
STATISTICS_NS = clock.NS_PER_S
ATTACHED_WITHIN_NS = clock.NS_PER_S
"""Who sees the header of the stream expects all packets from then on. Hundreds of interfaces take longer."""


def capture(
    config: PacketCaptureConfig,
    chosen: Filter,
    attach: str,
    count: int,
    duration_ns: int,
    stopping: Callable[[], bool],
) -> Generator[bytes, None, None]:
    """Whole records of a stream in ``config.format`` with the packets of ``chosen``, in pieces, now and then empty.

    It ends with ``count`` packets or after ``duration_ns`` (0: neither), or when ``stopping`` says so.

    :raises NetobsError: it is not possible. The first piece asks the kernel and the interfaces.
    """
    with EventLoop() as loop, own_place() as place, contextlib.closing(_tap(config, attach, place)) as tap:
        distribution = Distribution(tap, loop)
        loop.add_reader(tap.links.fileno(), distribution.follow_links)
        start_ns = clock.monotonic_ns()
        distribution.restore(start_ns)
        sink = _Sink(config, tap.capturable, chosen.text, count)
        losses = distribution.subscribe(Selection(chosen), sink, start_ns).losses_from_now()
        is_late = clock.is_over_in(ATTACHED_WITHIN_NS)
        while distribution.is_attaching and not (stopping() or is_late()):
            loop.run_once(TURN_NS)
        yield sink.stream.header()
        while not (sink.is_full or stopping() or (duration_ns and clock.monotonic_ns() - start_ns >= duration_ns)):
            loop.run_once(TURN_NS)
            now_ns = clock.monotonic_ns()
            distribution.read(now_ns)
            yield from sink.take_pieces()
            yield sink.statistics(losses, distribution.context(now_ns))
        tap.detach()
        while not sink.is_full and distribution.read_more(clock.monotonic_ns()):
            yield from sink.take_pieces()
        yield from sink.take_pieces()
        yield sink.statistics(losses, distribution.context(clock.monotonic_ns()), is_last=True)
        if sink.stream.other_link:
            log.warning(
                "%d packets were left out: classic pcap has one link type, pcapng has place for all",
                sink.stream.other_link,
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


class _Sink:
    """Makes records from the packets of the only selection."""

    def __init__(
        self, config: PacketCaptureConfig, capturable: Callable[[], Sequence[Interface]], text: str, count: int
    ) -> None:
        now_ns = clock.monotonic_ns()
        self.snaplen = config.snaplen
        link = common_link(capturable())
        self.stream = stream_of(config.format, link, config.snaplen, text, {}, capturable, now_ns)
        self._limits = Limits(count, 0, 0, now_ns)
        self.is_full = False
        """Whether it has the requested number of packets."""
        self._pieces: list[bytes] = []
        self._next_statistics_ns = now_ns + STATISTICS_NS

    def take(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> None:
        """As a Sink of the distribution."""
        records = self.stream.records(batch, rows, context)
        allowed = self._limits.allow(records.ends, 0, context.now_ns)
        self.is_full = self.is_full or bool(allowed.end)
        if allowed.rows:
            self._limits.spend(int(records.ends[allowed.rows - 1]), allowed.rows)
            self._pieces += [records.head, records.gather(allowed.rows).join()]
            self.stream.count(records, allowed.rows)

    def take_pieces(self) -> list[bytes]:
        """The records since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def statistics(self, losses: Losses, context: ReadContext, is_last: bool = False) -> bytes:
        """Once in a second, and at the end: what the filter selected and what was lost, where the format says it."""
        if context.now_ns < self._next_statistics_ns and not is_last:
            return b""
        self._next_statistics_ns = context.now_ns + STATISTICS_NS
        lost = losses()
        return self.stream.introduction(lost) + self.stream.statistics(lost, context)
