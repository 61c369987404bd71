"""One collector, one Transport Session at a time: sequence, templates, Export Time, and the account of every flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Generic

from netobs.clock import NS_PER_S
from netobs.errors import TemplateError
from netobs.export.announcer import Announcer
from netobs.export.link import Failure, Link, Progress, State, log
from netobs.export.protocol import D, Encoder, H
from netobs.export.queue import DataSetQueue, row_bytes
from netobs.export.stats import ExportStats, Tally
from netobs.export.tcp import TcpLink
from netobs.export.tls import TlsLink
from netobs.export.udp import UdpLink
from netobs.loop import EventLoop, Timer
from netobs.records import ClockPair, MessageBlock
from netobs.report import Report

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

_LINKS: dict[str, type[Link]] = {"udp": UdpLink, "tcp": TcpLink, "tls": TlsLink}
_PART_BYTES = 524_288
"""Data Records that become Messages at once: small enough for the cache and for memory, large enough for numpy."""
_FAILING_PART_BYTES = 65_536
"""The same while the collector does not take Messages: each part has the Templates in front."""


@dataclass
class _Shipment(Generic[H, D]):
    """Messages on their way into the socket, the first with ``header``. ``data_set`` is None for templates, options."""

    block: MessageBlock
    header: H
    data_set: D | None = None
    index: int = 0  # of the next Message
    since_ns: int = 0  # when the rows of ``data_set`` began to wait

    def waiting_bytes(self) -> int:
        return len(self.data_set) * row_bytes(self.data_set) if self.data_set is not None else 0


class TransportSession(Generic[H, D]):
    """Exports to the collector of ``config``, over one Transport Session after another.

    ``new_header(export_time_s, sequence, observation_domain)`` makes a header as ``encoder`` wants it. Nothing here
    blocks. Timers and sockets are driven by ``loop``; ``send`` hands in what is to be exported. A collector that is
    down costs at most ``queue_max_bytes`` of memory, then the oldest flows, which are counted.
    ``report(realtime_ns)`` gives what the options records say.

    Messages that could not be sent over UDP leave a gap in the Sequence Numbers, so the collector knows of them too.
    """

    def __init__(
        self,
        config: CollectorConfig,
        encoder: Encoder[H, D],
        new_header: Callable[[int, int, int], H],
        loop: EventLoop,
        report: Callable[[int], Report] = lambda _realtime_ns: Report(),
    ) -> None:
        self.stats = ExportStats()
        self.closed = False
        """Whether ``close`` has finished."""
        self.holds = False
        """Whether flows wait while the link is failing, where otherwise they are sent in vain; see ``probe``."""
        self._config = config
        self._encoder = encoder
        self._new_header = new_header
        self._header = new_header(0, 0, config.observation_domain)
        self._clock = ClockPair(0, 0)
        self._loop = loop
        self._link = _LINKS[config.transport](config, loop, self, self.stats)
        self._queue: DataSetQueue[D] = DataSetQueue()
        self._part_bytes = min(_PART_BYTES, config.queue_max_bytes // 2)
        self._announcer = Announcer(config, encoder, report, loop, self._pump)
        self._shipment: _Shipment[H, D] | None = None
        self._message_size = config.max_message_size
        self._said_too_large = False
        self._closing = False
        self._deadline_timer: Timer | None = None

    def __str__(self) -> str:
        return str(self._link)

    @property
    def ready(self) -> bool:
        """Whether the first attempt was made: over UDP the templates are out, over TCP a connection was tried.

        A collector that is down makes a session ready too: nothing else waits for it.
        """
        return self._link.tried

    @property
    def available(self) -> bool:
        """Whether the collector takes Messages, as far as one knows: connected; over UDP, none was refused."""
        return self._link.up and not self._link.failing

    @property
    def failing(self) -> bool:
        """Whether Messages are sent and seem not to arrive (UDP: refused, no route, not permitted)."""
        return self._link.failing

    def open(self, clock: ClockPair, now_ns: int) -> None:
        """Begin the first Transport Session, now if ``host`` is an address, else when its name is resolved."""
        self._clock = clock
        self._link.open(now_ns)

    def send(self, data_sets: Sequence[D], clock: ClockPair, now_ns: int) -> None:
        """Export ``data_sets``, now or when the collector takes them. They must not be changed afterwards."""
        self._clock = clock
        for data_set in data_sets:
            tally = Tally.of(data_set)
            self.stats.see(tally)
            if self._closing:
                self.stats.count_not_sent("closed", tally)
            else:
                self._queue.append(data_set, now_ns)
        if self._link.failing:
            self._announcer.require(options=False)  # should the collector be back, then these flows are its first
        self._pump(now_ns)
        self._trim()

    def surrender(self) -> list[tuple[D, int]]:
        """Give up what waits for a collector that is not ``available``, for another one: Data Sets, and since when."""
        self._take_back()
        given = self._queue.give_away()
        for data_set, _ in given:
            self.stats.move_away(Tally.of(data_set))
        return given

    def take_over(self, given: Sequence[tuple[D, int]], now_ns: int) -> None:
        """Export what another session of the same encoder has given up."""
        for data_set, _ in given:
            self.stats.move_in(Tally.of(data_set))
        self._queue.merge(given)
        self._pump(now_ns)
        self._trim()

    def probe(self, now_ns: int) -> None:
        """Ask a collector that refuses (over UDP), and whose flows are held, whether it is back: by Templates."""
        if self._held and not self._closing:
            self._announcer.require(options=False)
            self._pump(now_ns)
            if not self._encoder.template_messages(self._header, self._message_size):
                self._link.probe(now_ns)

    def options_changed(self, now_ns: int) -> None:
        """What the options records say is different now: they are sent again, at most once a second."""
        if self._link.up and not self._closing:
            self._announcer.changed(now_ns)

    def close(self, now_ns: int, deadline_ns: int) -> None:
        """Send what waits; ``closed`` becomes true when it is sent, or cannot be, or at ``deadline_ns``.

        The loop must go on running until then. What was not sent is counted as ``closed``.
        """
        if self._closing:
            return
        self._closing = True
        self._announcer.stop()
        self._deadline_timer = self._loop.call_at(deadline_ns, self._finish)
        self._link.hurry(now_ns)
        if not self.closed:
            self._pump(now_ns)

    def on_up(self, now_ns: int) -> None:
        self._header = self._new_header(self._header.export_time_s, 0, self._config.observation_domain)
        self._fit_message_size()
        self._announcer.start(now_ns)
        if self._closing:
            self._announcer.stop()
        self._pump(now_ns)

    def on_down(self) -> None:
        self._take_back()
        self._announcer.stop()

    def on_writable(self, now_ns: int) -> None:
        self._pump(now_ns)

    def on_recovered(self, now_ns: int) -> None:
        self._announcer.require()
        self._pump(now_ns)

    def on_unreachable(self, now_ns: int) -> None:
        if self._closing:
            self._finish(now_ns)

    def _pump(self, now_ns: int) -> None:
        """Send until all is sent or the link takes no more for now. What would not fit the queue is not held back."""
        self.stats.count_not_sent("queue_age", self._queue.expire(now_ns - self._config.queue_max_age_ns))
        while self._link.up:
            if self._held and self._shipment is not None and self._shipment.data_set is not None:
                self._take_back()
            self._link.waiting_bytes = self._queue.bytes
            self._link.paced = self._queue.bytes <= self._config.queue_max_bytes // 2
            shipment = self._shipment or self._load(now_ns)
            self._shipment = shipment
            if shipment is None:
                self._link.wait_writable(False, now_ns)
                break
            progress = self._link.push(shipment.block, shipment.index, now_ns)
            self._account(shipment, progress)
            if progress.state is State.DONE:
                self._shipment = None
            elif progress.state is State.TOO_LARGE:
                self._shorten(shipment)
            elif progress.state is State.BLOCKED:
                self._link.wait_writable(True, now_ns)
                return
            else:
                self._link.disconnect(progress.reason, now_ns)
                return
        if self._closing and self._shipment is None and (not self._queue or self._held):
            self._finish(now_ns)

    @property
    def _held(self) -> bool:
        return self.holds and self._link.failing

    def _trim(self) -> None:
        waiting = self._shipment.waiting_bytes() if self._shipment else 0
        self.stats.count_not_sent("queue_full", self._queue.trim(self._config.queue_max_bytes - waiting))

    def _load(self, now_ns: int) -> _Shipment[H, D] | None:
        """The next Messages to send, templates before data. They are made now, with the present header."""
        realtime_ns = self._clock.realtime_ns + now_ns - self._clock.monotonic_ns
        export_time_s = max(
            self._header.export_time_s, realtime_ns // NS_PER_S
        )  # never backwards: RFC 7011, section 8.2
        header = self._new_header(export_time_s, self._header.sequence, self._config.observation_domain)
        self._header = header
        if self._announcer.due:
            self._fit_message_size()
            announced = self._announcer.take(header, self._message_size, now_ns, realtime_ns)
            if announced is not None:
                self._header = header.advance(announced.records, 1)
                return _Shipment(announced.block(), header)
        if not self._queue or self._held:
            return None
        shipment = self._load_data(header, self._queue.oldest_ns)
        self._announcer.count(len(shipment.block))
        if self._link.failing:  # the collector may come back at any time, and what it gets first must be readable
            self._announcer.require(options=False)
        return shipment

    def _load_data(self, header: H, since_ns: int) -> _Shipment[H, D]:
        left = self._announcer.messages_left
        most = _FAILING_PART_BYTES if self._link.failing else _PART_BYTES
        part = self._queue.take(min(self._part_bytes, most, left * self._message_size))
        block = self._encoder.data_messages(part, header, self._message_size)
        if len(block) > left:  # a guess that was too high: Messages are not filled to the end
            rows = int(block.flows[:left].sum())
            self._queue.put_back(part.slice(rows, len(part)), since_ns)
            part = part.slice(0, rows)
            block = self._encoder.data_messages(part, header, self._message_size)
        self._header = header.advance(len(part), len(block))
        return _Shipment(block, header, part, since_ns=since_ns)

    def _account(self, shipment: _Shipment[H, D], progress: Progress) -> None:
        block, start, stop = shipment.block, shipment.index, progress.done
        sent, messages = Tally.of_messages(block, start, stop), stop - start
        sent_bytes = block.end(stop) - block.end(start)
        for failure in progress.failures:
            lost = Tally.of_messages(block, failure.start, failure.stop)
            self.stats.count_not_sent(failure.reason, lost)
            sent -= lost
            messages -= failure.stop - failure.start
            sent_bytes -= block.end(failure.stop) - block.end(failure.start)
        self.stats.count_sent(sent)
        self.stats.bytes += sent_bytes
        if shipment.data_set is None:
            self.stats.template_messages += messages
        else:
            self.stats.messages += messages
        shipment.index = stop

    def _shorten(self, shipment: _Shipment[H, D]) -> None:
        """The next Message exceeds the path MTU: go on with shorter ones, or without it if there is no shorter."""
        if self._fit_message_size():
            self._take_back()
            return
        if not self._said_too_large:
            self._said_too_large = True
            log.warning("%s: Messages of %d bytes exceed the path MTU and are counted as not sent; "
                        "set a smaller max_message_size", self, self._message_size)  # fmt: skip
        skipped = Progress(shipment.index + 1, State.DONE, (Failure(shipment.index, shipment.index + 1, "EMSGSIZE"),))
        self._account(shipment, skipped)
        if shipment.index == len(shipment.block):
            self._shipment = None

    def _fit_message_size(self) -> bool:
        """Follow the path MTU, as far as Templates and Data Records allow. Whether Messages are shorter than before."""
        before, size = self._message_size, self._link.message_size()
        if size == before:
            return False
        try:
            self._encoder.template_messages(self._header, size)
        except TemplateError:
            return False
        self._message_size = size
        if size < before:
            log.warning("%s: max_message_size %d exceeds the path MTU: Messages have at most %d bytes now", self,
                        self._config.max_message_size, size)  # fmt: skip
        return size < before

    def _take_back(self) -> None:
        """What is not wholly sent waits again, and gets its place in the sequence when it is sent."""
        shipment, self._shipment = self._shipment, None
        if shipment is None:
            return
        if shipment.data_set is None:
            self._announcer.take_back()
            self._header = shipment.header
            return
        done = int(shipment.block.flows[: shipment.index].sum())
        self._queue.put_back(shipment.data_set.slice(done, len(shipment.data_set)), shipment.since_ns)
        self._header = shipment.header.advance(done, shipment.index)

    def _finish(self, _now_ns: int) -> None:
        if self.closed:
            return
        self.closed = True
        self._take_back()
        self.stats.count_not_sent("closed", self._queue.trim(0))
        self._announcer.stop()
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._link.close()
