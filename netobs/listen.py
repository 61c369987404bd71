"""``netobs listen``: the built-in collector. Receives IPFIX (UDP, TCP), NetFlow v9 and v5 (UDP)."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple, TextIO

from netobs.encode.decode import Decoded, Decoder
from netobs.encode.layout import MAX_MESSAGE_BYTES, MESSAGE_HEADER
from netobs.errors import DecodeError, NetobsError
from netobs.listen_output import Printer, ending_quietly, interruptible

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
            self._complain(_exporter("tcp", address), f"refused, there are {_MAX_STREAMS} connections already")
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
                length = self.decoder.length(bytes(buffer[: MESSAGE_HEADER.itemsize]))
                if len(buffer) < length:
                    break
                message = bytes(buffer[:length])
                del buffer[:length]
                yield exporter, self.decoder.decode(message, exporter)
            if buffer and not data:
                self.decoder.stats.malformed += 1
                self._complain(exporter, f"ended {len(buffer)} bytes into a Message")
        except DecodeError as error:
            self._complain(exporter, f"closed: {error}")
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
            self._complain(exporter, f"ignored: {error}")
        return None

    def _complain(self, exporter: Exporter, text: str) -> None:
        """One line for each exporter, and not without an end."""
        if exporter in self._complained or len(self._complained) >= _MAX_COMPLAINTS:
            return
        self._complained.add(exporter)
        log.warning("%s: %s", exporter, text)
        if len(self._complained) == _MAX_COMPLAINTS:
            log.warning("what else is damaged is counted only")


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


def _serve(collector: Collector, printer: Printer) -> None:
    while True:
        for exporter, decoded in collector.receive():
            kind = "exporterIPv6Address" if ":" in exporter.address else "exporterIPv4Address"
            printer.show(decoded, str(exporter), {kind: exporter.address})
        printer.out.flush()


def listen(
    host: str, port: int, as_json: bool = False, once: int = 0, options: bool = False, out: TextIO | None = None
) -> None:
    """Print the flows that come to ``host`` ("" = all addresses, IPv4 and IPv6) on UDP and TCP ``port``.

    ``as_json``: one JSON object per line, else a table. ``once``: return after so many flows, 0 = never. ``options``:
    print options records too. Returns on SIGINT, SIGTERM and a broken pipe. Raises NetobsError if the port cannot be
    had.
    """
    printer = Printer(sys.stdout if out is None else out, as_json, options, once)
    collector = Collector(host, port)
    with closing(collector), interruptible(collector.wake_on), ending_quietly(printer.out, collector.decoder.stats):
        print(f"netobs listen: listening on {host or '*'} port {collector.port}", file=sys.stderr, flush=True)
        printer.title()
        _serve(collector, printer)
