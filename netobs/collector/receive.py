"""``netobs listen``: the built-in collector. Receives IPFIX (UDP, TCP), NetFlow v9 and v5 (UDP)."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TextIO

from netobs.base import clock
from netobs.base.errors import DecodeError, NetobsError
from netobs.base.ipfix import MAX_MESSAGE_BYTES, MESSAGE_HEADER
from netobs.collector.check import Checker
from netobs.collector.decode import Damaged, Decoded, Decoder
from netobs.collector.output import Printer, account_of, ending_quietly, interruptible
from netobs.collector.sockets import ANY, Exporter, drops, enlarge_buffer, exporter_of, local_addresses
from netobs.collector.work import MAX_STEPS

log = logging.getLogger("netobs.listen")

_MAX_STREAMS = 256
_MAX_COMPLAINTS = 1024
_STEPS_AT_ONCE = 2 * MAX_STEPS
"""After this much work of the decoder the next socket is read; about 256 datagrams of an ordinary exporter."""


@dataclass
class _Stream:
    """A TCP connection; the one with the lowest ``order`` has been idle for longest."""

    exporter: Exporter
    buffer: bytearray
    order: tuple[bool, int]


class Collector:
    """The Collecting Process: one UDP and one TCP socket per local address, any number of exporters.

    Raises NetobsError if the address is not available. ``port``: 0 lets the kernel choose; the attribute has it.
    ``on_problem`` is called for each damaged Message and each connection that is closed with a reason; without it,
    they are logged. ``idle_closed``: idle connections that were closed to make room for others.
    """

    def __init__(self, host: str, port: int, on_problem: Callable[[Exporter, str], None] | None = None) -> None:
        self.decoder = Decoder()
        self._selector = selectors.DefaultSelector()
        self._streams: dict[socket.socket, _Stream] = {}
        self._turns = self.idle_closed = 0
        self._on_problem = on_problem
        self._said: dict[str, int] = {}
        self._complained: set[Exporter] = set()
        self._sockets: list[socket.socket] = []
        try:
            self.port = self._open(host, port)
        except OSError as error:
            self.close()
            hint = "another program uses the port: choose another one" if error.errno == errno.EADDRINUSE else ""
            raise NetobsError(f"cannot listen on {host or '*'} port {port}: {error.strerror}", hint) from error

    def close(self) -> None:
        for sock in [*self._sockets, *self._streams]:
            sock.close()
        self._selector.close()

    def _open(self, host: str, port: int) -> int:
        """Bind TCP and UDP on every address of ``host``; returns the port."""
        for family, address in local_addresses(host):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sock = socket.socket(family, kind)
                self._sockets.append(sock)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host not in ANY)
                if kind == socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                enlarge_buffer(sock)
                sock.bind((address, port))
                port = sock.getsockname()[1]
                sock.setblocking(False)
        for sock in self._sockets:
            if sock.type == socket.SOCK_STREAM:
                sock.listen()
            self._selector.register(sock, selectors.EVENT_READ)
        return port

    def wake_on(self, descriptor: int) -> None:
        """Let ``receive`` return when ``descriptor`` can be read."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def receive(self, timeout_s: float | None = None) -> Iterator[tuple[Exporter, Decoded]]:
        """Wait at most ``timeout_s`` (None: without limit) and yield the Messages that have arrived.

        Each socket gets a bounded amount of work per round, so that one exporter cannot starve the others.
        """
        for key, _ in self._selector.select(timeout_s):
            sock = key.fileobj
            if not isinstance(sock, socket.socket):
                continue
            if sock in self._streams:
                yield from self._read_stream(sock)
            elif sock.type == socket.SOCK_STREAM:
                self._accept(sock)
            else:
                yield from self._read_datagrams(sock)
        self._say_losses()

    def _read_datagrams(self, sock: socket.socket) -> Iterator[tuple[Exporter, Decoded]]:
        begin = self.decoder.steps
        while self.decoder.steps - begin < _STEPS_AT_ONCE:
            try:
                message, address = sock.recvfrom(MAX_MESSAGE_BYTES)
            except OSError:
                return
            exporter = exporter_of("udp", address)
            found, problem = self._decode(message, exporter)
            if problem:
                self._complain(exporter, f"{'partly read' if found else 'ignored'}: {problem}")
            yield from found

    def _accept(self, sock: socket.socket) -> None:
        """Accept a connection. If there are too many, close the one that sent no whole Message for longest."""
        try:
            stream, address = sock.accept()
        except OSError:
            return
        if len(self._streams) >= _MAX_STREAMS:
            idlest = min(self._streams, key=lambda each: self._streams[each].order)
            self.idle_closed += 1
            what = f"closed: of {_MAX_STREAMS} connections it was idle for longest, and a new one needs its place"
            self._complain(self._streams[idlest].exporter, what)
            self._end(idlest)
        stream.setblocking(False)
        self._streams[stream] = _Stream(exporter_of("tcp", address), bytearray(), self._turn(is_useful=False))
        self._selector.register(stream, selectors.EVENT_READ)

    def _turn(self, is_useful: bool) -> tuple[bool, int]:
        self._turns += 1
        return is_useful, self._turns

    def _read_stream(self, stream: socket.socket) -> Iterator[tuple[Exporter, Decoded]]:
        state, problem = self._streams[stream], ""
        try:
            data = stream.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        state.buffer += data
        while not problem:
            message, problem = self._next_message(state.buffer)
            if not message:
                break
            state.order = self._turn(is_useful=True)
            found, problem = self._decode(message, state.exporter)
            yield from found
        if not (data or problem) and state.buffer:
            self.decoder.stats.malformed += 1
            problem = f"ended {len(state.buffer)} bytes into a Message"
        if problem:
            self._complain(state.exporter, f"closed: {problem}")
        if problem or not data:
            self._end(stream)

    def _next_message(self, buffer: bytearray) -> tuple[bytes, str]:
        """Take the next whole Message out of ``buffer``, if there is one; or the mistake in it."""
        if len(buffer) < MESSAGE_HEADER.itemsize:
            return b"", ""
        try:
            length = self.decoder.length(bytes(buffer[: MESSAGE_HEADER.itemsize]))
        except DecodeError as error:
            return b"", str(error)
        if len(buffer) < length:
            return b"", ""
        message = bytes(buffer[:length])
        del buffer[:length]
        return message, ""

    def _end(self, stream: socket.socket) -> None:
        state = self._streams.pop(stream)
        self._selector.unregister(stream)
        stream.close()
        self.decoder.forget(state.exporter)

    def _decode(self, message: bytes, exporter: Exporter) -> tuple[list[tuple[Exporter, Decoded]], str]:
        """The readable part of ``message``, and the mistake in it."""
        try:
            return [(exporter, self.decoder.decode(message, exporter))], ""
        except Damaged as error:
            return [(exporter, error.decoded)] if error.decoded else [], str(error)

    @property
    def dropped(self) -> int:
        """Datagrams that the kernel dropped because the sockets' buffers were full."""
        return sum(map(drops, self._sockets))

    def _say_losses(self) -> None:
        """Log losses when they begin, and each time they have doubled."""
        decoder = self.decoder
        for text, count in (
            ("the kernel dropped %d datagrams: they came faster than they could be read", self.dropped),
            ("%d octets are not read: their Messages are too much work", decoder.stats.unread_octets),
            (
                "%d times what was known of an Observation Domain was given up: there is too much",
                decoder.domains.given_up,
            ),
        ):
            if count >= self._said.get(text, 1):
                self._said[text] = 2 * count
                log.warning(text, count)

    def _complain(self, exporter: Exporter, text: str) -> None:
        """Log one line for each exporter, up to a limit."""
        if self._on_problem is not None:
            self._on_problem(exporter, text)
            return
        if exporter in self._complained or len(self._complained) >= _MAX_COMPLAINTS:
            return
        self._complained.add(exporter)
        log.warning("%s: %s", exporter, text)
        if len(self._complained) == _MAX_COMPLAINTS:
            log.warning("what else is damaged is counted only")

    def account(self) -> str:
        """Counts of received and lost data, for the last line."""
        return account_of(self.decoder, {"datagrams dropped by the kernel": self.dropped,
                                         "idle connections closed": self.idle_closed})  # fmt: skip


