"""The clients that have a stream: of what is captured now, or of what the recorder keeps."""

from __future__ import annotations

from collections.abc import Sequence

from netobs.base.errors import NetobsError
from netobs.config.schema import PacketCaptureConfig
from netobs.config.text import nearest, quoted
from netobs.kernel.interfaces import Interface
from netobs.pcap.distribution import Distribution
from netobs.pcap.selection import Filter
from netobs.pcap.server.channel import Channel, Channels, common_link, stream_of
from netobs.pcap.server.client_stream import Client, terms_of
from netobs.pcap.server.connection import Connection
from netobs.pcap.server.recorder import Recorder, Recording
from netobs.pcap.server.request import Refusal, Request
from netobs.pcap.source import Moment
from netobs.pcap.stats import ClientStats, StreamCounts
from netobs.pcap.tap.layout import LINK_ETHERNET

_NAMES_SAID = 20


class Clients:
    """One for each connection with a stream, ``max_clients`` at most."""

    def __init__(self, config: PacketCaptureConfig, distribution: Distribution, recorder: Recorder | None) -> None:
        self.ever = 0
        self.ended = StreamCounts()
        """Of those that are gone."""
        self._config = config
        self._distribution = distribution
        self._recorder = recorder
        self._channels = Channels(distribution)
        self._clients: dict[Connection, Client] = {}
        self._playback: _Playback | None = None

    def __len__(self) -> int:
        return len(self._clients)

    def check_place(self, request: Request, preparing: int) -> None:
        """Whether there is place for one more, beside those and so many that are ``preparing``. Raises Refusal."""
        places = self._config.max_clients
        if len(self._clients) + preparing >= places:
            problem = f"{places} clients are connected already, as many as packet_capture.max_clients allows"
            raise Refusal(problem, reason="max_clients")
        if request.recorded and self._recorder is None:
            raise Refusal("nothing is recorded here", "set packet_capture.recorder", "recorded")
        if request.recorded and self._playback is not None:
            # One at a time: what a slow client still has to get is kept for it, beside what is recorded meanwhile.
            raise Refusal("the recording is being sent to another client", "try again later", "recorded")

    def begin(self, connection: Connection, request: Request, chosen: Filter, already: int, now_ns: int) -> None:
        """Begin the stream; the client has ``already`` so many bytes of its header. Raises Refusal."""
        interface = self._interface(request.interface) if request.interface else None
        moment = self._distribution.moment(now_ns)
        terms = terms_of(request, self._config, chosen, interface, self._link(interface))
        client = Client(connection, terms, self._config, moment)
        if request.recorded:
            self._begin_recorded(client, moment)
        else:
            try:
                channel, losses = self._channels.join(terms.selection, terms.format, terms.link, terms.snaplen, moment)
            except NetobsError as error:
                raise Refusal(str(error), reason="tap") from error
            self._add(client)
            client.begin(channel, losses, lambda later_ns: self._channels.leave(channel, later_ns), already, now_ns)

    def end(self, connection: Connection, reason: str, now_ns: int) -> None:
        """The stream of ``connection``, if it had one, is over; ``reason`` if it broke."""
        client = self._clients.pop(connection, None)
        if client is None:
            return
        client.leave(now_ns)
        client.log_end(reason)
        self.ended += client.stats().counts
        if self._playback is not None and self._playback.client is client:
            self._playback = None

    def go_on(self, connection: Connection, now_ns: int) -> None:
        """``connection`` has sent what waited: a recording goes on."""
        if self._playback is not None and self._playback.client.connection is connection:
            self._playback.go_on(now_ns)

    def check(self, now_ns: int) -> None:
        """What time brings."""
        moment = self._distribution.moment(now_ns)
        for client in tuple(self._clients.values()):
            client.check(moment)
        if self._playback is not None:
            self._playback.go_on(now_ns)

    def finish(self, reason: str, now_ns: int) -> None:
        """End all streams as they should end. ``reason``: a key of client.ENDS."""
        for client in tuple(self._clients.values()):
            client.finish(reason, now_ns)

    def finish_one(self, connection: Connection, reason: str, now_ns: int) -> None:
        """The same for the stream of ``connection``, if it has one."""
        if connection in self._clients:
            self._clients[connection].finish(reason, now_ns)

    def stats(self) -> tuple[ClientStats, ...]:
        """Of each client."""
        return tuple(client.stats() for client in self._clients.values())

    def _interface(self, name: str) -> Interface:
        """The interface ``name``, if it can be captured. Raises Refusal."""
        captured = {each.name: each for each in self._distribution.interfaces}
        if name not in captured:
            captured = {each.name: each for each in self._distribution.capturable()}
        if name not in captured:
            raise _not_captured(name, list(captured))
        return captured[name]

    def _link(self, interface: Interface | None) -> int:
        """The link type of a classic pcap stream."""
        if interface is not None:
            return common_link([interface])
        if any(each.has_ethernet for each in self._distribution.interfaces):  # the kernel need not be asked
            return LINK_ETHERNET
        return common_link(self._distribution.capturable())

    def _add(self, client: Client) -> None:
        self._clients[client.connection] = client
        self.ever += 1

    def _begin_recorded(self, client: Client, moment: Moment) -> None:
        assert self._recorder is not None
        terms = client.terms
        ifindex = terms.selection.ifindex
        recording = self._recorder.recording(ifindex, moment.now_ns)
        stream = stream_of(terms.format, terms.link, terms.snaplen, terms.filter.text)
        channel = Channel(stream, terms.snaplen, recording.interfaces, lambda: self._channels.captured(ifindex))
        client.since_ns = recording.since_ns
        self._playback = _Playback(client, channel, recording)
        self._add(client)
        client.begin(channel, lambda: recording.lost, lambda _now_ns: None, 0, moment.now_ns)
        client.connection.wait_writable()


class _Playback:
    """Sends a recording to a client, as fast as its socket takes it. Nothing is dropped."""

    def __init__(self, client: Client, channel: Channel, recording: Recording) -> None:
        self.client = client
        self._channel = channel
        self._recording = recording

    def go_on(self, now_ns: int) -> None:
        """Send the next part, if the one before is gone and the client's rate allows it."""
        client = self.client
        if not client.streaming or client.connection.outbox or not client.may_send(now_ns):
            return
        part = self._recording.take()
        if part is None:
            client.finish("recording", now_ns)
            return
        batch, rows, offset_ns = part
        records = self._channel.format.records(batch, rows, offset_ns, self._recording.interfaces)
        client.take_recorded(records, len(rows) - len(records), now_ns)
        client.connection.wait_writable()


def _not_captured(name: str, names: Sequence[str]) -> Refusal:
    near = nearest(name, names)
    listed = ", ".join(names[:_NAMES_SAID]) + (", ..." if len(names) > _NAMES_SAID else "")
    hint = f"did you mean {quoted(near)}? " if near else ""
    return Refusal(f"interface {quoted(name)} is not captured", f"{hint}captured are: {listed or 'none'}", "interface")
