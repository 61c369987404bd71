"""``netobs listen``: the built-in collector. Receives IPFIX (UDP, TCP), NetFlow v9 and v5 (UDP)."""

from __future__ import annotations

import errno
import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple, TextIO

from netobs.encode.decode import Decoded, Decoder, message_length
from netobs.encode.flow_table import FlowTable
from netobs.encode.layout import MAX_MESSAGE_BYTES, MESSAGE_HEADER
from netobs.encode.received import Record
from netobs.errors import DecodeError, NetobsError

log = logging.getLogger("netobs.listen")

_RECEIVE_BUFFER_BYTES = 16 << 20
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; root may exceed net.core.rmem_max, bursts of an eviction need it
_MAX_STREAMS = 256
_MAX_COMPLAINTS = 1024
_DATAGRAMS_AT_ONCE = 256
_ANY = ("", "*", "::")


class Exporter(NamedTuple):
    """The far end of a Transport Session."""

    transport: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address} port {self.port} ({self.transport})"


class Collector:
    """The Collecting Process: one UDP and one TCP socket per local address, any number of exporters.

    Raises NetobsError if the address cannot be had. ``port``: 0 lets the kernel choose; the attribute says which.
    """

    def __init__(self, host: str, port: int) -> None:
        self.decoder = Decoder()
        self._selector = selectors.DefaultSelector()
        self._streams: dict[socket.socket, tuple[Exporter, bytearray]] = {}
        self._complained: set[Exporter] = set()
        self._sockets: list[socket.socket] = []
        try:
            self.port = self._open(host, port)
        except OSError as error:
            self.close()
            hint = "another program has the port: choose another one" if error.errno == errno.EADDRINUSE else ""
            raise NetobsError(f"cannot listen on {host or '*'} port {port}: {error.strerror}", hint) from error

    def close(self) -> None:
        for sock in [*self._sockets, *self._streams]:
            sock.close()
        self._selector.close()

    def _open(self, host: str, port: int) -> int:
        """Bind TCP and UDP on every address of ``host``; returns the port."""
        for family, address in _local_addresses(host):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sock = socket.socket(family, kind)
                self._sockets.append(sock)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host not in _ANY)
                if kind == socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _enlarge_buffer(sock)
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
        """Wait at most ``timeout_s`` (None: as long as it takes) and yield the Messages that have come."""
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

    def _read_datagrams(self, sock: socket.socket) -> Iterator[tuple[Exporter, Decoded]]:
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                message, address = sock.recvfrom(MAX_MESSAGE_BYTES)
            except OSError:
                return
            exporter = _exporter("udp", address)
            decoded = self._decode(message, exporter)
            if decoded is not None:
                yield exporter, decoded

    def _accept(self, sock: socket.socket) -> None:
        try:
            stream, address = sock.accept()
        except OSError:
            return
        if len(self._streams) >= _MAX_STREAMS:
            log.warning("%s: refused, there are %d connections already", _exporter("tcp", address), _MAX_STREAMS)
            stream.close()
            return
        stream.setblocking(False)
        self._streams[stream] = (_exporter("tcp", address), bytearray())
        self._selector.register(stream, selectors.EVENT_READ)

    def _read_stream(self, stream: socket.socket) -> Iterator[tuple[Exporter, Decoded]]:
        exporter, buffer = self._streams[stream]
        try:
            data = stream.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        buffer += data
        try:
            while len(buffer) >= MESSAGE_HEADER.itemsize:
                length = message_length(bytes(buffer[: MESSAGE_HEADER.itemsize]))
                if len(buffer) < length:
                    break
                message = bytes(buffer[:length])
                del buffer[:length]
                yield exporter, self.decoder.decode(message, exporter)
        except DecodeError as error:
            log.warning("%s: closed: %s", exporter, error)
            data = b""
        if not data:
            del self._streams[stream]
            self._selector.unregister(stream)
            stream.close()
            self.decoder.forget(exporter)

    def _decode(self, message: bytes, exporter: Exporter) -> Decoded | None:
        try:
            return self.decoder.decode(message, exporter)
        except DecodeError as error:
            if exporter not in self._complained and len(self._complained) < _MAX_COMPLAINTS:
                self._complained.add(exporter)
                log.warning("%s: ignored: %s", exporter, error)
        return None


def _local_addresses(host: str) -> list[tuple[int, str]]:
    """Family and address of each local address that ``host`` means; one dual-stack address for all of them."""
    if host in _ANY:
        return [(socket.AF_INET6, "::")] if socket.has_dualstack_ipv6() else [(socket.AF_INET, "0.0.0.0")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _enlarge_buffer(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)


def _exporter(transport: str, address: Any) -> Exporter:
    host = address[0]
    return Exporter(transport, host[7:] if host.startswith("::ffff:") else host, address[1])


def _json_line(flow: Record, exporter: Exporter, decoded: Decoded) -> str:
    """``flow`` and where it comes from, keyed by Information Element names."""
    kind = "exporterIPv6Address" if ":" in exporter.address else "exporterIPv4Address"
    return json.dumps({kind: exporter.address, "observationDomainId": decoded.observation_domain, **flow})


def _print_flows(collector: Collector, as_json: bool, once: int, out: TextIO) -> None:
    table, printed = FlowTable(), 0
    if not as_json:
        print(table.title(), file=out, flush=True)
    while True:
        for exporter, decoded in collector.receive():
            for flow in decoded.flows:
                print(_json_line(flow, exporter, decoded) if as_json else table.row(flow), file=out)
                printed += 1
                if printed == once:
                    out.flush()
                    return
        out.flush()


@contextmanager
def _interruptible(collector: Collector) -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt; SIGINT too, since a shell starts background jobs with it ignored.

    The pipe ends a wait that begins just after the signal has come, when its handler has not yet run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    collector.wake_on(read_end)
    wakeup_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        os.close(read_end)
        os.close(write_end)


def _discard(out: TextIO) -> None:
    """Point ``out`` at the null device: the interpreter's flush at exit must not fail on a broken pipe."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, out.fileno())
        os.close(null)


def listen(host: str, port: int, as_json: bool = False, once: int = 0, out: TextIO | None = None) -> None:
    """Print the flows that come to ``host`` ("" = all addresses, IPv4 and IPv6) on UDP and TCP ``port``.

    ``as_json``: one JSON object per line, else a table. ``once``: return after so many flows, 0 = never.
    Returns on SIGINT, SIGTERM and a broken pipe. Raises NetobsError if the port cannot be had.
    """
    out = sys.stdout if out is None else out
    with closing(Collector(host, port)) as collector, _interruptible(collector):
        try:
            with suppress(KeyboardInterrupt):
                print(f"netobs listen: listening on {host or '*'} port {collector.port}", file=sys.stderr, flush=True)
                _print_flows(collector, as_json, once, out)
            out.flush()
        except BrokenPipeError:
            _discard(out)
        stats = collector.decoder.stats
        print(
            f"netobs listen: {stats.flows} flows in {stats.messages} Messages, {stats.lost_records} records lost, "
            f"{stats.sets_without_template} Sets without a Template, {stats.malformed} Messages malformed"
            + (f", {stats.lost_messages} NetFlow v9 Messages lost" if stats.lost_messages else ""),
            file=sys.stderr,
        )
