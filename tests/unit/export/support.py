"""A small real encoder, collectors on loopback, and a clock that the test moves."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netobs.base.clock import ClockPair
from netobs.base.errors import TemplateError
from netobs.base.loop import EventLoop
from netobs.config import CollectorConfig
from netobs.export import ExportStats, TransportSession
from netobs.export.announcer import LEAD_NS
from netobs.export.link.udp import PACE_NS
from netobs.export.sink import Reach, Sink
from netobs.flow.records import MessageBlock
from netobs.flow.report import Exported, Report, ReportedInterface
from netobs.flow.tally import Tally

ROW = np.dtype([("number", ">u4"), ("packets", ">u8"), ("octets", ">u8"), ("filler", "u1", (16,))])
HEADER = struct.Struct(">HHIIIHH")  # Message Header and Set Header
DATA_ID = 256
OPTIONS = struct.Struct(">II")
OPTIONS_ID = 512
REALTIME_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


class Header(NamedTuple):
    export_time_s: int
    sequence: int
    observation_domain: int
    clock_offset_ns: int = 0

    def advance(self, records: int, messages: int = 0) -> Header:
        return self._replace(sequence=(self.sequence + records) & 0xFFFFFFFF)


@dataclass(frozen=True)
class Rows:
    rows: npt.NDArray[np.void]
    packets: npt.NDArray[np.int64]
    octets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> int:
        return 0

    def slice(self, start: int, stop: int) -> Rows:
        return Rows(self.rows[start:stop], self.packets[start:stop], self.octets[start:stop])


class Encoder:
    """``templates``: how many template Messages there are; ``options``: how many Messages with an options record.

    ``data_id``: the Template ID; ``element``: what the Template says.
    """

    def __init__(self, templates: int = 1, options: int = 0, data_id: int = DATA_ID, element: int = 2) -> None:
        self.templates = templates
        self.options = options
        self.data_id = data_id
        self.element = element

    @property
    def fingerprint(self) -> str:
        return f"test {self.data_id} {self.element}"

    def restored(self, kind: int, rows: Any, packets: Any, octets: Any) -> Rows:
        return Rows(rows.view(ROW), packets, octets)

    def template_messages(self, header: Header, max_message_size: int) -> list[bytes]:
        self._per_message(max_message_size)
        template = struct.pack(">HHHH", self.data_id, 1, self.element, 8)
        return [_head(header, 2, len(template)) + template] * self.templates

    def announcement(
        self, report: Report, header: Header, max_message_size: int, templates: bool = True
    ) -> list[tuple[bytes, int]]:
        """``self.options`` Messages with an options record each, which carries the exported Messages and interfaces."""
        messages = [(each, 0) for each in self.template_messages(header, max_message_size)] if templates else []
        for number in range(self.options):
            body = OPTIONS.pack(report.exported.messages, len(report.interfaces))
            messages.append((_head(header.advance(number), OPTIONS_ID, len(body)) + body, 1))
        return messages

    def data_messages(self, data_set: Rows, header: Header, max_message_size: int) -> MessageBlock:
        per_message = self._per_message(max_message_size)
        parts, counts = [], []
        for start in range(0, len(data_set), per_message):
            part = data_set.slice(start, start + per_message)
            parts.append(_head(header.advance(start), self.data_id, part.rows.nbytes) + part.rows.tobytes())
            counts.append((len(part), part.packets.sum(), part.octets.sum()))
        flows, packets, octets = (np.array(column, dtype=np.int64) for column in zip(*counts))
        ends = np.cumsum([len(part) for part in parts])
        return MessageBlock(memoryview(b"".join(parts)), ends, flows, packets, octets)

    @staticmethod
    def _per_message(max_message_size: int) -> int:
        rows = (min(max_message_size, 65_535) - HEADER.size) // ROW.itemsize
        if rows < 1:
            raise TemplateError(f"no Data Record fits in {max_message_size} bytes")
        return rows


def _head(header: Header, set_id: int, body: int) -> bytes:
    return HEADER.pack(10, HEADER.size + body, *header[:3], set_id, 4 + body)


def rows(start: int, count: int) -> Rows:
    """Data Records with the numbers ``start`` to ``start + count``; the counters follow from the number."""
    made = np.zeros(count, dtype=ROW)
    made["number"] = np.arange(start, start + count)
    packets = np.arange(start, start + count, dtype=np.int64) % 7 + 1
    made["packets"], made["octets"] = packets, packets * 100
    return Rows(made, packets, packets * 100)


class Message(NamedTuple):
    export_time_s: int
    sequence: int
    observation_domain: int
    numbers: list[int]  # empty: a Message with templates or options
    options: tuple[int, ...] = ()  # the options record, if there is one
    template_id: int = 0  # of the Template that is in it, or of the Data Records

    @classmethod
    def parse(cls, data: bytes) -> Message:
        version, length, export_time_s, sequence, domain, set_id, set_length = HEADER.unpack_from(data)
        assert (version, length, set_length) == (10, len(data), len(data) - 16)
        if set_id == 2:
            number, count, _, octets = struct.unpack(">HHHH", data[HEADER.size :])
            assert (count, octets) == (1, 8)
            return cls(export_time_s, sequence, domain, [], template_id=number)
        if set_id == OPTIONS_ID:
            return cls(export_time_s, sequence, domain, [], OPTIONS.unpack(data[HEADER.size :]))
        assert set_id >= DATA_ID
        body = np.frombuffer(data[HEADER.size :], dtype=ROW)
        return cls(export_time_s, sequence, domain, body["number"].tolist(), template_id=set_id)


def numbers_of(messages: list[Message]) -> list[int]:
    return [number for message in messages for number in message.numbers]


def templates_of(messages: list[Message]) -> list[Message]:
    return [message for message in messages if not message.numbers and not message.options]


def options_of(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message.options]


def check_sequence(messages: list[Message]) -> None:
    """RFC 7011, section 3.1: each Sequence Number is the count of Data Records before; the first is 0."""
    expected = 0
    for message in messages:
        assert message.sequence == expected
        expected += len(message.numbers) + bool(message.options)


def is_up(session: Sink) -> bool:
    """Whether the collector takes what it is sent. By a function: mypy takes a property for constant."""
    return session.reach is Reach.UP


def is_suspect(session: Sink) -> bool:
    """Whether what is sent does not seem to arrive."""
    return session.reach is Reach.SUSPECT


class UdpCollector:
    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        self.sock.bind((host, port))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.sources: set[int] = set()

    def raw(self) -> list[bytes]:
        """The datagrams that have come. A busy kernel may hand them over a moment after the send."""
        found = []
        while select.select([self.sock], [], [], 0.002)[0]:
            data, source = self.sock.recvfrom(65_536)
            self.sources.add(source[1])
            found.append(data)
        return found

    def messages(self) -> list[Message]:
        return [Message.parse(data) for data in self.raw()]

    def close(self) -> None:
        self.sock.close()


class TcpCollector:
    """Accepts one connection after another. ``sessions``: the Messages of each; ``partial``: bytes after the last."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, receive_buffer: int = 0) -> None:
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind((host, port))
        self.listener.listen()
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self.sessions: list[list[Message]] = []
        self.connection: socket.socket | None = None
        self.partial = b""
        self.ended = False

    def poll(self, limit: int = 1 << 30) -> TcpCollector:
        """Accept and read what is there, at most ``limit`` bytes. Gives itself: a condition can look at it at once."""
        if self.connection is None:
            try:
                self.connection, _ = self.listener.accept()
            except BlockingIOError:
                return self
            self.connection.setblocking(False)
            self.sessions.append([])
            self.partial, self.ended = b"", False
        while limit > 0:
            try:
                data = self.connection.recv(min(limit, 65_536))
            except BlockingIOError:
                break
            if not data:
                self.ended = True
                break
            limit -= len(data)
            self.partial += data
        while len(self.partial) >= HEADER.size:
            length = int.from_bytes(self.partial[2:4], "big")
            if len(self.partial) < length:
                break
            self.sessions[-1].append(Message.parse(self.partial[:length]))
            self.partial = self.partial[length:]
        return self

    def hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def close(self) -> None:
        self.hang_up()
        self.listener.close()


