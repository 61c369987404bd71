"""Programs that run in a namespace while a test runs: started, waited for, ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from lab.namespaces import Lab, LabError, in_namespace, stop

USUAL_WAIT_S = 20.0
WAIT_S = float(os.environ.get("NETOBS_WAIT_S", USUAL_WAIT_S))  # an emulated machine takes longer for everything
WAIT_FACTOR = WAIT_S / USUAL_WAIT_S
POLL_S = 0.02
TCP_LISTEN = "0A"


def wait_until(condition: Callable[[], bool], what: str, timeout: float = WAIT_S) -> None:
    """Poll until ``condition`` holds. ``LabError`` that names ``what`` after ``timeout`` s."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"waited {timeout:g} s without: {what}")
        time.sleep(POLL_S)


@dataclass(frozen=True)
class SocketState:
    """A row of /proc/net/udp or tcp: octets that wait to be read, and datagrams that found the buffer full."""

    waiting_bytes: int
    drops: int
    inode: str
    listens: bool


def gone(pid: int) -> bool:
    """Whether the process has ended, reaped by its parent or not (proc(5), stat)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def sockets_at(ns: str, port: int, transport: str) -> list[SocketState]:
    """The sockets of ``ns`` whose own port is ``port``; over TCP, those of connections too."""
    with in_namespace(ns):
        tables = [Path(f"/proc/thread-self/net/{transport}{version}") for version in ("", "6")]
        rows = [line.split() for table in tables for line in table.read_text(encoding="ascii").splitlines()[1:]]
    udp = transport == "udp"
    return [
        SocketState(int(row[4].partition(":")[2], 16), int(row[-1]) if udp else 0, row[9], udp or row[3] == TCP_LISTEN)
        for row in rows
        if int(row[1].rpartition(":")[2], 16) == port
    ]


def bound_socket(ns: str, port: int, transport: str) -> SocketState | None:
    """The state of the socket of ``ns`` that is bound to ``port`` (TCP: that listens there), if any."""
    return next((state for state in sockets_at(ns, port, transport) if state.listens), None)


_P = TypeVar("_P", bound="Program")


class Program:
    """A process in ``ns`` as a context manager, ready when it is entered; its files are in ``directory / label``."""

    def __init__(self, lab: Lab, ns: str, directory: Path, label: str) -> None:
        self.lab, self.ns, self.label = lab, ns, label
        self.directory = directory / label
        self.directory.mkdir()
        self._log = self.directory / "log"
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self: _P) -> _P:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def process(self) -> subprocess.Popen[Any]:
        if self._process is None:
            raise LabError(f"{self.label} was not started")
        return self._process

    @property
    def log(self) -> str:
        """What the program wrote to its standard error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _start(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        if self._process:
            stop(self._process)

    def _run(self, argv: list[str], **options: Any) -> subprocess.Popen[Any]:
        options.setdefault("stdout", subprocess.DEVNULL)
        with self._log.open("ab") as log:
            return self.lab.popen(self.ns, argv, stderr=log, **options)

    def _bound(self, process: subprocess.Popen[Any], port: int, transport: str) -> bool:
        """Whether a socket at ``port`` is this process's, not one that was there before.

        One that takes a single connection may have it already, and listen no more.
        """
        inodes = {f"socket:[{state.inode}]" for state in sockets_at(self.ns, port, transport)}
        with contextlib.suppress(FileNotFoundError):  # the process may close a file, or end, meanwhile
            return any(os.readlink(file) in inodes for file in Path(f"/proc/{process.pid}/fd").iterdir())
        return False

    def _ready(self, process: subprocess.Popen[Any], condition: Callable[[], bool]) -> None:
        def ready() -> bool:
            if process.poll() is not None:
                raise LabError(f"{self.label} ended at once with {process.returncode}: {self.log.strip()}")
            return condition()

        wait_until(ready, f"{self.label} gets ready")


class Capture(Program):
    """tcpdump on ``interface`` of ``ns``, all packets or those of a pcap ``expression``, into the file ``pcap``."""

    def __init__(
        self, lab: Lab, ns: str, directory: Path, interface: str, expression: str = "", label: str = "tcpdump"
    ) -> None:
        super().__init__(lab, ns, directory, label)
        self.interface, self.expression = interface, expression
        self.pcap = self.directory / "capture.pcap"

    def _start(self) -> None:
        argv = ["tcpdump", "-Z", "root", "-n", "-U", "--immediate-mode", "-B", "65536", "-i", self.interface]
        process = self._process = self._run([*argv, "-w", str(self.pcap), self.expression])
        self._ready(process, lambda: "listening on" in self.log)

    def stop(self) -> None:
        """Let tcpdump write all that has passed, then end it. Later calls do nothing."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        wait_until(lambda: self._drained(process), "tcpdump writes all that it captured")
        if stop(process) != 0:
            raise LabError(f"tcpdump ended with {process.returncode}: {self.log.strip()}")

    def _drained(self, process: subprocess.Popen[Any]) -> bool:
        """Whether tcpdump has seen all that its socket got: it tells its counters at SIGUSR1."""
        before = len(self.log)
        process.send_signal(signal.SIGUSR1)
        pattern = re.compile(r"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped")
        wait_until(lambda: pattern.search(self.log, before) is not None, "tcpdump tells its counters")
        counts = pattern.search(self.log, before)
        captured, received, dropped = (int(count) for count in counts.groups()) if counts else (0, 0, 0)
        if dropped:
            raise LabError(f"tcpdump lost {dropped} packets: the capture is useless")
        # Loopback packets come twice to the socket, going out and coming in; tcpdump takes one of the two.
        return received == captured * (2 if self.interface == "lo" else 1)
