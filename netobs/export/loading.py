"""Makes the next Messages of a Transport Session: Templates before data, in sequence, as long as the path allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Generic

from netobs.base.errors import TemplateError
from netobs.base.loop import EventLoop
from netobs.export.announcer import Announcer
from netobs.export.headers import Headers
from netobs.export.in_flight import Shipment
from netobs.export.link.link import Link, log
from netobs.export.protocol import D, Encoder, H
from netobs.export.sink import Reach, SinkState
from netobs.export.unsent import Waiting
from netobs.flow.report import Report

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

_PART_BYTES = 524_288
"""Data Records that become Messages at once: small enough for the cache and for memory, large enough for numpy."""
_SUSPECT_PART_BYTES = 65_536
"""The same while the collector refuses Messages: the Templates precede each part."""


class Loader(Generic[H, D]):
    """Makes the Messages that ``link`` sends next, from ``waiting``, Templates and options records.

    ``wake`` is called when Templates or options records are due.
    """

    def __init__(
        self,
        config: CollectorConfig,
        encoder: Encoder[H, D],
        new_header: Callable[[int, int, int, int], H],
        report: Callable[[int], Report],
        loop: EventLoop,
        link: Link,
        waiting: Waiting[H, D],
        wake: Callable[[int], None],
    ) -> None:
        self.message_size = config.max_message_size
        """The longest Message, in bytes: as configured, or less if the path MTU requires it."""
        self.headers: Headers[H] = Headers(new_header, config.observation_domain)
        self.announcer: Announcer[H, D] = Announcer(config, encoder, report, loop, wake)
        self._config = config
        self._encoder = encoder
        self._link = link
        self._waiting = waiting
        self._part_bytes = min(_PART_BYTES, config.queue_max_bytes // 2)

    def begin(self, sequence: int, now_ns: int) -> None:
        """A Transport Session begins with this Sequence Number."""
        self.headers.begin(sequence)
        self.fit()
        self.announcer.start(now_ns)

    @property
    def state(self) -> SinkState:
        """As ``Sink.state``."""
        link, waiting = self._link, self._waiting
        sequence, since_ns = self.headers.last.sequence, link.reach_since_ns
        return SinkState(link.where, since_ns, sequence, waiting.queue.bytes, waiting.spool_bytes, link.last_error)

    @property
    def has_templates(self) -> bool:
        """Whether the protocol has any."""
        return bool(self._encoder.template_messages(self.headers.last, self.message_size))

    def load(self, announcements_only: bool, replays: bool, now_ns: int) -> Shipment[H, D] | None:
        """Make the next Messages to send, templates before data, with the present header.

        ``replays``: whether Messages of the spool may follow when the queue is empty.
        """
        shipment = self._load(announcements_only, replays, now_ns)
        if shipment is not None:
            self._waiting.ship(shipment)
        return shipment

    def _load(self, announcements_only: bool, replays: bool, now_ns: int) -> Shipment[H, D] | None:
        headers, announcer = self.headers, self.announcer
        if headers.next(now_ns) and not self._link.reliable:
            # No Message with data may have an earlier Export Time than its Template (RFC 7011, section 8.2). TCP keeps
            # the order, so Templates are sent once there.
            announcer.require()
        header = headers.last
        if announcer.due:
            self.fit()
            announced = announcer.take(header, self.message_size, now_ns, headers.realtime_ns(now_ns))
            if announced is not None:
                headers.last = header.advance(announced.records, 1)
                return Shipment(announced.block(), header, records=announced.records)
        if announcements_only or now_ns < announcer.data_from_ns:
            return None
        if self._waiting.queue:
            shipment = self._load_data(header)
        else:
            replayed = self._waiting.load_replay(header, now_ns) if replays else None
            if replayed is None:
                return None
            shipment = replayed
            headers.last = header.advance(shipment.rows_before(len(shipment.block)), len(shipment.block))
        announcer.count(len(shipment.block))
        if self._link.reach is Reach.SUSPECT:  # it may return at any time, and must be able to read the first Message
            announcer.require(options=False)
        return shipment

    def _load_data(self, header: H) -> Shipment[H, D]:
        queue, left = self._waiting.queue, self.announcer.messages_left
        most = _SUSPECT_PART_BYTES if self._link.reach is Reach.SUSPECT else _PART_BYTES
        part = queue.take(min(self._part_bytes, most, left * self.message_size))
        block = self._encoder.data_messages(part.data_set, header, self.message_size)
        if len(block) > left:  # the estimate was too high: Messages are not completely filled
            rows = int(block.flows[:left].sum())
            queue.put_back(part.slice(rows, len(part)))
            part = part.slice(0, rows)
            block = self._encoder.data_messages(part.data_set, header, self.message_size)
        self.headers.last = header.advance(len(part), len(block))
        return Shipment(block, header, part)

    def take_back(self, shipment: Shipment[H, D], now_ns: int) -> None:
        """Partly sent data of ``shipment`` wait again, and get a Sequence Number when they are sent."""
        self._waiting.stop_shipping()
        if shipment.is_announcement:
            self.announcer.take_back()
            self._waiting.forget_templates()
            self.headers.last = shipment.header
            return
        self._waiting.put_back(shipment, shipment.index, len(shipment.block), now_ns)
        self.headers.last = shipment.header.advance(shipment.rows_before(shipment.index), shipment.index)

    def fit(self) -> bool:
        """Follow the path MTU, as far as Templates and Data Records allow. Returns whether Messages are shorter now."""
        before, size = self.message_size, self._link.message_size()
        if size == before:
            return False
        try:
            self._encoder.template_messages(self.headers.last, size)
        except TemplateError:
            return False
        self.message_size = size
        if size < before:
            log.warning("%s: max_message_size %d exceeds the path MTU: Messages have at most %d bytes now", self._link,
                        self._config.max_message_size, size)  # fmt: skip
        return size < before
