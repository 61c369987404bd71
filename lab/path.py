"""A TCP path with delays and losses: client - delayer - router - delayer - server, each in a namespace of its own.

The router's two interfaces are where netobs measures. ``TcpInfo`` is what the kernels of client and server say.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from lab.namespaces import Lab, Link, command, in_namespace
from lab.traffic import REPOSITORY

CLIENT, SERVER, PORT, REFUSED = "10.81.0.2", "10.82.0.2", 5001, 9
WITHIN_S = 60
CHUNK = b"x" * 65536


class Wire(NamedTuple):
    """One side of the path. ``delay_us``: one way. ``loss``, ``swap``: of a million frames with data that go away from
    the client (near side) or to the server (far side): how many are lost, or come half a millisecond late."""

    delay_us: int = 0
    loss: int = 0
    swap: int = 0


class TcpInfo(NamedTuple):
    """Of a socket (linux/tcp.h, struct tcp_info), times in microseconds."""

    rtt: int
    min_rtt: int
    retransmitted: int
    segments_out: int

    @classmethod
    def of(cls, sock: socket.socket) -> TcpInfo:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return cls(*(struct.unpack_from("=I", data, at)[0] for at in (68, 148, 100, 136)))


class Delayer:
    """What a delayer said at its end is in ``said``: frames that passed, were lost, were late, were refused."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: tuple[int, ...] = ()

    def end(self) -> None:
        self.process.terminate()
        out, _ = self.process.communicate(timeout=WITHIN_S)
        self.said = tuple(map(int, out.split()[-4:]))


class TcpPath:
    """``near``, ``far``: the router's interfaces towards the client and towards the server."""

    def __init__(self, lab: Lab, folder: Path, near: Wire, far: Wire, offloads: bool = True) -> None:
        self._lab, self._stack = lab, ExitStack()
        program = folder / "delayer"
        if not program.exists():
            command(["gcc", "-O2", "-o", str(program), str(REPOSITORY / "lab/delayer.c")])
        self.client, self.server, self.router = (lab.namespace(name) for name in ("client", "server", "router"))
        self.near = self._side(program, self.client, f"{CLIENT}/24", "10.81.0.1/24", near, True, offloads)
        self.far = self._side(program, self.server, f"{SERVER}/24", "10.82.0.1/24", far, False, offloads)
        lab.sysctl(self.router, "net/ipv4/ip_forward", 1)

    def _side(
        self, program: Path, ns: str, address: str, gateway: str, wire: Wire, from_end: bool, offloads: bool
    ) -> Link:
        between = self._lab.namespace("wire")
        end, to_end = self._lab.veth(ns, between)
        to_router, router = self._lab.veth(between, self.router)
        self._lab.address(end, address)
        self._lab.address(router, gateway)
        command(["ip", "-n", ns, "route", "add", "default", "via", gateway.partition("/")[0]])
        for link in (end, to_end, to_router, router):
            if not offloads:
                self._lab.offload(link, False)
        order = (to_end.name, to_router.name) if from_end else (to_router.name, to_end.name)
        argv = ["taskset", "-c", "0", str(program), *order, *map(str, wire)]  # else frames overtake each other
        process = self._lab.popen(between, argv, stdout=subprocess.PIPE, text=True)
        delayer = Delayer(process)
        self._stack.callback(delayer.end)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        setattr(self, "near_wire" if from_end else "far_wire", delayer)
        return router

    near_wire: Delayer
    far_wire: Delayer

    def close(self) -> None:
        """Ends the delayers."""
        self._stack.close()

    @contextlib.contextmanager
    def connection(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """The sockets of client and server. Before it, a datagram and its refusal make the neighbours known."""
        with in_namespace(self.server):
            listener = socket.create_server((SERVER, PORT))
        with in_namespace(self.client):
            sock, probe = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with probe, contextlib.suppress(ConnectionRefusedError):
            probe.settimeout(WITHIN_S)
            probe.connect((SERVER, REFUSED))
            probe.send(b"x")
            probe.recv(1)
        with listener:
            sock.settimeout(WITHIN_S)
            sock.connect((SERVER, PORT))
            other, _ = listener.accept()
            other.settimeout(WITHIN_S)
        with sock, other:
            for each in (sock, other):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock, other


def bulk(sender: socket.socket, receiver: socket.socket, octets: int) -> None:
    """So many octets in one direction."""

    def read() -> None:
        left = octets
        while left > 0:
            left -= len(receiver.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(octets // len(CHUNK)):
        sender.sendall(CHUNK)
    sender.sendall(CHUNK[: octets % len(CHUNK)])
    reader.join()


def exchanges(
    client: socket.socket, server: socket.socket, times: int, octets: int = 100, pause_s: float = 0.0
) -> None:
    """So many requests, each with its answer."""

    def answer() -> None:
        for _ in range(times):
            left = octets
            while left > 0:
                left -= len(server.recv(left))
            server.sendall(bytes(octets))

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(times):
        client.sendall(bytes(octets))
        left = octets
        while left > 0:
            left -= len(client.recv(left))
        time.sleep(pause_s)
    thread.join()
