"""Sockets and addresses of the built-in collector."""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple

ANY = ("", "*", "::")
_RECEIVE_BUFFER_BYTES = 16 << 20
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; root may exceed net.core.rmem_max, bursts of an eviction need it
_SO_MEMINFO, _MEMINFO = 55, struct.Struct("9I")  # asm-generic/socket.h; linux/sock_diag.h: the last is SK_MEMINFO_DROPS


class Exporter(NamedTuple):
    """The far end of a Transport Session."""

    transport: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address} port {self.port} ({self.transport})"


def local_addresses(host: str) -> list[tuple[int, str]]:
    """Family and address of each local address of ``host``; one dual-stack address stands for all addresses."""
    if host in ANY:
        return [(socket.AF_INET6, "::")] if socket.has_dualstack_ipv6() else [(socket.AF_INET, "0.0.0.0")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    return [(family, str(address[0])) for family, _, _, _, address in found]


def enlarge_buffer(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)


def exporter_of(transport: str, address: Any) -> Exporter:
    host = address[0]
    return Exporter(transport, host[7:] if host.startswith("::ffff:") else host, address[1])


def drops(sock: socket.socket) -> int:
    """Datagrams that the kernel dropped since ``sock`` was opened, mostly because its buffer was full; 0 for TCP."""
    if sock.type != socket.SOCK_DGRAM or sock.fileno() < 0:
        return 0
    return int(_MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1])
