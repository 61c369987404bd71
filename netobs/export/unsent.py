"""Where Data Records are until they have arrived: in the queue, in the spool, or in the kernel, not acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Generic

from netobs.export.in_flight import Shipment, Unacknowledged
from netobs.export.link.link import Link, Progress
from netobs.export.protocol import D, Encoder, H
from netobs.export.queue import DataSetQueue
from netobs.export.spool.replay import Backlog
from netobs.export.stats import ExportStats
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    from netobs.config import CollectorConfig


class Waiting(Generic[H, D]):
    """What waits for the collector of ``config``, behind ``link``. Only with ``spool`` is there a ``backlog``."""

    def __init__(
        self,
        config: CollectorConfig,
        encoder: Encoder[H, D],
        new_header: Callable[[int, int, int, int], H],
        link: Link,
        stats: ExportStats,
    ) -> None:
        """Raises ExportError if another process uses the spool."""
        self.queue: DataSetQueue[D] = DataSetQueue()
        self.backlog: Backlog[H, D] | None = None
        if config.spool:
            self.backlog = Backlog(config, encoder, new_header, stats)
            self.backlog.open()
        self._unacknowledged: Unacknowledged[H, D] = Unacknowledged()
        self._link = link
        self._stats = stats

    @property
    def holds_back(self) -> bool:
        """Whether Data Records are kept although Messages could be sent, since they would not arrive."""
        return self.backlog is not None and self._link.failing

    def load_backlog(self, header: H, now_ns: int) -> Shipment[H, D] | None:
        """The next Messages of the spool, the first with ``header``, if their time has come."""
        return self.backlog.load(header, now_ns) if self.backlog is not None else None

    def store(self, export_time_s: int, max_message_size: int, now_ns: int) -> None:
        """What is in the queue goes to the spool, if there is one that takes it."""
        if self.backlog is not None:
            self.backlog.take_in(self.queue, export_time_s, max_message_size, now_ns)

    def account(self, shipment: Shipment[H, D], progress: Progress) -> None:
        """The link has dealt with the Messages of ``shipment`` before ``progress.done``."""
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
        if self.backlog is not None and shipment.batch is not None and stop > start:
            self.backlog.hand_over(shipment.batch.part(start, stop), certain=not self._link.reliable)
        if self._link.reliable:
            self._unacknowledged.add(shipment, start, stop)

    def put_back(self, shipment: Shipment[H, D], start: int, stop: int) -> None:
        """The Messages ``start`` to ``stop`` are the oldest that wait, where they came from."""
        if shipment.data_set is not None:
            rows = shipment.data_set.slice(shipment.rows_before(start), shipment.rows_before(stop))
            self.queue.put_back(rows, shipment.since_ns)
        elif self.backlog is not None and shipment.batch is not None:
            tally = Tally.of_messages(shipment.block, start, stop)
            self.backlog.take_back(shipment.batch.part(start, stop), tally)

    def end_session(self) -> None:
        """What the collector's host has not acknowledged waits again, for the next Transport Session."""
        self.release()
        self.forget_templates()
        for shipment, start, stop in self._unacknowledged.take_back():
            tally = Tally.of_messages(shipment.block, start, stop)
            self._stats.count_resent(tally, spooled=shipment.batch is not None)
            self.put_back(shipment, start, stop)

    def forget_templates(self) -> None:
        """What the collector was told of other Templates than its own may not have arrived."""
        if self.backlog is not None:
            self.backlog.forget_templates()

    def release(self) -> bool:
        """Forget what has arrived. Whether there is nothing left that might not."""
        if self._unacknowledged:
            arrived = self._unacknowledged.acknowledge(self._link.acknowledged())
            if self.backlog is not None:
                self.backlog.release(arrived)
        return not self._unacknowledged

    def close(self) -> None:
        """Nothing is taken from the spool any more, or put there."""
        if self.backlog is not None:
            self.backlog.close()
