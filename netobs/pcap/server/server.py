"""The packet capture agent's server: who connects gets selected packets as a pcap stream.

It has no part in capturing: packets come from a tap (``PacketSource``). Nothing blocks, and memory is bounded: by
``max_clients`` queues, by the recorder, and by so many connections that have no stream yet, or no more.
"""

from __future__ import annotations

from typing import Callable

from netobs.base import clock
from netobs.base.clock import ClockPair
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop, Timer
from netobs.config.addresses import Endpoint
from netobs.config.schema import PacketCaptureConfig
from netobs.pcap.distribution import Distribution
from netobs.pcap.formats import MAGIC_NUMBERS
from netobs.pcap.selection import Filter, Selection
from netobs.pcap.server.admission import Door
from netobs.pcap.server.client_streams import Clients
from netobs.pcap.server.compiling import CompileFilter, Compiler, compile_configured
from netobs.pcap.server.connection import REQUEST_NS, Connection, Phase
from netobs.pcap.server.recorder import Recorder
from netobs.pcap.server.request import Refusal, Request, parse_request
from netobs.pcap.source import PacketSource
from netobs.pcap.stats import PacketCaptureStats

TICK_NS = 50_000_000
"""How often the tap is read when it has little, and how exact the limits of time are."""
STOP_NS = 2 * clock.NS_PER_S
"""How long the clients have at the end of the daemon to take what waits for them."""

_LAST_READS = 64  # of READ_BYTES each


