"""From the queue into the spool while the collector is away, and out of it, paced, when it is back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Generic

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.base.ipfix import MAX_MESSAGE_BYTES, MESSAGE_HEADER
from netobs.export.in_flight import Shipment
from netobs.export.link.tcp import MESSAGE_BYTES
from netobs.export.protocol import D, Encoder, H
from netobs.export.queue import DataSetQueue
from netobs.export.spool.found import Templates
from netobs.export.spool.index import ENTRY, Entries
from netobs.export.spool.place import folder_of
from netobs.export.spool.segment import sets_of
from netobs.export.spool.spool import Batch, Spool
from netobs.export.stats import ExportStats
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

_PART_BYTES = 524_288
_BATCH_BYTES = 65_536
_CATCH_UP_NS = 50_000_000
"""What a loop that was busy may send at once, measured by the time that it was late."""


class Backlog(Generic[H, D]):
    """The spool of the collector of ``config``. ``bool()``: whether there is anything to send.

    What was written with other Templates is sent behind these: once in a Transport Session, over UDP before each batch.
    """

    def __init__(
        self, config: CollectorConfig, encoder: Encoder[H, D], new_header: Callable[[int, int, int, int], H],
        stats: ExportStats,
    ) -> None:  # fmt: skip
        self.next_ns = 0
        """When the next Messages may be sent."""
        self._config = config
        self._encoder = encoder
        self._new_header = new_header
        size = config.max_message_size if config.transport == "udp" else MESSAGE_BYTES
        messages = encoder.template_messages(new_header(0, 0, config.observation_domain, 0), size)
        templates = Templates(
            sets_of(b"".join(messages)), config.max_message_size if config.transport == "udp" else MAX_MESSAGE_BYTES
        )
        directory = folder_of(config.spool, config.name)
        self._spool = Spool(directory, config.spool_max_bytes, templates, stats, f'collector "{config.name}"')
        self._part_bytes = min(_PART_BYTES, self._spool.segment_bytes // 2)
        self._announced: set[bytes] = set()  # Templates of other runs that the collector knows

    def __bool__(self) -> bool:
        return bool(self._spool)

    def open(self) -> None:
        """Take over what an earlier run left. Raises ExportError if another process uses the spool."""
        self._spool.open(0)

    def take_in(self, queue: DataSetQueue[D], export_time_s: int, max_message_size: int, now_ns: int) -> None:
        """All that is in ``queue``, unless the disk does not take it."""

        def templates() -> list[bytes]:
            return self._encoder.template_messages(self._header(export_time_s, 0), max_message_size)

        while queue:
            sequence = self._spool.begin(templates, now_ns)
            if sequence is None:
                return
            since_ns = queue.oldest_ns
            part = queue.take(self._part_bytes)
            block = self._encoder.data_messages(part, self._header(export_time_s, sequence), max_message_size)
            if not self._spool.append(block, now_ns):
                queue.put_back(part, since_ns)
                return

    def load(self, header: H, now_ns: int) -> Shipment[H, D] | None:
        """The next Messages, with headers from ``header`` on, if their time has come."""
        if now_ns < self.next_ns:
            return None
        own = self._spool.own_templates()
        if own is not None and own[1] not in self._announced:
            self._announced.add(own[1])
            return Shipment(self._templates_block(own[0], header), header)
        if self._config.transport == "udp":
            self._announced.clear()  # a collector that restarted knows them again with the next batch
        found = self._spool.read(_BATCH_BYTES, now_ns)
        if found is None:
            self.next_ns = self._spool.retry_read_ns
            return None
        batch, messages, data = found
        pause_ns = len(data) * NS_PER_S // self._config.spool_rate_bytes
        self.next_ns = max(self.next_ns, now_ns - _CATCH_UP_NS) + pause_ns
        return Shipment(self._block(messages, data, header), header, batch=batch)

    def forget_templates(self) -> None:
        """What the collector was told of other Templates than its own does not count any more."""
        self._announced.clear()

    def hand_over(self, batch: Batch, certain: bool) -> None:
        """The kernel has taken ``batch``; ``certain``: nobody will tell whether it has arrived."""
        self._spool.hand_over(batch)
        if certain:
            self._spool.release(batch)

    def take_back(self, batch: Batch, tally: Tally) -> None:
        """``batch``, with ``tally``, waits again, or is counted if it was dropped in the meantime."""
        self._spool.rewind(batch, tally)

    def release(self, batches: list[Batch]) -> None:
        """``batches`` have arrived."""
        for batch in batches:
            self._spool.release(batch)

    def close(self) -> None:
        self._spool.close()

    def _header(self, export_time_s: int, sequence: int) -> H:
        return self._new_header(export_time_s, sequence, self._config.observation_domain, 0)

    def _templates_block(self, data: bytes, header: H) -> MessageBlock:
        """Template Messages of another run."""
        ends, at = [], 0
        while at < len(data):
            at += int.from_bytes(data[at + 2 : at + 4], "big")
            ends.append(at)
        entries = np.zeros(len(ends), dtype=ENTRY)
        entries["end"] = ends
        return self._block(Entries(entries, 0), bytearray(data), header)

    def _block(self, messages: Entries, data: bytearray, header: H) -> MessageBlock:
        """``messages`` with the headers of the present Transport Session."""
        ends = messages.ends
        flows, packets, octets = (
            np.ascontiguousarray(messages.entries[name]).astype(np.int64) for name in ("flows", "packets", "octets")
        )
        octets_of_data = np.frombuffer(data, dtype=np.uint8)
        begins = ends - np.diff(ends, prepend=0)
        at = begins[:, None] + np.arange(MESSAGE_HEADER.itemsize)
        heads = octets_of_data[at].view(MESSAGE_HEADER).reshape(-1)
        heads["export_time"] = header.export_time_s & 0xFFFF_FFFF
        heads["sequence"] = (np.cumsum(flows) - flows + header.sequence) & 0xFFFF_FFFF
        heads["observation_domain"] = self._config.observation_domain
        octets_of_data[at] = heads.view(np.uint8).reshape(len(ends), -1)
        return MessageBlock(memoryview(data), ends, flows, packets, octets)
