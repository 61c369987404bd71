"""Receives export Messages and prints what a decoder from PyPI makes of them, a JSON object in each line.

Usage: ``receive.py ipfix|netflow|netflume udp:PORT|tcp:PORT ...``. A line has the ``port``, and either the ``record``
(with the ``header`` of NetFlow, which its times need) or the ``error``. It ends when its standard input is closed,
after it has read all that has arrived.
"""

from __future__ import annotations

import io
import json
import select
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable

Result = dict[str, Any]
Decode = Callable[[bytes], Iterator[Result]]

_printing = threading.Lock()


def netflow() -> Decode:
    """Templates are those of one exporter."""
    from netflow import parse_packet

    templates: dict[str, Any] = {"netflow": {}, "ipfix": {}}

    def decode(datagram: bytes) -> Iterator[Result]:
        # It takes bytes for hexadecimal text if they happen to be UTF-8; a bytearray it takes as it is.
        packet = parse_packet(bytearray(datagram), templates)
        header = packet.header.to_dict()
        for flow in packet.flows:
            if hasattr(flow, "data"):
                yield {"header": header, "record": flow.data}
        for options in getattr(packet, "options", ()):
            yield {"header": header, "record": {**options.scopes, **options.data}}

    return decode


def netflume() -> Decode:
    from netflume import Decoder

    decoder = Decoder()

    def decode(datagram: bytes) -> Iterator[Result]:
        message = decoder.decode(datagram, "127.0.0.1")
        for flow in message.typed_flows() if message else ():
            yield {"record": flow.as_dict()}
        yield from ({"record": record} for record in (message.options if message else ()))
        yield from ({"error": repr(event)} for event in decoder.take_events())

    return decode


def ipfix_stream(stream: BinaryIO, version: int = 10) -> Iterator[Result]:
    """IPFIX Messages of a connection, or the NetFlow v9 Messages of all datagrams."""
    from ipfix import ie, reader, v9pdu

    ie.use_iana_default()
    if version == 10:
        yield from ({"record": record} for record in reader.from_stream(stream).namedict_iterator())
        return
    messages = v9pdu.from_stream(stream)
    for record in messages.namedict_iterator():
        yield {"header": {"uptime": messages.sysuptime_ms, "timestamp": messages.export_epoch}, "record": record}


def say(port: int, results: Iterator[Result]) -> None:
    """Print ``results``; an exception is one, too."""
    lines = []
    try:
        lines += [{"port": port, **result} for result in results]
    except Exception as error:  # noqa: BLE001  whatever a decoder of others raises
        lines.append({"port": port, "error": repr(error)})
    with _printing:
        for line in lines:
            print(json.dumps(line, default=_text), flush=True)


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _connection(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as stream:
        say(port, ipfix_stream(stream))


def _receive(name: str, sockets: list[socket.socket]) -> None:
    """Decode the datagrams of each port as they come, until standard input ends; ``ipfix`` reads them in one go."""
    decoders: dict[socket.socket, Decode] = {}
    kept: dict[socket.socket, list[bytes]] = {one: [] for one in sockets}
    if name != "ipfix":
        decoders = {one: {"netflow": netflow, "netflume": netflume}[name]() for one in sockets}
    ended = False
    while True:
        waiting: list[Any] = [*sockets] if ended else [sys.stdin, *sockets]
        ready, _, _ = select.select(waiting, [], [], 0 if ended else None)
        if ended and not ready:
            break
        ended = ended or sys.stdin in ready
        for one in (one for one in sockets if one in ready):
            datagram = one.recv(65536)
            if one in decoders:
                say(one.getsockname()[1], decoders[one](datagram))
            else:
                kept[one].append(datagram)
    for one, datagrams in kept.items():
        if datagrams:
            say(one.getsockname()[1], ipfix_stream(io.BytesIO(b"".join(datagrams)), version=9))


def main() -> None:
    name, *places = sys.argv[1:]
    sockets, threads = [], []
    for place in places:
        transport, _, port = place.partition(":")
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        one = socket.socket(socket.AF_INET, kind)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", int(port)))
        if transport == "udp":
            sockets.append(one)
        else:
            one.listen(1)
            threads.append(threading.Thread(target=_connection, args=(one,), daemon=True))
            threads[-1].start()
    _receive(name, sockets)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