class PacketServer:
    """``start`` -> the loop runs -> ``stop``, until ``closed`` -> ``close``."""

    def __init__(
        self,
        config: PacketCaptureConfig,
        source: PacketSource,
        loop: EventLoop,
        compile_filter: CompileFilter,
        read_pair: Callable[[], ClockPair] = clock.read_pair,
    ) -> None:
        """Raises NetobsError if a certificate cannot be used."""
        self._config = config
        self._source = source
        self._loop = loop
        self._compile = compile_filter
        self._compiler = Compiler(loop, compile_filter)
        self._distribution = Distribution(source, loop, read_pair)
        self._recorder = (
            Recorder(config.recorder_ns, config.recorder_max_bytes, config.snaplen) if config.recorder_ns else None
        )
        self._clients = Clients(config, self._distribution, self._recorder)
        self._door = Door(config, source, loop, self)
        self._preparing: set[Connection] = set()  # their filters are being compiled
        self._probed: set[Connection] = set()
        self._filter: Filter
        self._tick_timer: Timer | None = None
        self._stop_timer: Timer | None = None

    def start(self, now_ns: int) -> None:
        """Compile the configured filter, listen, begin to record. May block while names are resolved.

        :raises NetobsError: it cannot be done; the message names the key.
        """
        self._filter = compile_configured(self._compile, self._config)
        self._door.open()
        self._source.set_own_port(self._door.addresses[0].port)
        if self._recorder is not None:
            subscription = self._distribution.subscribe(Selection(self._filter), self._recorder, now_ns)
            self._recorder.losses = subscription.losses
            self._keep_ticking(now_ns)

    @property
    def addresses(self) -> list[Endpoint]:
        """Where it listens."""
        return self._door.addresses

    @property
    def closed(self) -> bool:
        """Whether there is no connection."""
        return not self._door.connections

    def stop(self, now_ns: int) -> None:
        """Let nobody in, and end the streams, with what was captured so far. ``closed`` follows soon."""
        self._door.close()
        for _ in range(_LAST_READS):
            if not self._distribution.read_more(now_ns):
                break
        self._clients.finish("stop", now_ns)
        for connection in self._door.connections:
            if self._door.is_undecided(connection) or connection in self._preparing:
                self._refuse(connection, Refusal("the daemon is stopping", reason="stop"), now_ns)
        self._stop_timer = self._loop.call_at(now_ns + STOP_NS, self._abort_all)

    def close(self, now_ns: int) -> None:
        """Free all, whatever waits."""
        self._door.close()
        self._abort_all(now_ns)
        self._distribution.close(now_ns)
        for timer in (self._tick_timer, self._stop_timer):
            if timer is not None:
                timer.cancel()

    def stats(self, now_ns: int) -> PacketCaptureStats:
        """The state of everything now."""
        return PacketCaptureStats(
            clients=self._clients.stats(),
            clients_ever=self._clients.ever,
            connections_ever=self._door.connections_ever,
            refused=dict(self._door.refused),
            packets_read=self._distribution.packets,
            ended=self._clients.ended,
            recorder=self._recorder.stats(now_ns) if self._recorder else None,
        )

    # What connections tell (connection.Owner).

    def on_request(self, connection: Connection, line: bytes, now_ns: int) -> None:
        """Parse it, compile its filter if it has one of its own, begin the stream; or refuse."""
        self._door.decided(connection)
        try:
            request = parse_request(line)
            self._clients.check_place(request, len(self._preparing))
        except Refusal as refusal:
            self._refuse(connection, refusal, now_ns)
            return
        if not request.filter or request.filter == self._config.filter:
            self._begin(connection, request, self._filter, now_ns)
            return
        self._preparing.add(connection)

        def compiled(result: Filter | NetobsError, later_ns: int) -> None:
            self._preparing.discard(connection)
            if connection.phase is not Phase.OPEN:
                return  # it is gone
            if isinstance(result, NetobsError):
                self._refuse(connection, Refusal(str(result), reason="filter"), later_ns)
            else:
                self._begin(connection, request, result, later_ns)

        self._compiler.submit(request.filter, compiled, now_ns)

    def on_late_request(self, connection: Connection, now_ns: int) -> None:
        """A part of a line is no request."""
        message = f"the request did not end within {REQUEST_NS // 1_000_000} ms; it is one line, ended by a newline"
        self._refuse(connection, Refusal(message), now_ns)

    def on_silent_end(self, connection: Connection, now_ns: int) -> None:
        """`nc -N` and a port scan look the same. The first bytes of the header tell: a scanner's host answers them
        with a reset, and nothing was attached for it."""
        try:
            self._clients.check_place(Request(), len(self._preparing))
        except Refusal as refusal:
            self._refuse(connection, refusal, now_ns)
            return
        self._probed.add(connection)
        connection.outbox.put(MAGIC_NUMBERS[self._config.format])
        connection.flush(now_ns)

    def on_end_line(self, connection: Connection, now_ns: int) -> None:
        """With what was captured so far."""
        self._distribution.read(now_ns)
        self._clients.finish_one(connection, "asked", now_ns)

    def on_drained(self, connection: Connection, now_ns: int) -> None:
        """A recording goes on."""
        self._clients.go_on(connection, now_ns)

    def on_ended(self, connection: Connection, reason: str, now_ns: int) -> None:
        """Its stream is over, or there was none."""
        self._preparing.discard(connection)
        self._clients.end(connection, reason, now_ns)
        self._door.ended(connection, reason, now_ns)

    def on_closed(self, connection: Connection, now_ns: int) -> None:
        """Forget it."""
        self._probed.discard(connection)
        self._door.left(connection)

    def _begin(self, connection: Connection, request: Request, chosen: Filter, now_ns: int) -> None:
        already = len(MAGIC_NUMBERS[self._config.format]) if connection in self._probed else 0
        try:
            self._clients.begin(connection, request, chosen, already, now_ns)
        except Refusal as refusal:
            self._refuse(connection, refusal, now_ns)
        else:
            self._keep_ticking(now_ns)

    def _refuse(self, connection: Connection, refusal: Refusal, now_ns: int) -> None:
        self._preparing.discard(connection)
        self._door.refuse(connection, refusal, now_ns, quietly=connection in self._probed)

    def _keep_ticking(self, now_ns: int) -> None:
        if self._tick_timer is None:
            self._tick_timer = self._loop.call_at(now_ns + TICK_NS, self._tick)

    def _tick(self, now_ns: int) -> None:
        """What time brings, as long as there is anybody to whom it may."""
        self._tick_timer = None
        self._distribution.read(now_ns)
        self._clients.check(now_ns)
        if self._recorder is not None:
            self._recorder.check(now_ns)
        if self._clients or self._distribution.active:
            self._keep_ticking(now_ns)

    def _abort_all(self, now_ns: int) -> None:
        for connection in self._door.connections:
            connection.abort("netobs ends", now_ns)
