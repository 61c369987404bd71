"""The packet capture agent's server: who connects gets selected packets as a pcap stream.

It has no part in capturing: packets come from a tap (``Tap``). Nothing blocks, and memory is bounded: by
``max_clients`` queues, by the recorder, and by so many connections that have no stream yet, or no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

from netobs.base import clock
from netobs.base.clock import ClockPair
from netobs.base.errors import NetobsError
from netobs.base.log import printable
from netobs.base.loop import EventLoop, Timer
from netobs.base.throttle import LogThrottle
from netobs.config.addresses import Endpoint
from netobs.config.schema import PacketCaptureConfig
from netobs.config.text import nearest, quoted
from netobs.kernel.interfaces import Interface
from netobs.pcap.distribution import Distribution
from netobs.pcap.filters import compile_filter
from netobs.pcap.filters.simple import is_simple
from netobs.pcap.formats.stream import common_link
from netobs.pcap.selection import LINK_ETHERNET, Filter, Selection
from netobs.pcap.server.admission import Admission
from netobs.pcap.server.client_stream import Client, Terms
from netobs.pcap.server.compiling import Compiler, compile_configured
from netobs.pcap.server.connection import Connection
from netobs.pcap.server.peer import GROUP
from netobs.pcap.server.recorder import Recorder
from netobs.pcap.server.request import Refusal, Request, parse_request
from netobs.pcap.stats import StreamCounts
from netobs.pcap.tap.tap import Tap

TICK_NS = 50_000_000
"""How often the tap is read when it has little, and how exact the limits of time are."""
STOP_NS = 2 * clock.NS_PER_S
"""How long the clients have at the end of the daemon to take what waits for them."""

_LAST_READS = 64  # of READ_BYTES each
_NAMES_SAID = 20


class PacketServer:
    """``start`` -> the loop runs -> ``stop``, until ``closed`` -> ``close``."""

    def __init__(
        self,
        config: PacketCaptureConfig,
        source: Tap,
        loop: EventLoop,
        read_pair: Callable[[], ClockPair] = clock.read_pair,
        group: str = GROUP,
    ) -> None:
        """``group``: who, beside root and this process's user, may connect by TCP from this host.

        :raises NetobsError: a certificate cannot be used.
        """
        self._config = config
        self._source = source
        self._loop = loop
        self._compiler = Compiler(loop, config.filter_names)
        self._distribution = Distribution(source, loop, read_pair)
        self.recorder = (
            Recorder(config.recorder_ns, config.recorder_max_bytes, config.snaplen) if config.recorder_ns else None
        )
        self.admission = Admission(config, source, loop, self, group)
        self._clients: dict[Connection, Client] = {}
        self._preparing: dict[Connection, Callable[[], None]] = {}  # their filters are being compiled; how to end that
        self._throttle = LogThrottle()
        self.clients_ever = 0
        self.ended = StreamCounts()
        """Of clients that are gone."""
        self._filter: Filter
        self._tick_timer: Timer | None = None
        self._stop_timer: Timer | None = None

    def start(self, now_ns: int) -> None:
        """Compile the configured filter, listen, begin to record. May block while names are resolved.

        :raises NetobsError: it cannot be done; the message names the key.
        """
        self._filter = compile_configured(self._config)
        self.admission.listener.open()
        self._source.set_own_port(self.addresses[0].port)
        if self.recorder is not None:
            subscription = self._distribution.subscribe(Selection(self._filter), self.recorder, now_ns)
            self.recorder.losses = subscription.losses_from_now()
            self._keep_ticking(now_ns)

    @property
    def addresses(self) -> list[Endpoint]:
        """Where it listens."""
        return self.admission.listener.addresses

    @property
    def closed(self) -> bool:
        """Whether there is no connection."""
        return not self.admission.connections

    def stop(self, now_ns: int) -> None:
        """Let nobody in, and end the streams, with what was captured so far. ``closed`` follows soon."""
        self.admission.listener.close()
        for _ in range(_LAST_READS):
            if not self._distribution.read_more(now_ns):
                break
        for client in tuple(self._clients.values()):
            client.finish("stop", now_ns)
        for connection in tuple(self.admission.connections):
            if not connection.decided or connection in self._preparing:
                self.refuse(connection, Refusal("the daemon is stopping", reason="stop"), now_ns)
        self._stop_timer = self._loop.call_at(now_ns + STOP_NS, self._abort_all)

    def close(self, now_ns: int) -> None:
        """Free all, whatever waits."""
        self.admission.listener.close()
        self._abort_all(now_ns)
        self._compiler.close()
        self._distribution.close(now_ns)
        for timer in (self._tick_timer, self._stop_timer):
            if timer is not None:
                timer.cancel()

    @property
    def clients(self) -> list[Client]:
        """Those that have a stream."""
        return list(self._clients.values())

    @property
    def total(self) -> StreamCounts:
        """Over all clients that there ever were."""
        return sum((client.counts for client in self._clients.values()), self.ended)

    def account(self, now_ns: int) -> Iterator[str]:
        """The whole account, as lines of the log."""
        yield (
            f"packet capture: {len(self._clients)} clients now, {self.clients_ever} ever, of "
            f"{self.admission.connections_ever} connections; {self._distribution.packets} packets read"
        )
        if self._throttle.withheld:
            yield f"packet capture: {self._throttle.withheld} streams without a line in the log, as there were so many"
        for reason, count in sorted(self.admission.refused.items()):
            yield f"packet capture: refused, {reason}: {count} connections"
        for client in self._clients.values():
            yield f"{client}: {client.counts}; {client.connection.outbox.held_bytes} bytes wait"
        if self.clients_ever:
            yield f"packet capture, all clients: {self.total}"
        if self.recorder is not None:
            yield f"packet recorder: {self.recorder.account(now_ns)}"

    # What connections tell (connection.Owner).

    def on_request(self, connection: Connection, line: bytes, now_ns: int) -> None:
        """Parse it, compile its filter if it has one of its own, begin the stream; or refuse."""
        try:
            request = parse_request(line)
            self._check(request, connection)
        except Refusal as refusal:
            self.refuse(connection, refusal, now_ns)
            return
        if not request.filter or request.filter == self._config.filter:
            self._begin(connection, request, self._filter, now_ns)
            return

        def compiled(result: Filter | NetobsError, later_ns: int) -> None:
            self._preparing.pop(connection, None)
            if isinstance(result, NetobsError):
                self.refuse(connection, Refusal(str(result), reason="filter"), later_ns)
            else:
                self._begin(connection, request, result, later_ns)

        try:
            if all(map(is_simple, request.filter)):
                self._begin(connection, request, compile_filter(request.filter), now_ns)
            else:
                self._preparing[connection] = self._compiler.submit(request.filter, connection.peer, compiled, now_ns)
        except NetobsError as error:
            compiled(error, now_ns)

    def refuse(self, connection: Connection, refusal: Refusal, now_ns: int) -> None:
        """It gets no stream."""
        self._preparing.pop(connection, lambda: None)()
        self.admission.refuse(connection, refusal, now_ns)

    def on_end_line(self, connection: Connection, now_ns: int) -> None:
        """With what was captured so far."""
        self._distribution.read(now_ns)
        if connection in self._clients:
            self._clients[connection].finish("asked", now_ns)

    def on_drained(self, connection: Connection, now_ns: int) -> None:
        """A recording goes on."""
        if connection in self._clients:
            self._clients[connection].play(now_ns)

    def on_ended(self, connection: Connection, reason: str, now_ns: int) -> None:
        """Its stream is over, or there was none."""
        self._preparing.pop(connection, lambda: None)()
        client = self._clients.pop(connection, None)
        if client is not None:
            client.leave(now_ns)
            client.log_end(reason)
            self.ended += client.counts
        self.admission.ended(connection, reason, now_ns)

    def on_closed(self, connection: Connection, now_ns: int) -> None:
        """Forget it."""
        self.admission.closed(connection)

    def _check(self, request: Request, connection: Connection) -> None:
        """Whether it can be served beside the others. Raises Refusal."""
        self.admission.check_place(connection.peer, [each.peer for each in (*self._clients, *self._preparing)])
        if request.recorded and self.recorder is None:
            raise Refusal("nothing is recorded here", "set packet_capture.recorder", "recorded")
        if request.recorded and any(client.recording for client in self._clients.values()):
            # One at a time: what a slow client still has to get is kept for it, beside what is recorded meanwhile.
            raise Refusal("the recording is being sent to another client", "try again later", "recorded")

    def _begin(self, connection: Connection, request: Request, chosen: Filter, now_ns: int) -> None:
        try:
            self._begin_stream(connection, request, chosen, now_ns)
        except NetobsError as error:
            refusal = error if isinstance(error, Refusal) else Refusal(str(error), reason="tap")
            self.refuse(connection, refusal, now_ns)
        else:
            self._keep_ticking(now_ns)

    def _begin_stream(self, connection: Connection, request: Request, chosen: Filter, now_ns: int) -> None:
        """Raises NetobsError."""
        interface = self._interface(request.interface) if request.interface else None
        context = self._distribution.context(now_ns)
        terms = Terms(request.completed(self._config), chosen, interface, self._link(interface))
        known, recording = context.interfaces, None
        if self.recorder is not None and request.recorded:
            recording = self.recorder.recording(terms.selection.ifindex, now_ns)
            known = recording.interfaces

        def captured() -> Sequence[Interface]:
            return [each for each in self._source.interfaces() if not interface or each.index == interface.index]

        client = Client(connection, terms, self._config, known, captured, context, recording)
        if recording is None:
            subscription = self._distribution.subscribe(terms.selection, client, now_ns)
            client.losses = subscription.losses_from_now()
            client.left = lambda later_ns: self._distribution.unsubscribe(subscription, client, later_ns)
        self._clients[connection] = client
        self.clients_ever += 1
        client.is_logged = self._throttle.may_say(self.clients_ever, now_ns)
        client.begin(now_ns)

    def _interface(self, name: str) -> Interface:
        """The interface ``name``, if it can be captured. Raises Refusal."""
        captured = {each.name: each for each in self._source.interfaces()}
        if name not in captured:
            captured = {each.name: each for each in self._source.capturable()}
        if name not in captured:
            raise _not_captured(name, list(captured))
        return captured[name]

    def _link(self, interface: Interface | None) -> int:
        """The link type of a classic pcap stream."""
        if interface is not None:
            return common_link([interface])
        if any(each.has_ethernet for each in self._source.interfaces()):  # the kernel need not be asked
            return LINK_ETHERNET
        return common_link(self._source.capturable())

    def _keep_ticking(self, now_ns: int) -> None:
        if self._tick_timer is None:
            self._tick_timer = self._loop.call_at(now_ns + TICK_NS, self._tick)

    def _tick(self, now_ns: int) -> None:
        """Run periodic checks, as long as there is anybody whom they concern."""
        self._tick_timer = None
        self._distribution.read(now_ns)
        context = self._distribution.context(now_ns)
        for client in tuple(self._clients.values()):
            client.check(context)
        if self.recorder is not None:
            self.recorder.check(now_ns)
        if self._clients or self._distribution.active:
            self._keep_ticking(now_ns)

    def _abort_all(self, now_ns: int) -> None:
        for connection in tuple(self.admission.connections):
            connection.abort("netobs ends", now_ns)


def _not_captured(name: str, names: Sequence[str]) -> Refusal:
    near = nearest(name, names)
    listed = ", ".join(map(printable, names[:_NAMES_SAID])) + (", ..." if len(names) > _NAMES_SAID else "")
    hint = f"did you mean {quoted(near)}? " if near else ""
    return Refusal(f"interface {quoted(name)} is not captured", f"{hint}captured are: {listed or 'none'}", "interface")
