"""(g) The Exporting Process: encoding by protocol and template, a second collector, the outage spool."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.text import table
from netobs.base import clock
from netobs.base.loop import EventLoop
from netobs.config import CollectorConfig
from netobs.encode.protocols import exporter
from netobs.export.session import TransportSession
from netobs.flow.records import FlowBatch, empty

TITLE = (
    "export: CPU us (user and system) for each flow. Encoding is Flow Records to Messages; the rest is the work of\n"
    "the Exporting Process on a batch, over UDP to sockets that nobody reads"
)
FLOWS = 100_000
MESSAGE_BYTES = 1400
_GIB = 1 << 30
TEMPLATES = ("default", "strict", "minimal", "full")
COLLECTORS = {
    "one collector": ["default"],
    "two, the same template": ["default", "default"],
    "two, another template": ["default", "minimal"],
}


def batch() -> FlowBatch:
    """IPv4 flows with random counts, TCP, that end now."""
    random = np.random.default_rng(1)
    records, pair = empty(FLOWS), clock.read_pair()
    records["src_addr"][:, 10:12] = records["dst_addr"][:, 10:12] = 0xFF
    records["src_addr"][:, 12:] = random.integers(1, 255, (FLOWS, 4))
    records["dst_addr"][:, 12:] = random.integers(1, 255, (FLOWS, 4))
    records["ethertype"], records["protocol"], records["ifindex"] = 0x0800, 6, 2
    for name, most in (("src_port", 65536), ("packets", 1000), ("octets", 1_000_000), ("tcp_flags", 256)):
        records[name] = random.integers(1, most, FLOWS)
    records["last_ns"] = pair.monotonic_ns
    records["first_ns"] = pair.monotonic_ns - random.integers(1, 10**9, FLOWS)
    return FlowBatch(records, pair)


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each protocol and template, and for each set of collectors."""
    rounds = 5 if quick else 15
    flows = batch()
    return [*_encoding(flows, rounds), *_collectors(flows, rounds), *_spooling(flows, rounds)]


def _encoding(flows: FlowBatch, rounds: int) -> Iterator[dict[str, Any]]:
    cases = [(protocol, name) for protocol in ("ipfix", "netflow9") for name in TEMPLATES] + [("netflow5", "")]
    made = {case: exporter(*case, boot_ns=flows.clock.monotonic_ns, sampling=1) for case in cases}
    samples: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for _ in range(rounds + 1):
        for case, (encoder, header, _) in made.items():
            head = header(
                flows.clock.realtime_ns // clock.NS_PER_S, 0, 1, flows.clock.realtime_ns - flows.clock.monotonic_ns
            )
            before = time.process_time_ns()
            for data_set in encoder.encode(flows).data_sets:
                encoder.data_messages(data_set, head, MESSAGE_BYTES)
            samples[case].append((time.process_time_ns() - before) / FLOWS / 1000)
    for (protocol, name), values in samples.items():
        octets = made[protocol, name].encoder.templates[0].dtype.itemsize
        yield _row(f"encode {protocol} {name}".rstrip(), values[1:], octets=octets)


def _collectors(flows: FlowBatch, rounds: int) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        setups = {name: stack.enter_context(_Exporting.to(templates)) for name, templates in COLLECTORS.items()}
        samples: dict[str, list[float]] = {name: [] for name in setups}
        for _ in range(rounds + 1):
            for name, exporting in setups.items():
                samples[name].append(exporting.export(flows) / FLOWS / 1000)
    for name, values in samples.items():
        yield _row(f"export, {name}", values[1:])


