"""Data Records that have not arrived yet: in the queue, in the spool, or in the kernel without acknowledgement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Callable, Generic

from netobs.base.loop import EventLoop
from netobs.export.in_flight import Shipment, Unacknowledged
from netobs.export.link.link import Link, Progress
from netobs.export.protocol import D, Encoder, H
from netobs.export.queue import DataSetQueue, Part, tally_of
from netobs.export.stats import ExportStats
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    from netobs.config import CollectorConfig
    from netobs.export.kept.session import Kept, Place
    from netobs.export.spool.replay import Replay


class Waiting(Generic[H, D]):
    """The waiting flows of the collector of ``config``, behind ``link``. ``replay`` exists only with ``spool``."""

    def __init__(
        self,
        config: CollectorConfig,
        encoder: Encoder[H, D],
        new_header: Callable[[int, int, int, int], H],
        link: Link,
        stats: ExportStats,
        loop: EventLoop,
        wake: Callable[[int], None],
        start_within_s: float,
        place: Place | None = None,
    ) -> None:
        """``wake``: see ``Replay``. ``place``: where what outlives the process is kept. Raises ExportError if another
        process uses the spool."""
        self.queue: DataSetQueue[D] = DataSetQueue()
        self.replay: Replay[H, D] | None = None
        self._kept: Kept[H, D] | None = None
        if place is not None:
            from netobs.export.kept.session import Kept

            self._kept = link.kept = Kept(place, encoder, stats, link.reliable, new_header)
            self.queue.merge(self._kept.found)
        if config.spool:
            from netobs.export.spool.replay import Replay

            self.replay = Replay(
                config,
                encoder,
                new_header,
                self.queue,
                link.message_size(),
                stats,
                loop,
                wake,
                start_within_s,
                self._kept,
            )
        self._unacknowledged: Unacknowledged[H, D] = Unacknowledged()
        self._link = link
        self._stats = stats

    def refuse(self, data_sets: Iterable[D]) -> None:
        """``data_sets`` come after the end."""
        tally = tally_of(Part(data_set, 0) for data_set in data_sets)
        self._stats.see(tally)
        self._stats.count_not_sent("closed", tally)

    def add(self, data_sets: Sequence[D], number: int, now_ns: int) -> None:
        """``data_sets`` of the batch with this ``number`` wait from now on."""
        parts = [Part(data_set, now_ns) for data_set in data_sets]
        self._stats.see(tally_of(parts))
        for part in parts if self._kept is None else self._kept.append(data_sets, now_ns, number):
            self.queue.append(part)

    def lose(self, reason: str, parts: Iterable[Part[D]]) -> None:
        """``parts`` are not sent for ``reason``."""
        for part in parts:
            self._stats.count_not_sent(reason, Tally.of(part.data_set))
            if self._kept is not None:
                self._kept.forget(part)

    def give_away(self) -> list[Part[D]]:
        """Empties the queue: all of it belongs to another session after ``hand_over``."""
        given = self.queue.give_away()
        self._stats.move_away(tally_of(given))
        return given

    def hand_over(self, given: Iterable[Part[D]]) -> None:
        """The other session has what was given away."""
        if self._kept is not None:
            for part in given:
                self._kept.forget(part)

    @property
    def origin(self) -> tuple[int, int]:
        """See ``Kept.origin``."""
        return self._kept.origin if self._kept is not None else (0, 0)

    def take_over(self, given: Sequence[Part[D]], origin: tuple[int, int]) -> None:
        """Adds what the session of ``origin`` has given away."""
        self._stats.move_in(tally_of(given))
        self.queue.merge(given if self._kept is None else self._kept.take_over(given, origin))

    # What outlives the process.

    @property
    def outlives(self) -> bool:
        """Whether anything does."""
        return self._kept is not None

    @property
    def last_batch(self) -> int:
        """The number of the last batch of ``add``, in this process or the one before; 0: unknown."""
        return self._kept.batch if self._kept is not None else 0

    def begin_session(self) -> int:
        """A Transport Session begins; returns its first Sequence Number."""
        if self._kept is None:
            return 0
        return self._kept.begin_session(self._link.udp_socket, self._link.config.observation_domain)

    def ship(self, shipment: Shipment[H, D]) -> None:
        """``shipment`` is about to be sent."""
        if self._kept is not None:
            self._kept.ship(shipment)

    def stop_shipping(self) -> None:
        """The rest of what was shipped waits again."""
        if self._kept is not None:
            self._kept.take_back()

    def settle(self) -> None:
        """The account has changed."""
        if self._kept is not None:
            self._kept.settle()

    def leave(self) -> None:
        """The next process goes on from here."""
        if self._kept is not None:
            self._kept.close()

    def drop_kept(self) -> None:
        """Nothing is left to do for a next process."""
        if self._kept is not None:
            self._kept.drop()
            self._kept = self._link.kept = None

    # The spool.

    @property
    def spool_bytes(self) -> int | None:
        """The size of its files; None without a spool."""
        return self.replay.used_bytes if self.replay is not None else None

    @property
    def replay_due_ns(self) -> int | None:
        """When more of the spool may be sent; None if it is empty, or while the disk is busy."""
        return self.replay.due_ns if self.replay is not None else None

    def load_replay(self, header: H, now_ns: int) -> Shipment[H, D] | None:
        """The next Messages of the spool, the first with ``header``, if their time has come."""
        loaded = self.replay.load(header, now_ns) if self.replay is not None else None
        return Shipment(loaded[0], header, batch=loaded[1]) if loaded is not None else None

    def store(self, export_time_s: int, max_message_size: int, now_ns: int) -> bool:
        """Move a part of the queue to the spool, if it accepts it. Returns whether a part is under way."""
        return self.replay is not None and self.replay.take_in(export_time_s, max_message_size, now_ns)

    def trim(self, max_bytes: int, now_ns: int) -> list[Part[D]]:
        """Drop flows that exceed the memory, except those that a spool is about to take; return what was dropped."""
        if self.replay is None:
            return self.queue.trim(max_bytes)
        return self.queue.trim(max_bytes - self.replay.writing_bytes, self.replay.overdue_ns(now_ns))

    def account(self, shipment: Shipment[H, D], progress: Progress, now_ns: int) -> None:
        """The link has processed the Messages of ``shipment`` before ``progress.done``."""
        block, start, stop, spooled = shipment.block, shipment.index, progress.done, shipment.batch is not None
        sent, messages = Tally.of_messages(block, start, stop), stop - start
        sent_bytes = block.end(stop) - block.end(start)
        for failure in progress.failures:
            lost = Tally.of_messages(block, failure.start, failure.stop)
            self._stats.count_not_sent(failure.reason, lost, spooled)
            sent -= lost
            messages -= failure.stop - failure.start
            sent_bytes -= block.end(failure.stop) - block.end(failure.start)
        self._stats.count_sent(sent, spooled)
        self._stats.bytes += sent_bytes
        if shipment.is_announcement:
            self._stats.template_messages += messages
        else:
            self._stats.messages += messages
        shipment.index = stop
        if self._kept is not None and stop > start:
            self._kept.advance(shipment, start, bool(progress.failures))
        if self.replay is not None and shipment.batch is not None and stop > start:
            self.replay.hand_over(shipment.batch.part(start, stop), not self._link.reliable, now_ns)
        if self._link.reliable:
            self._unacknowledged.add(shipment, start, stop)

    def put_back(self, shipment: Shipment[H, D], start: int, stop: int, now_ns: int) -> None:
        """Put the Messages ``start`` to ``stop`` back to the front of the queue or spool that they came from."""
        if shipment.part is not None:
            self.queue.put_back(shipment.part.slice(shipment.rows_before(start), shipment.rows_before(stop)))
        elif self.replay is not None and shipment.batch is not None:
            tally = Tally.of_messages(shipment.block, start, stop)
            self.replay.take_back(shipment.batch.part(start, stop), tally, now_ns)

    def end_session(self, now_ns: int) -> None:
        """Make unacknowledged flows wait again, for the next Transport Session."""
        self.release(now_ns)
        self.forget_templates()
        for shipment, start, stop in self._unacknowledged.take_back():
            tally = Tally.of_messages(shipment.block, start, stop)
            self._stats.count_resent(tally, spooled=shipment.batch is not None)
            if self._kept is not None:
                self._kept.resend(shipment, start, stop)
            self.put_back(shipment, start, stop, now_ns)

    def forget_templates(self) -> None:
        """Templates of other runs that were sent to the collector may not have arrived."""
        if self.replay is not None:
            self.replay.forget_templates()

    def release(self, now_ns: int) -> bool:
        """Forget acknowledged Messages. Returns whether none is left."""
        if self._unacknowledged:
            arrived = self._unacknowledged.acknowledge(self._link.acknowledged())
            if self._kept is not None:
                for sent in arrived:
                    self._kept.acknowledged(sent.shipment, sent.start, sent.stop)
            if self.replay is not None:
                batches = [sent.shipment.batch.part(sent.start, sent.stop) for sent in arrived if sent.shipment.batch]
                self.replay.release(batches, now_ns)
        return not self._unacknowledged

    def end(self, done: Callable[[int], None], now_ns: int) -> None:
        """Close everything; ``done`` is called when nothing is open."""
        if self.replay is not None:
            self.replay.end(done, now_ns)
        else:
            done(now_ns)

    def give_up(self) -> None:
        """As ``end``, if the disk does not answer. The flows that it was given are in the queue again."""
        writing = self.replay.give_up() if self.replay is not None else None
        if writing is not None:
            self.queue.put_back(writing)