def _serve(collector: Collector, printer: Printer | Checker, check_signals: Callable[[], None]) -> None:
    while True:
        check_signals()
        for exporter, decoded in collector.receive():
            kind = "exporterIPv6Address" if ":" in exporter.address else "exporterIPv4Address"
            printer.show(decoded, exporter, {kind: exporter.address})
        printer.out.flush()


def listen(
    host: str,
    port: int,
    as_json: bool = False,
    once: int = 0,
    options: bool = False,
    out: TextIO | None = None,
    check: bool = False,
) -> bool:
    """Print the flows that arrive at ``host`` ("" = all addresses, IPv4 and IPv6) on UDP and TCP ``port``.

    ``as_json``: one JSON object per line, else a table. ``once``: return after this many flows, 0 = never.
    ``options``: also print options records. ``check``: print everything odd instead. Ends on SIGINT, SIGTERM and a
    broken pipe, and returns whether anything was odd. Raises NetobsError if the port is not available.
    """
    shown: Printer | Checker
    out = sys.stdout if out is None else out
    if check:
        shown = Checker(out, as_json, once, lambda: clock.read_pair().realtime_ns // clock.NS_PER_S)
        collector = Collector(host, port, shown.problem)
    else:
        shown = Printer(out, as_json, options, once)
        collector = Collector(host, port)
    with (
        closing(collector),
        interruptible(collector.wake_on) as check_signals,
        ending_quietly(out, collector.account, shown.end),
    ):
        print(f"netobs listen: listening on {host or '*'} port {collector.port}", file=sys.stderr, flush=True)
        shown.title()
        _serve(collector, shown, check_signals)
    return shown.is_odd