def _spooling(flows: FlowBatch, rounds: int) -> Iterator[dict[str, Any]]:
    """An outage of this many batches, then the return of the collector: from Data Sets to files, from files to TCP."""
    encoder, header, _ = exporter("ipfix", "default", 0, 1)
    data_sets = encoder.encode(flows).data_sets
    with TemporaryDirectory() as directory, closing(EventLoop()) as loop, closing(_Sink(loop)) as sink:
        config = CollectorConfig(
            host="127.0.0.1", port=sink.port, transport="tcp", observation_domain=1, spool=directory,
            spool_max_bytes=_GIB, spool_rate_bytes=_GIB, reconnect_max_ns=clock.NS_PER_S,
        )  # fmt: skip
        session: TransportSession[Any, Any] = TransportSession(config, encoder, header, loop)
        session.open(flows.clock, clock.monotonic_ns())
        while not bool(session.account.attempts):
            loop.run_once(100_000_000)
        written = []
        for _ in range(rounds):
            before = time.process_time_ns(), time.perf_counter_ns()
            session.send(data_sets, flows.clock, clock.monotonic_ns())
            while session.account.queued.flows:  # the spool has a thread
                loop.run_once(100_000_000)
            written.append((time.process_time_ns() - before[0], time.perf_counter_ns() - before[1]))
        sink.listen()
        while not sink.bytes:
            loop.run_once(100_000_000)
        before = time.process_time_ns(), time.perf_counter_ns()
        while session.account.sent.flows < FLOWS * rounds:
            loop.run_once(100_000_000)
        replayed = time.process_time_ns() - before[0], time.perf_counter_ns() - before[1]
        session.close(clock.monotonic_ns(), clock.monotonic_ns())
    yield _rate("spool, write", [cpu_ns / FLOWS for cpu_ns, _ in written], [wall_ns / FLOWS for _, wall_ns in written])
    yield _rate("spool, replay (with the receiver)", *([ns / FLOWS / rounds] for ns in replayed))


def _rate(what: str, cpu_ns: list[float], wall_ns: list[float]) -> dict[str, Any]:
    return _row(what, [ns / 1000 for ns in cpu_ns], flows_per_s=round(1e9 / statistics.median(wall_ns)))


class _Sink:
    """A TCP receiver on ``loop`` that comes up late."""

    def __init__(self, loop: EventLoop) -> None:
        self.bytes = 0
        self._loop = loop
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM)]
        self._sockets[0].bind(("127.0.0.1", 0))
        self.port = self._sockets[0].getsockname()[1]

    def listen(self) -> None:
        self._sockets[0].listen()
        self._loop.add_reader(self._sockets[0].fileno(), self._accept)

    def _accept(self, _now_ns: int) -> None:
        connection, _ = self._sockets[0].accept()
        self._sockets.append(connection)
        self._loop.add_reader(connection.fileno(), lambda _now_ns: self._read(connection))

    def _read(self, connection: socket.socket) -> None:
        self.bytes += len(connection.recv(1 << 20))

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def _row(what: str, samples_us: list[float], **more: Any) -> dict[str, Any]:
    return {"case": what, "us": statistics.median(samples_us), "samples_us": samples_us, **more}


class _Exporting:
    """The daemon's work on a batch: encodes it once for each template, and sends it by each session."""

    def __init__(self, templates: list[str], ports: list[int], loop: EventLoop) -> None:
        self._loop = loop
        self._exporters = {name: exporter("ipfix", name, 0, 1) for name in templates}
        self._sessions = []
        for name, port in zip(templates, ports):
            config = CollectorConfig(host="127.0.0.1", port=port, observation_domain=1)
            encoder, header, _ = self._exporters[name]
            session: TransportSession[Any, Any] = TransportSession(config, encoder, header, loop)
            session.open(clock.read_pair(), clock.monotonic_ns())
            self._sessions.append((name, session))

    @classmethod
    @contextmanager
    def to(cls, templates: list[str]) -> Iterator[_Exporting]:
        """An Exporting Process with a session, to a socket of its own, for each of ``templates``."""
        with ExitStack() as stack:
            loop = stack.enter_context(closing(EventLoop()))
            ports = []
            for _ in templates:
                sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sink.bind(("127.0.0.1", 0))
                ports.append(sink.getsockname()[1])
            yield cls(templates, ports, loop)

    def export(self, flows: FlowBatch) -> int:
        """Exports ``flows``; the CPU time, ns."""
        before = time.process_time_ns()
        encoded = {name: made.encoder.encode(flows).data_sets for name, made in self._exporters.items()}
        for name, session in self._sessions:
            session.send(encoded[name], flows.clock, clock.monotonic_ns())
        while any(session.account.queued.flows for _, session in self._sessions):
            self._loop.run_once(100_000_000)
        return time.process_time_ns() - before


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = [
        (row["case"], f"{row['us']:.3f}", str(row.get("octets", "")),
         f"{row['flows_per_s']:,}" if "flows_per_s" in row else "")
        for row in rows
    ]  # fmt: skip
    return table(("case", "us/flow", "octets of a record", "flows/s"), lines)
