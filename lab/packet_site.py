"""The packet server at work: real sockets and the real loop, and packets that the test hands in as the tap would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np

from lab.packets import ETH0, ETH1, OFFSET_NS, WG0, Packet, batch_of, udp
from lab.programs import WAIT_S
from netobs.base.clock import ClockPair
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.config.addresses import Endpoint
from netobs.config.schema import PacketCaptureConfig
from netobs.kernel.interface_history import InterfaceNames
from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import PacketBatch, no_packets
from netobs.pcap.selection import Selection
from netobs.pcap.server.server import PacketServer
from netobs.pcap.tap.tap import Tap

MAX_SELECTIONS = 32


class PacketsAtHand:
    """What a server uses of a Tap: hands out what ``feed`` was given, to whom it is addressed; keeps a tap's books."""

    def __init__(self, interfaces: Sequence[Interface] = (ETH0, ETH1, WG0)) -> None:
        self.captured = list(interfaces)
        self.could_be_captured: list[Interface] = []
        self._names = InterfaceNames()
        self.own_port = 0
        self.selected: dict[int, Selection] = {}
        self.selections_ever = 0
        self.snaplen = 0
        self.streams: Counter[tuple[str, int]] = Counter()
        self.lost: dict[int, dict[int, int]] = {}
        self._batches: deque[PacketBatch] = deque()
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._readable)
        os.close(self._writable)

    def feed(self, packets: Iterable[Packet] | PacketBatch) -> None:
        """``filters`` of the packets are bits as in ``selected``."""
        self._batches.append(packets if isinstance(packets, PacketBatch) else batch_of(packets))
        os.write(self._writable, b"\0")

    @property
    def waiting(self) -> int:
        return len(self._batches)

    def fileno(self) -> int:
        return self._readable

    def select(self, selection: Selection, now_ns: int) -> int:
        free = [bit for bit in range(MAX_SELECTIONS) if bit not in self.selected]
        if not free:
            raise NetobsError("32 filters are in use already", "try again later")
        self.selected[free[0]] = selection
        self.selections_ever += 1
        self.lost[free[0]] = {}
        return free[0]

    def release(self, bit: int, now_ns: int) -> None:
        del self.selected[bit]

    def set_snaplen(self, octets: int) -> None:
        self.snaplen = octets

    @property
    def backlog_bytes(self) -> int:
        return self.waiting

    def read(self, max_bytes: int, now_ns: int) -> PacketBatch:
        with contextlib.suppress(BlockingIOError):
            os.read(self._readable, 1 << 16)  # like a tap, it tells once that there is something
        return self._batches.popleft() if self._batches else no_packets()

    def losses(self, bit: int) -> Counter[int]:
        return Counter(self.lost[bit])

    def interfaces(self) -> Sequence[Interface]:
        return self.captured

    def known_interfaces(self) -> Mapping[int, Interface]:
        for interface in self.captured:
            self._names.learn(interface)
        return self._names.by_index()

    def capturable(self) -> Sequence[Interface]:
        return self.could_be_captured or self.captured

    def attach_some(self) -> bool:
        """It attaches to one interface after the other."""
        if self.could_be_captured and self.selected:
            self.captured.append(self.could_be_captured.pop(0))
        return bool(self.could_be_captured and self.selected)

    def set_own_port(self, port: int) -> None:
        self.own_port = port

    def own_stream(self, address: str, port: int) -> None:
        self.streams[address, port] += 1

    def forget_stream(self, address: str, port: int) -> None:
        self.streams[address, port] -= 1
        if not self.streams[address, port]:
            del self.streams[address, port]