class Bench:
    """A loop on a clock that stands still until it is moved, and one session on it."""

    def __init__(self, config: CollectorConfig, encoder: Any = None, place: Any = None, header: Any = Header) -> None:
        self.now_ns = 5 * SECOND
        self.step_ns = 0  # of the wall clock
        self.loop = EventLoop(lambda: self.now_ns)
        self.interfaces = 0  # as many as there are names in the report
        self.session: TransportSession[Any, Any] = TransportSession(
            config, encoder or Encoder(), header, self.loop, self.report, place=place
        )
        self._next = 0

    @property
    def stats(self) -> ExportStats:
        return self.session.account

    @property
    def connected(self) -> bool:
        return self.session.reach.is_open

    def report(self, realtime_ns: int) -> Report:
        names = tuple(ReportedInterface(index, f"eth{index}") for index in range(self.interfaces))
        return Report(names, exported=Exported(self.stats.messages))

    @property
    def clock(self) -> ClockPair:
        return ClockPair(self.now_ns, REALTIME_NS + self.now_ns + self.step_ns)

    def open(self) -> None:
        """Begin, and let the lead of the Templates pass."""
        self.session.open(self.clock, self.now_ns)
        while self._leads():
            self.now_ns += LEAD_NS
            self.rounds(2)

    def _leads(self) -> bool:
        return self.now_ns < self.session._loader.announcer.data_from_ns and self.session.reach.is_open

    def send(self, count: int) -> list[int]:
        """Send Data Records with the next ``count`` numbers, burst after burst; return these."""
        sent = self.offer(count)
        while self._wait_for_burst():
            self.loop.run_once(0)
            self.settle()
            self.check()
        return sent

    def _wait_for_burst(self) -> bool:
        """Moves the clock to the next burst, or behind the lead of the Templates, if either is waited for."""
        waits = getattr(self.session._link, "_pace_timer", None) is not None or self._leads()
        self.now_ns += PACE_NS if waits else 0
        return waits

    def _wait_for_more(self) -> None:
        """Moves the clock while the spool is being sent, and while the last Messages arrive."""
        session = self.session
        from_spool = session.reach.is_open and not is_suspect(session) and bool(session._waiting.replay)
        if not self._wait_for_burst() and (from_spool or (session._closing and not session.closed)):
            self.now_ns += PACE_NS

    def offer(self, count: int) -> list[int]:
        """As ``send``, but the clock stands still: one burst may leave."""
        start, self._next = self._next, self._next + count
        self.session.send([rows(start, count)], self.clock, self.now_ns)
        self.settle()
        self.check()
        return list(range(start, self._next))

    def rounds(self, count: int = 3) -> None:
        for _ in range(count):
            self.loop.run_once(0)
            self.settle()
        self.check()

    def settle(self) -> None:
        """Let the disk do what it has to do."""
        replay = self.session._waiting.replay
        while replay is not None and replay._disk.busy:
            self.loop.run_once(100_000_000)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Run the loop until ``condition``; the kernel gets seconds, the session's clock moves for bursts only."""
        for _ in range(1000):
            if condition():
                return
            self._wait_for_more()
            self.loop.run_once(5_000_000)
            self.settle()
            self.check()
        raise AssertionError(f"never happened: {what}")

    def move(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND)
        self.rounds()

    def check(self) -> None:
        """Every flow is accounted for."""
        stats = self.stats
        found = stats.sent + stats.not_sent_total() + stats.queued + stats.spooled + stats.moved_away
        assert stats.seen + stats.taken_over == found
        assert stats.seen.flows == self._next + stats.moved_in.flows or not self._next
        for waiting in (stats.queued, stats.spooled):
            assert min(waiting.flows, waiting.packets, waiting.octets) >= 0

    def close(self) -> None:
        if not self.session.closed:
            self.session.close(self.now_ns, self.now_ns)
            self.rounds()
        assert self.session.closed
        self.check()
        assert self.stats.queued == Tally()
        self.loop.close()


def udp_config(port: int, **changes: object) -> CollectorConfig:
    config = CollectorConfig(host="127.0.0.1", name="main", port=port, transport="udp", observation_domain=7)
    return replace(config, **changes)  # type: ignore[arg-type]


def tcp_config(port: int, **changes: object) -> CollectorConfig:
    return replace(udp_config(port, transport="tcp"), **changes)  # type: ignore[arg-type]


def free_port(kind: int, host: str = "127.0.0.1") -> int:
    """A port on which nothing listens, and that no connection gets by itself as its own: those begin at 32768.

    Each worker of pytest-xdist has 3,000. hypothesis gives the same random numbers to all processes, the system none.
    """
    first = 20_000 + 3_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4)
    for port in random.SystemRandom().sample(range(first, first + 3_000), 100):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, kind) as sock:
            sock.bind((host, port))
            return port
    raise OSError("no free port")
