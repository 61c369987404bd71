"""100,000 damaged Messages and the worst of 64 KiB into a ``netobs listen`` process: it neither ends, hangs nor grows.

An honest exporter beside them loses nothing, over UDP nothing that is not announced.
"""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from lab.damaged import SEED, mutated
from lab.messages import message, template
from lab.programs import WAIT_S, wait_until
from lab.samples import golden_messages
from lab.traffic import REPOSITORY
from lab.worst_cases import WORST

pytestmark = pytest.mark.e2e

UDP_MESSAGES, TCP_MESSAGES, EXPORTERS = 85_000, 15_000, 16
UDP_BATCH, TCP_BATCH = 1_000, 60
MAX_RESIDENT_KB = 100 << 10
MAX_LOG_LINES = 1_100
HONEST_RANGE = 1_000_000
"""The numbers of the flows of an honest exporter begin at a multiple of it."""
HONEST_DOMAIN, HONEST_RECORDS, HONEST_MESSAGES = 0xCAFE, 20, 5


def number_in(pattern: str, text: str) -> int:
    """What the group of ``pattern`` finds in ``text``."""
    found = re.search(pattern, text)
    assert found is not None, text
    return int(found[1])


class Listener:
    """``netobs listen --json --options``, whose lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.log = process, [process.stderr.readline()]
        self.port = int(self.log[0].split()[-1])
        self.lines, self._marks, self._marked = 0, 0, threading.Condition()
        self.honest: Counter[int] = Counter()
        self._readers = [threading.Thread(target=self._read_flows, args=(process.stdout,))]
        self._readers += [threading.Thread(target=self.log.extend, args=(process.stderr,))]
        for reader in self._readers:
            reader.start()
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.connect(("127.0.0.1", self.port))

    def _read_flows(self, output: IO[str]) -> None:
        for line in output:
            self.lines += 1
            if f'"observationDomainId": {HONEST_DOMAIN},' in line and '"flowId": ' in line:
                self.honest[json.loads(line)["flowId"] // HONEST_RANGE] += 1
            if '"flowId": 881' in line and set(json.loads(line)) == {
                "exporterIPv4Address", "observationDomainId", "flowId"
            }:  # fmt: skip
                with self._marked:
                    self._marks += 1
                    self._marked.notify()

    def catch_up(self) -> None:
        """Send a good flow over UDP and wait until it is printed: what came before it has been read."""
        with self._marked:
            wanted = self._marks + 1
            self._sender.send(message((2, template(700, (148, 8))), (700, struct.pack("!Q", 881)), domain=0xBEEF))
            assert self._marked.wait_for(lambda: self._marks >= wanted, WAIT_S), "a good flow was not printed"

    def resident_kb(self) -> int:
        return number_in(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii"))

    def end(self) -> str:
        """The account that it gives when it ends."""
        self.process.terminate()
        for reader in self._readers:
            reader.join(WAIT_S)
        self._sender.close()
        assert self.process.wait(WAIT_S) == 0
        return self.log[-1]


class Honest:
    """An exporter that does all as it should: it sends Templates again and again, and counts and numbers its flows."""

    def __init__(self, listener: Listener, kind: socket.SocketKind, first: int) -> None:
        self._socket = socket.socket(socket.AF_INET, kind)
        self._socket.connect(("127.0.0.1", listener.port))
        self._first, self.sent = first * HONEST_RANGE, 0

    def send(self) -> None:
        """Some Messages, each with its Template and flows that are numbered."""
        for _ in range(HONEST_MESSAGES):
            begin = self._first + self.sent
            flows = struct.pack(f"!{HONEST_RECORDS}Q", *range(begin, begin + HONEST_RECORDS))
            sets = ((2, template(800, (148, 8))), (800, flows))
            self._socket.sendall(message(*sets, sequence=self.sent, domain=HONEST_DOMAIN))
            self.sent += HONEST_RECORDS

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening() -> Iterator[Listener]:
    command = [sys.executable, "-m", "netobs", "listen", "--host", "127.0.0.1", "--port", "0", "--json", "--options"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Listener(process)
        finally:
            process.kill()


def send_datagrams(listener: Listener, generator: random.Random, honest: list[Honest]) -> None:
    """The worst Messages among the damaged ones: each with what its exporter sends before."""
    worst = iter(WORST.values())
    with ExitStack() as stack:
        exporters = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(EXPORTERS)]
        for exporter in exporters:
            exporter.connect(("127.0.0.1", listener.port))
        for number in range(UDP_MESSAGES):
            generator.choice(exporters).send(mutated(generator))
            if number % UDP_BATCH == UDP_BATCH - 1:
                case = next(worst, None)
                for raw in (*case.before, case.raw) if case else ():
                    exporters[0].send(raw)
                for each in honest:
                    each.send()
                listener.catch_up()


def send_streams(listener: Listener, generator: random.Random) -> None:
    """A connection for each Message, since the first that is damaged ends it; Templates go before."""
    templates = golden_messages()[0]
    for _ in range(0, TCP_MESSAGES, TCP_BATCH):
        with ExitStack() as stack:
            streams = [
                stack.enter_context(socket.create_connection(("127.0.0.1", listener.port), WAIT_S))
                for _ in range(TCP_BATCH)
            ]
            for stream in streams:
                with suppress(ConnectionError):
                    stream.sendall(templates + mutated(generator))
                    stream.shutdown(socket.SHUT_WR)
            for stream in streams:
                with suppress(ConnectionError):
                    assert stream.recv(1) == b""
    listener.catch_up()


def test_damaged_messages_do_no_harm() -> None:
    generator = random.Random(SEED)
    with listening() as listener:
        honest = [Honest(listener, socket.SOCK_DGRAM, 1), Honest(listener, socket.SOCK_STREAM, 2)]
        send_datagrams(listener, generator, honest)
        after_udp_kb = listener.resident_kb()
        send_streams(listener, generator)
        with socket.create_connection(("127.0.0.1", listener.port)) as stream:
            stream.sendall(b"".join(golden_messages()))
            listener.catch_up()
        for exporter in honest:
            exporter.send()
            exporter.close()
        wait_until(
            lambda: listener.honest[2] == honest[1].sent, "all flows of the honest exporter over TCP are printed"
        )
        listener.catch_up()
        resident_kb = listener.resident_kb()
        account = listener.end()
    dropped = number_in(r"(\d+) datagrams dropped", account) if "datagrams dropped" in account else 0
    assert honest[0].sent > 8_000
    assert 0 <= honest[0].sent - listener.honest[1] <= dropped * HONEST_RECORDS
    assert number_in(r"(\d+) octets not read", account) > 500_000
    print(f"{account.strip()}; {listener.lines} lines; peak {after_udp_kb} KiB after UDP, {resident_kb} KiB at the end")
    messages, malformed = (number_in(rf"(\d+) {word}", account) for word in ("Messages,", "Messages malformed"))
    marks = UDP_MESSAGES // UDP_BATCH + 2
    assert messages + malformed >= UDP_MESSAGES + 2 * TCP_MESSAGES + marks
    assert min(messages, malformed) > 20_000
    assert resident_kb < MAX_RESIDENT_KB
    assert len(listener.log) < MAX_LOG_LINES
    assert "Traceback" not in "".join(listener.log)