class Site:
    """A server on a port of the loopback, in the test's own process: it works while ``until`` waits."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, group: str = "netobs", **config: Any) -> None:
        """``host`` may be the path of a Unix socket; ``group``: who may connect beside root and this process's user."""
        self._ahead_ns = 0
        self.loop = EventLoop(self.now_ns)
        self.source = PacketsAtHand(config.pop("interfaces", (ETH0, ETH1, WG0)))
        self.clients: list[socket.socket] = []
        self.config = PacketCaptureConfig(listen=Endpoint(host, port), **config)
        self.server = PacketServer(self.config, cast(Tap, self.source), self.loop, clock_pair, group)

    def __enter__(self) -> Site:
        try:
            self.server.start(self.now_ns())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for client in self.clients:
            client.close()
        self.server.close(self.now_ns())
        self.loop.close()
        self.source.close()

    def now_ns(self) -> int:
        """The server's time: CLOCK_MONOTONIC, and what was skipped of it."""
        return time.monotonic_ns() + self._ahead_ns

    def skip(self, duration_ns: int) -> None:
        """Let the server believe that so much time has gone by."""
        self._ahead_ns += duration_ns

    @property
    def port(self) -> int:
        return self.server.admission.addresses[0].port

    def connect(self, request: bytes | None = b"\n", receive_buffer: int = 0) -> socket.socket:
        """A client that has said what it wants (the configured values), or with None nothing. The site closes it."""
        host = self.config.listen.host
        family = socket.AF_UNIX if "/" in host else socket.AF_INET6 if ":" in host else socket.AF_INET
        client = socket.socket(family)
        self.clients.append(client)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        addresses = {socket.AF_INET: ("127.0.0.1", self.port), socket.AF_INET6: ("::1", self.port)}
        client.connect(addresses.get(family, host))
        client.setblocking(False)
        if request is not None:
            client.sendall(request)
        return client

    def account(self) -> str:
        """As it is in the log."""
        return "\n".join(self.server.account(self.now_ns()))

    def until(self, condition: Callable[[], bool], what: str = "what the test waits for") -> None:
        """Let the server work until ``condition`` holds."""
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end, f"waited {WAIT_S:g} s without: {what}; {self.account()}"
            self.loop.run_once(10_000_000)

    def until_clients(self, count: int) -> None:
        """Until so many clients have a stream."""
        self.until(lambda: len(self.server.clients) == count, f"{count} clients have a stream")

    def all_of(self, client: socket.socket) -> bytes:
        """What ``client`` gets until its stream ends."""
        received, ended = bytearray(), []

        def at_end() -> bool:
            try:
                while data := client.recv(1 << 20):
                    received.extend(data)
                ended.append(True)
            except BlockingIOError:
                pass
            return bool(ended)

        self.until(at_end, "the stream of a client ends")
        client.close()
        return bytes(received)

    def answer(self, request: bytes) -> str:
        """The line that a client gets for a request that is refused."""
        return self.all_of(self.connect(request)).decode()

    def stop(self) -> None:
        """As the daemon stops it."""
        self.server.stop(self.now_ns())


def compiling() -> list[int]:
    """The processes that compile filters for this one."""
    found = []
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split():
        with contextlib.suppress(OSError):
            if b"netobs.pcap.filters.apart" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


def stop(pid: int) -> None:
    """The process does nothing from now on."""
    os.kill(pid, signal.SIGSTOP)


def ask(**keys: object) -> bytes:
    """A request."""
    return json.dumps(keys).encode() + b"\n"


def clock_pair() -> ClockPair:
    """Times of packets as the test's own."""
    return ClockPair(0, OFFSET_NS)


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def numbered(numbers: Iterable[int], size: int = 100, filters: int = 1) -> list[Packet]:
    """Packets that tell their number: ``numbers_in`` finds it again."""
    return [Packet(udp(size, number), time_ns=5_000_000_000 + number * 1000, filters=filters) for number in numbers]


def numbers_in(stream: bytes) -> list[int]:
    """The numbers of the packets of a classic pcap stream, by this reader; the tools of others are asked elsewhere."""
    assert stream[:4] == b"\x4d\x3c\xb2\xa1"
    found, place = [], 24
    while place < len(stream):
        captured = int(np.frombuffer(stream, "<u4", 1, place + 8)[0])
        assert place + 16 + captured <= len(stream), "a partial record"
        found.append(int.from_bytes(stream[place + 16 + 42 : place + 16 + 50], "big"))
        place += 16 + captured
    return found
