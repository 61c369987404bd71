"""The packet capture agent's server: who connects gets selected packets as a pcap stream.

It has no part in capturing: packets come from a tap (``Tap``). Nothing blocks, and memory is bounded: by
``max_clients`` queues, by the recorder, and by so many connections that have no stream yet, or no more.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Callable

from netobs.base import clock
from netobs.base.clock import ClockPair
from netobs.base.errors import FilterError, NetobsError
from netobs.base.log import printable
from netobs.base.loop import EventLoop
from netobs.base.throttle import LogThrottle
from netobs.config.schema import PacketCaptureConfig
from netobs.config.text import nearest, quoted
from netobs.kernel.interfaces import Interface
from netobs.kernel.listening import GROUP
from netobs.pcap.distribution import Distribution, ReadContext
from netobs.pcap.formats import stream_of
from netobs.pcap.formats.stream import REFUSAL, common_link
from netobs.pcap.selection import LINK_ETHERNET, Filter, Selection
from netobs.pcap.server.admission import Admission
from netobs.pcap.server.client_stream import TICK_NS, Client
from netobs.pcap.server.compiling import Compiler, compile_configured
from netobs.pcap.server.connection import Connection, Conversation, Gone, Stage, Wait
from netobs.pcap.server.recorder import Recorder
from netobs.pcap.server.request import Refusal, Request, parse_request
from netobs.pcap.stats import StreamCounts
from netobs.pcap.tap.tap import Tap

log = logging.getLogger("netobs.pcap")

STOP_NS = 2 * clock.NS_PER_S
"""How long the clients have at the end of the daemon to take what waits for them."""

_LAST_READS = 64  # of READ_BYTES each
_NAMES_SAID = 20


class PacketServer:
    """``start`` -> the loop runs -> ``stop``, until ``admission`` has no connections -> ``close``."""

    def __init__(
        self,
        config: PacketCaptureConfig,
        tap: Tap,
        loop: EventLoop,
        read_pair: Callable[[], ClockPair] = clock.read_pair,
        group: str = GROUP,
    ) -> None:
        """``group``: who, beside root and this process's user, may connect by TCP from this host.

        :raises NetobsError: a certificate cannot be used.
        """
        self.admission = Admission(config, tap, loop, self._converse, group)
        self.recorder = (
            Recorder(config.recorder_ns, config.recorder_max_bytes, config.snaplen) if config.recorder_ns else None
        )
        self.clients: list[Client] = []
        """Those that have a stream."""
        self.clients_ever = 0
        self.ended = StreamCounts()
        """Of clients that are gone."""
        self._config = config
        self._tap = tap
        self._loop = loop
        self._compiler = Compiler(loop, config.filter_names)
        self.distribution = Distribution(tap, loop, read_pair)
        self._throttle = LogThrottle()
        self._filter: Filter

    def start(self, now_ns: int) -> None:
        """Compile the configured filter, listen, begin to record. May block while names are resolved.

        :raises NetobsError: it cannot be done; the message names the key.
        """
        self._filter = compile_configured(self._config)
        self.admission.open()
        self._tap.set_own_port(self.admission.addresses[0].port)
        if self.recorder is not None:
            subscription = self.distribution.subscribe(Selection(self._filter), self.recorder, now_ns)
            self.recorder.losses = subscription.losses_from_now()
            self._record(now_ns)

    def stop(self, now_ns: int) -> None:
        """Let nobody in, and end the streams, with what was captured so far. The connections are gone soon."""
        self.admission.close()
        for _ in range(_LAST_READS):
            if not self.distribution.read_more(now_ns):
                break
        for client in tuple(self.clients):
            client.finish("stop", now_ns)
        with_stream = {client.connection for client in self.clients}
        for connection in tuple(self.admission.connections):
            if connection not in with_stream and connection.stage is not Stage.LEAVING:
                connection.fail(Refusal("the daemon is stopping", reason="stop"), now_ns)
        self._loop.call_at(now_ns + STOP_NS, self._end_all)

    def close(self, now_ns: int) -> None:
        """Free all, whatever waits."""
        self.admission.close()
        self._end_all(now_ns)
        self.distribution.close(now_ns)

    @property
    def total(self) -> StreamCounts:
        """Over all clients that there ever were."""
        return sum((client.counts for client in self.clients), self.ended)

    def state(self) -> dict[str, Any]:
        """The number of clients, the packets that all clients were sent, and those that they did not get, by reason."""
        total = self.total
        lost = {name: getattr(total, name) for name in ("not_sent", "queue_full", "beyond_rate", "other_link")}
        return {"clients": len(self.clients), "sent": total.sent, "lost": {**lost, "buffer_full": total.lost}}

    def account(self, now_ns: int) -> Iterator[str]:
        """The whole account, as lines of the log."""
        yield (
            f"packet capture: {len(self.clients)} clients now, {self.clients_ever} ever, of "
            f"{self.admission.connections_ever} connections; {self.distribution.packets} packets read"
        )
        if self._throttle.withheld:
            yield f"packet capture: {self._throttle.withheld} streams without a line in the log, as there were so many"
        for reason, count in sorted(self.admission.refused.items()):
            yield f"packet capture: refused, {reason}: {count} connections"
        for client in self.clients:
            yield f"{client}: {client.counts}; {client.connection.outbox.held_bytes} bytes wait"
        if self.clients_ever:
            yield f"packet capture, all clients: {self.total}"
        if self.recorder is not None:
            yield f"packet recorder: {self.recorder.account(now_ns)}"

    def _converse(self, connection: Connection, refusal: Refusal | None) -> Conversation:
        """A connection, from its accept to the end of its socket."""
        client, broken = None, ""
        try:
            try:
                yield Wait(connection.now_ns)  # until all who have left were noticed in this round of the loop
                if refusal is not None:
                    raise refusal
                yield from connection.shake_hands()
                line = yield from connection.request()
                client = yield from self._client(connection, line)
                yield from client.run(self._read)
            except NetobsError as error:
                self._refuse(connection, error)
            yield from connection.drain()
        except (Gone, OSError) as error:
            broken = connection.reason_of(error)
            connection.close()
        if client is not None:
            self._end(client, broken)
        self.admission.leave(connection, broken)
        if not connection.is_closed:
            with contextlib.suppress(Gone, OSError):
                yield from connection.linger()
        self.admission.forget(connection)

    def _refuse(self, connection: Connection, error: NetobsError) -> None:
        """Say why to the log and to the client. Raises Gone if it cannot be said."""
        reason = error.reason if isinstance(error, Refusal) else "filter" if isinstance(error, FilterError) else "tap"
        self.admission.count_refusal(connection.peer, reason, str(error), connection.now_ns)
        connection.stage = Stage.LEAVING
        if not connection.shook_hands:
            raise Gone(str(error))
        connection.outbox.put(REFUSAL + f"{printable(str(error))}\n".encode())

    def _client(self, connection: Connection, line: bytes) -> Generator[Wait, None, Client]:
        """Who gets the stream that ``line`` asks for. Raises NetobsError."""
        request = parse_request(line)
        self._check(request, connection)
        connection.stage = Stage.PLACED
        chosen = self._filter
        if request.filter and request.filter != self._config.filter:
            chosen = yield from self._compiler.compile(request.filter, connection)
        client = self._begin(connection, request.completed(self._config), chosen)
        self.clients.append(client)
        self.clients_ever += 1
        if self._throttle.may_say(self.clients_ever, connection.now_ns):
            client.is_logged = True
            log.info("%s: gets %s", client, client.terms)
        return client

    def _check(self, request: Request, connection: Connection) -> None:
        """Whether it can be served beside the others. Raises Refusal."""
        self.admission.check_place(connection.peer)
        if request.recorded and self.recorder is None:
            raise Refusal("nothing is recorded here", "set packet_capture.recorder", "recorded")
        if request.recorded and any(client.recording for client in self.clients):
            # One at a time: what a slow client still has to get is kept for it, beside what is recorded meanwhile.
            raise Refusal("the recording is being sent to another client", "try again later", "recorded")

    def _begin(self, connection: Connection, request: Request, chosen: Filter) -> Client:
        """Raises NetobsError."""
        now_ns = connection.now_ns
        interface = self._interface(request.interface) if request.interface else None
        selection = Selection(chosen, interface.index if interface else 0)
        context = self._read(now_ns)  # what was captured before is not for it
        recording = self.recorder.recording(selection.ifindex, now_ns) if self.recorder and request.recorded else None

        def captured() -> Sequence[Interface]:
            return [each for each in self._tap.interfaces() if not interface or each.index == interface.index]

        link, known, start_ns = self._link(interface), context.interfaces, now_ns
        if recording is not None:
            known, start_ns = recording.interfaces, recording.since_ns
        stream = stream_of(request.format, link, request.snaplen, chosen.text, known, captured, start_ns)
        client = Client(connection, request, chosen, interface, self._config, stream, captured, context, recording)
        if recording is None:
            subscription = self.distribution.subscribe(selection, client, now_ns)
            client.losses = subscription.losses_from_now()
            client.left = lambda later_ns: self.distribution.unsubscribe(subscription, client, later_ns)
        return client

    def _end(self, client: Client, broken: str) -> None:
        client.leave(client.connection.now_ns)
        if client.is_logged:
            log.info("%s: %s: %s", client, broken or client.end_reason, client.counts)
        self.clients.remove(client)
        self.ended += client.counts

    def _interface(self, name: str) -> Interface:
        """The interface ``name``, if it can be captured. Raises Refusal."""
        for known in (self._tap.interfaces, self._tap.capturable):  # the second asks the kernel
            captured = {each.name: each for each in known()}
            if name in captured:
                return captured[name]
        raise _not_captured(name, list(captured))

    def _link(self, interface: Interface | None) -> int:
        """The link type of a classic pcap stream."""
        if interface is not None:
            return common_link([interface])
        if any(each.has_ethernet for each in self._tap.interfaces()):  # the kernel need not be asked
            return LINK_ETHERNET
        return common_link(self._tap.capturable())

    def _read(self, now_ns: int) -> ReadContext:
        """Hand out what was captured."""
        self.distribution.read(now_ns)
        return self.distribution.context(now_ns)

    def _record(self, now_ns: int) -> None:
        assert self.recorder is not None
        self.distribution.read(now_ns)
        self.recorder.check(now_ns)
        self._loop.call_at(now_ns + TICK_NS, self._record)

    def _end_all(self, now_ns: int) -> None:
        for connection in tuple(self.admission.connections):
            connection.fail(Gone("netobs ends"), now_ns)


def _not_captured(name: str, names: Sequence[str]) -> Refusal:
    near = nearest(name, names)
    listed = ", ".join(map(printable, names[:_NAMES_SAID])) + (", ..." if len(names) > _NAMES_SAID else "")
    hint = f"did you mean {quoted(near)}? " if near else ""
    return Refusal(f"interface {quoted(name)} is not captured", f"{hint}captured are: {listed or 'none'}", "interface")
