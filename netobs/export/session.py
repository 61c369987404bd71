"""One collector, one Transport Session at a time: sequence, templates, Export Time, and the account of every flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Generic

from netobs.base.clock import NS_PER_S, ClockPair
from netobs.base.errors import TemplateError
from netobs.base.loop import POLL_NS, EventLoop, Timer
from netobs.export.announcer import Announcer
from netobs.export.headers import Headers
from netobs.export.in_flight import Shipment
from netobs.export.link.link import Failure, Link, Progress, State, log
from netobs.export.link.tcp import TcpLink
from netobs.export.link.tls import TlsLink
from netobs.export.link.udp import UdpLink
from netobs.export.protocol import D, Encoder, H
from netobs.export.stats import ExportStats
from netobs.export.unsent import Waiting
from netobs.flow.report import Report
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

_LINKS: dict[str, type[Link]] = {"udp": UdpLink, "tcp": TcpLink, "tls": TlsLink}
_PART_BYTES = 524_288
"""Data Records that become Messages at once: small enough for the cache and for memory, large enough for numpy."""
_FAILING_PART_BYTES = 65_536
"""The same while the collector refuses Messages: the Templates precede each part."""
START_WITHIN_S = 5.0
"""How long the start waits for the disk of a spool, to notice mistakes and other processes that use it."""
DISK_NS = NS_PER_S
"""How long the end waits for the disk of a spool."""
PROBE_NS = NS_PER_S
"""How often Templates probe a UDP collector that is down, while its flows go to the spool."""
STALL_NS = 2 * NS_PER_S
"""A collector that has accepted nothing for this long counts as down: with a spool, flows wait there."""


class TransportSession(Generic[H, D]):
    """Exports to the collector of ``config``, over one Transport Session after another.

    ``new_header(export_time_s, sequence, observation_domain, clock_offset_ns)`` makes a header for ``encoder``. Nothing
    here blocks. ``loop`` drives timers and sockets; ``send`` takes the data to export. A collector that is down costs
    at most ``queue_max_bytes`` of memory; then the oldest flows are dropped and counted. ``report(realtime_ns)``
    returns the content of options records.

    Unsent Messages over UDP leave a gap in the Sequence Numbers, so the collector learns of them. Unacknowledged data
    of a broken connection go into the next one, once.

    With ``spool``, flows wait on the disk while the collector is down. When it is back, it gets them beside new flows.
    """

    def __init__(
        self,
        config: CollectorConfig,
        encoder: Encoder[H, D],
        new_header: Callable[[int, int, int, int], H],
        loop: EventLoop,
        report: Callable[[int], Report] = lambda _realtime_ns: Report(),
        start_within_s: float = START_WITHIN_S,
    ) -> None:
        """``start_within_s``: how long the spool's disk may take to open it. Raises ExportError: see ``Waiting``."""
        self.stats = ExportStats()
        self.closed = False
        """Whether ``close`` has finished."""
        self.holds = False
        """Whether flows wait while the link is failing, instead of being sent without success; see ``probe``."""
        self._config = config
        self._encoder = encoder
        self._headers: Headers[H] = Headers(new_header, config.observation_domain)
        self._loop = loop
        self._link = _LINKS[config.transport](config, loop, self, self.stats)
        self._link.gives_way = bool(config.spool)
        self._waiting: Waiting[H, D] = Waiting(
            config, encoder, new_header, self._link, self.stats, loop, self._on_spool, start_within_s
        )
        self._queue = self._waiting.queue
        self._part_bytes = min(_PART_BYTES, config.queue_max_bytes // 2)
        self._announcer = Announcer(config, encoder, report, loop, self._pump)
        self._shipment: Shipment[H, D] | None = None
        self._message_size = config.max_message_size
        self._said_too_large = False
        self._closing = self._ending = False
        self._moved_ns = 0  # when the link last accepted a Message, or none was there
        self._pump_timer: Timer | None = None
        self._deadline_timer: Timer | None = None

    def __str__(self) -> str:
        return str(self._link)

    @property
    def ready(self) -> bool:
        """Whether the first attempt was made: over UDP the templates are sent, over TCP a connection was tried.

        A session is also ready if its collector is down, because nothing else waits for it.
        """
        return self._link.tried

    @property
    def available(self) -> bool:
        """Whether the collector seems to accept Messages: it is connected; over UDP, none was refused."""
        return self._link.up and not self._link.failing

    @property
    def failing(self) -> bool:
        """Whether Messages are sent and seem not to arrive (UDP: refused, no route, not permitted)."""
        return self._link.failing

    def open(self, clock: ClockPair, now_ns: int) -> None:
        """Start the first Transport Session, now if ``host`` is an address, else when its name is resolved."""
        self._headers.see_clock(clock)
        self._link.open(now_ns)

    def see_clock(self, clock: ClockPair) -> None:
        """Sets the present clocks: the wall clock may have been set."""
        self._headers.see_clock(clock)

    def send(self, data_sets: Sequence[D], clock: ClockPair, now_ns: int) -> None:
        """Export ``data_sets``, now or when the collector takes them. They must not be changed afterwards."""
        self._headers.see_clock(clock)
        for data_set in data_sets:
            tally = Tally.of(data_set)
            self.stats.see(tally)
            if self._closing:
                self.stats.count_not_sent("closed", tally)
            else:
                self._queue.append(data_set, now_ns)
        if self._link.failing:
            self._announcer.require(options=False)  # if the collector is back, these flows are the first that it gets
        self._pump(now_ns)
        self._trim(now_ns)

    def surrender(self, now_ns: int) -> list[tuple[D, int]]:
        """Give up the waiting Data Sets, each with its time of arrival, if the collector is not ``available``."""
        self._take_back(now_ns)
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
        self._trim(now_ns)

    def probe(self, now_ns: int) -> None:
        """Probe a collector that refuses (over UDP), and whose flows are held, with Templates."""
        if self._held and not self._closing:
            self._announcer.require(options=False)
            self._pump(now_ns)
            if not self._encoder.template_messages(self._headers.last, self._message_size):
                self._link.probe(now_ns)

    def options_changed(self, now_ns: int) -> None:
        """The content of options records has changed: send them again, at most once a second."""
        if self._link.up and not self._closing:
            self._announcer.changed(now_ns)

    def close(self, now_ns: int, deadline_ns: int) -> None:
        """Send the waiting flows; ``closed`` becomes true when they are sent or cannot be sent, or at ``deadline_ns``.

        The loop must keep running until then, and with a spool up to ``DISK_NS`` longer if the disk is slow. Unsent
        flows go to the spool, or count as ``closed``.
        """
        if self._closing:
            return
        self._closing = True
        self._announcer.stop()
        self._deadline_timer = self._loop.call_at(deadline_ns, self._finish)
        if self._waiting.replay is not None and self._away(now_ns):
            self._finish(now_ns)
            return
        self._link.hurry(now_ns)
        if not self.closed:
            self._pump(now_ns)

    def on_up(self, now_ns: int) -> None:
        self._headers.begin()
        self._fit_message_size()
        self._announcer.start(now_ns)
        if self._closing:
            self._announcer.stop()
        self._pump(now_ns)

    def on_down(self, now_ns: int) -> None:
        self._take_back(now_ns)
        self._waiting.end_session(now_ns)
        self._store(now_ns)
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
        """Send until everything is sent or the link accepts no more. Flows that exceed the queue are not held back."""
        self.stats.count_not_sent("queue_age", self._queue.expire(now_ns - self._config.queue_max_age_ns))
        while self._link.up:
            if self._held and self._shipment is not None and not self._shipment.is_announcement:
                self._take_back(now_ns)
            self._link.waiting_bytes = self._queue.bytes
            self._link.paced = self._queue.bytes <= self._config.queue_max_bytes // 2
            shipment = self._shipment or self._load(now_ns)
            self._shipment = shipment
            if shipment is None:
                self._moved_ns = now_ns
                self._link.wait_writable(False, now_ns)
                break
            progress = self._link.push(shipment.block, shipment.index, now_ns)
            if progress.done > shipment.index:
                self._moved_ns = now_ns
            self._waiting.account(shipment, progress, now_ns)
            if progress.state is State.DONE:
                self._shipment = None
            elif progress.state is State.TOO_LARGE:
                self._shorten(shipment, now_ns)
            elif progress.state is State.BLOCKED and self._waiting.holds_back:
                self._take_back(now_ns)
                self._store(now_ns)
            elif progress.state is State.BLOCKED:
                self._waiting.release(now_ns)
                self._link.wait_writable(True, now_ns)
                return
            else:
                self._link.disconnect(progress.reason, now_ns)
                return
        all_arrived = self._waiting.release(now_ns)
        done = all_arrived and not self._queue
        if self._closing and self._shipment is None and (done or self._held):
            self._finish(now_ns)
        else:
            self._arm_pump(all_arrived, now_ns)

    @property
    def _held(self) -> bool:
        return (self.holds and self._link.failing) or self._waiting.holds_back

    def _trim(self, now_ns: int) -> None:
        waiting = self._shipment.waiting_bytes() if self._shipment else 0
        most = self._config.queue_max_bytes - waiting
        if self._away(now_ns) or self._queue.bytes > most:
            self._store(now_ns)
        self.stats.count_not_sent("queue_full", self._waiting.trim(most, now_ns))

    def _away(self, now_ns: int) -> bool:
        """Whether the collector accepts nothing now."""
        stalled = self._shipment is not None and now_ns - self._moved_ns >= STALL_NS
        return not self.available or stalled

    def _store(self, now_ns: int) -> bool:
        """Move the queue to the spool, if there is one, part by part. Returns whether a part is under way."""
        size = self._link.message_size() if self._link.reliable else self._message_size
        return self._waiting.store(self._headers.realtime_ns(now_ns) // NS_PER_S, size, now_ns)

    def _arm_pump(self, all_arrived: bool, now_ns: int) -> None:
        """Schedule the next look: when more of the spool is due, to probe the collector, or to check the arrivals."""
        if self._pump_timer is not None:
            self._pump_timer.cancel()
        replay_ns = self._waiting.replay.due_ns if self._waiting.replay is not None else None
        if self._link.up and self._closing:
            self._pump_timer = self._loop.call_at(now_ns + POLL_NS, self._pump)
        elif self._link.up and self._waiting.holds_back:
            self._pump_timer = self._loop.call_at(now_ns + PROBE_NS, self.probe)
        elif self._link.up and replay_ns is not None:
            self._pump_timer = self._loop.call_at(max(replay_ns, self._announcer.data_from_ns), self._pump)
        elif self._link.up and not all_arrived:
            self._pump_timer = self._loop.call_at(now_ns + PROBE_NS, self._pump)  # to free memory and disk

    def _load(self, now_ns: int) -> Shipment[H, D] | None:
        """Make the next Messages to send, templates before data, with the present header."""
        realtime_ns = self._headers.realtime_ns(now_ns)
        if self._headers.next(now_ns) and not self._link.reliable:
            # No Message with data may be dated before that with its Template (RFC 7011, section 8.2). Over TCP, which
            # keeps their order, Templates are sent once.
            self._announcer.require()
        header = self._headers.last
        if self._announcer.due:
            self._fit_message_size()
            announced = self._announcer.take(header, self._message_size, now_ns, realtime_ns)
            if announced is not None:
                self._headers.last = header.advance(announced.records, 1)
                return Shipment(announced.block(), header)
        if self._held or now_ns < self._announcer.data_from_ns:
            return None
        shipment = self._load_data(header, self._queue.oldest_ns) if self._queue else self._load_replay(header, now_ns)
        if shipment is None:
            return None
        self._announcer.count(len(shipment.block))
        if self._link.failing:  # the collector may return at any time, and its first Messages must be readable
            self._announcer.require(options=False)
        return shipment

    def _load_replay(self, header: H, now_ns: int) -> Shipment[H, D] | None:
        shipment = None if self._closing else self._waiting.load_replay(header, now_ns)
        if shipment is not None:
            self._headers.last = header.advance(shipment.rows_before(len(shipment.block)), len(shipment.block))
        return shipment

    def _load_data(self, header: H, since_ns: int) -> Shipment[H, D]:
        left = self._announcer.messages_left
        most = _FAILING_PART_BYTES if self._link.failing else _PART_BYTES
        part = self._queue.take(min(self._part_bytes, most, left * self._message_size))
        block = self._encoder.data_messages(part, header, self._message_size)
        if len(block) > left:  # the guess was too high: Messages are not filled completely
            rows = int(block.flows[:left].sum())
            self._queue.put_back(part.slice(rows, len(part)), since_ns)
            part = part.slice(0, rows)
            block = self._encoder.data_messages(part, header, self._message_size)
        self._headers.last = header.advance(len(part), len(block))
        return Shipment(block, header, part, since_ns=since_ns)

    def _shorten(self, shipment: Shipment[H, D], now_ns: int) -> None:
        """The next Message exceeds the path MTU: continue with shorter ones, or drop it if that is impossible."""
        shorter = self._fit_message_size()
        if shorter and shipment.batch is None:
            self._take_back(now_ns)
            return
        if shorter and shipment.block.sizes[shipment.index] <= self._message_size:
            return  # Messages in the spool keep their length
        if not self._said_too_large:
            self._said_too_large = True
            log.warning("%s: Messages of %d bytes exceed the path MTU and are counted as not sent; "
                        "set a smaller max_message_size", self, self._message_size)  # fmt: skip
        skipped = Progress(shipment.index + 1, State.DONE, (Failure(shipment.index, shipment.index + 1, "EMSGSIZE"),))
        self._waiting.account(shipment, skipped, now_ns)
        if shipment.index == len(shipment.block):
            self._shipment = None

    def _fit_message_size(self) -> bool:
        """Follow the path MTU, as far as Templates and Data Records allow. Returns whether Messages are shorter now."""
        before, size = self._message_size, self._link.message_size()
        if size == before:
            return False
        try:
            self._encoder.template_messages(self._headers.last, size)
        except TemplateError:
            return False
        self._message_size = size
        if size < before:
            log.warning("%s: max_message_size %d exceeds the path MTU: Messages have at most %d bytes now", self,
                        self._config.max_message_size, size)  # fmt: skip
        return size < before

    def _take_back(self, now_ns: int) -> None:
        """Partly sent data wait again, and get a Sequence Number when they are sent."""
        shipment, self._shipment = self._shipment, None
        if shipment is None:
            return
        if shipment.is_announcement:
            self._announcer.take_back()
            self._waiting.forget_templates()
            self._headers.last = shipment.header
            return
        self._waiting.put_back(shipment, shipment.index, len(shipment.block), now_ns)
        self._headers.last = shipment.header.advance(shipment.rows_before(shipment.index), shipment.index)

    def _on_spool(self, now_ns: int) -> None:
        """The spool has written or read something."""
        if self._ending:
            self._end(now_ns)
        else:
            self._trim(now_ns)
            self._pump(now_ns)

    def _finish(self, now_ns: int) -> None:
        """Stop sending. Waiting flows go to the spool, then the session ends."""
        if self._ending:
            return
        self._ending = True
        self._take_back(now_ns)
        self._announcer.close()
        for timer in (self._pump_timer, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        self._link.close()
        self._deadline_timer = self._loop.call_at(now_ns + DISK_NS, self._give_up)
        self._end(now_ns)

    def _end(self, now_ns: int) -> None:
        if self._store(now_ns):
            return  # comes again when that is written
        self.stats.count_not_sent("closed", self._queue.trim(0))
        self._waiting.end(self._on_ended, now_ns)

    def _give_up(self, now_ns: int) -> None:
        """The disk does not answer."""
        if not self.closed:
            self._waiting.give_up()
            log.warning("%s: spool %s: the disk does not answer: %d flows that wait are given up", self,
                        self._config.spool, self.stats.queued.flows)  # fmt: skip
            self.stats.count_not_sent("closed", self._queue.trim(0))
            self._on_ended(now_ns)

    def _on_ended(self, _now_ns: int) -> None:
        self.closed = True
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
