"""A spool by itself, used as the daemon uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from netobs.export.batch import Batch
from netobs.export.spool.found import Templates
from netobs.export.spool.segment import sets_of
from netobs.export.spool.spool import RETRY_NS, Spool
from netobs.export.stats import ExportStats
from netobs.flow.tally import Tally
from tests.unit.export.support import Encoder, Header, Message, Rows, numbers_of, rows

MAX_BYTES = 1 << 20  # segments of 64 KiB
SIZE = 1400
DOMAIN = 7


@dataclass
class Box:
    """A spool as the daemon uses it: what is appended was queued before."""

    directory: Path
    max_bytes: int = MAX_BYTES
    element: int = 2  # what its Template says
    max_message_size: int = SIZE
    stats: ExportStats = field(default_factory=ExportStats)
    now_ns: int = RETRY_NS
    next: int = 0

    def __post_init__(self) -> None:
        sets = sets_of(b"".join(self._templates()))
        wanted = Templates(sets, self.max_message_size)
        self.spool = Spool(self.directory, self.max_bytes, wanted, self.stats, 'collector "main"')
        self.opened = self.spool.open(self.now_ns)

    def _templates(self) -> list[bytes]:
        return Encoder(element=self.element).template_messages(Header(1000, 0, DOMAIN), SIZE)

    def put(self, count: int) -> bool:
        """The next ``count`` Data Records are seen, and go to the spool."""
        self.next, start = self.next + count, self.next
        self.stats.see(Tally.of(rows(start, count)))
        return self.write(rows(start, count))

    def write(self, data_set: Rows) -> bool:
        sequence = self.spool.begin(self._templates, self.now_ns)
        if sequence is None:
            return False
        block = Encoder().data_messages(data_set, Header(1000, sequence, DOMAIN), SIZE)
        done = self.spool.append(block, self.now_ns)
        self.check()
        return done

    def get(self, max_bytes: int = 10_000) -> tuple[Batch, list[int], Tally] | None:
        """Read, hand over; the numbers of the Data Records."""
        found = self.spool.read(max_bytes, self.now_ns)
        if found is None:
            self.check()
            return None
        batch, entries, data = found
        assert len(entries.entries) == batch.stop - batch.start
        messages = split(bytes(data))
        self.stats.count_sent(entries.tally(), spooled=True)
        self.spool.hand_over(batch)
        self.check()
        numbers = numbers_of(messages)
        assert entries.tally() == tally(numbers)
        return batch, numbers, entries.tally()

    def drain(self) -> list[int]:
        """All that is there, each part acknowledged at once."""
        numbers = []
        while found := self.get():
            self.spool.release(found[0])
            numbers += found[1]
        return numbers

    def check(self) -> None:
        stats = self.stats
        assert stats.seen + stats.taken_over == stats.sent + stats.not_sent_total() + stats.queued + stats.spooled


def tally(numbers: list[int]) -> Tally:
    packets = sum(number % 7 + 1 for number in numbers)
    return Tally(len(numbers), packets, packets * 100)


def split(data: bytes) -> list[Message]:
    messages = []
    while data:
        length = int.from_bytes(data[2:4], "big")
        messages.append(Message.parse(data[:length]))
        data = data[length:]
    return messages


def again(box: Box, **changes: object) -> Box:
    """The next run of the daemon. The first one may have been killed: the kernel closes its files."""
    box.spool.close()
    return Box(box.directory, **changes)  # type: ignore[arg-type]


def data_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".ipfix" in path.name)
