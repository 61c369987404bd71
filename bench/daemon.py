"""Runs the real daemon at the receiving end of a wire: its memory, CPU time, and account of the packets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.wire import POLL_S, Wire
from lab.namespaces import in_namespace, stop
from lab.programs import wait_until

REPOSITORY = Path(__file__).resolve().parent.parent
EXIT_WITHIN_S = 20


@dataclass
class Account:
    """The account of the packets from the daemon's last lines. ``missing``: seen, and in no line of the account."""

    seen: int = 0
    exported: int = 0
    exported_flows: int = 0
    not_in_a_flow: dict[str, int] = field(default_factory=dict)
    not_sent: dict[str, int] = field(default_factory=dict)
    evictions: int = 0

    @property
    def missing(self) -> int:
        return self.seen - self.exported - sum(self.not_in_a_flow.values()) - sum(self.not_sent.values())

    @classmethod
    def of(cls, log: str) -> Account:
        """From the lines that the daemon logs at its end.

        :raises RuntimeError: it logged none.
        """
        seen = re.search(r"seen: (\d+) packets", log)
        sent = re.search(r": (\d+) flows, (\d+) packets, \d+ octets sent", log)
        if not seen or not sent:
            raise RuntimeError(f"the daemon gave no account:\n{log}")
        evictions = re.search(r"(\d+) evictions", log)
        account = cls(int(seen[1]), int(sent[2]), int(sent[1]), evictions=int(evictions[1]) if evictions else 0)
        for reason, packets in re.findall(r"not in a flow, (\w+): (\d+) packets", log):
            account.not_in_a_flow[reason] = int(packets)
        for reason, packets in re.findall(r"not sent, (\w+): \d+ flows, (\d+) packets", log):
            account.not_sent[reason] = int(packets)
        return account


class Daemon:
    """``python -m netobs`` in the receiver's namespace, ready when entered. It exports over UDP to a socket that nobody
    reads, so that no collector adds to the cost. ``config``: its tables and keys."""

    def __init__(self, wire: Wire, **config: dict[str, Any]) -> None:
        self._wire = wire
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "log")
        with in_namespace(wire.receiver.ns):
            self._sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sink.bind(("127.0.0.1", 0))
        capture = {"interfaces": [wire.receiver.name], "direction": "ingress", **config.pop("capture", {})}
        self.conf = Path(self._folder.name, "netobs.toml")
        self.conf.write_text(self._toml({"capture": capture, **config}), encoding="utf-8")
        self.peak_kib = 0
        self.cpu_s = 0.0
        self.ready_at = 0.0

    def _toml(self, tables: dict[str, dict[str, Any]]) -> str:
        lines = [f'[[collector]]\nhost = "127.0.0.1"\nport = {self._sink.getsockname()[1]}\nobservation_domain = 1']
        for name, keys in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        return "\n".join(lines) + "\n"

    def __enter__(self) -> Daemon:
        argv = [sys.executable, "-m", "netobs", "--conf", str(self.conf)]
        try:
            with self._log.open("wb") as log:
                self._process: subprocess.Popen[Any] = self._wire.lab.popen(
                    self._wire.receiver.ns, argv, cwd=REPOSITORY, stdout=log, stderr=log
                )
            wait_until(self._is_ready, "the daemon gets ready")
        except BaseException:
            self._close()
            raise
        self.ready_at = time.monotonic()
        self._cpu_before_s = self.cpu_so_far_s()
        self.pid = self._process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop(self._process)
        self._close()

    def _close(self) -> None:
        self._sink.close()
        self._folder.cleanup()

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the daemon ended at once:\n{self.words()}")
        return "netobs ready" in self.words()

    def words(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def memory_kib(self) -> dict[str, int]:
        """VmRSS, VmHWM, RssAnon, RssFile and RssShmem. Empty when it has ended."""
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return {}
        values = dict(line.split(":", 1) for line in lines)
        return {
            key: int(text.split()[0]) for key, text in values.items() if key in ("VmRSS", "VmHWM") or key[:3] == "Rss"
        }

    def cpu_so_far_s(self) -> float:
        """User and system time."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def map_bytes(self) -> dict[str, int]:
        """Kernel memory of its maps, by the kernel's number of the map."""
        result = {}
        for entry in Path(f"/proc/{self._process.pid}/fdinfo").iterdir():
            values = dict(line.split(":", 1) for line in entry.read_text(encoding="ascii").splitlines() if ":" in line)
            if "map_id" in values and "memlock" in values:
                result[values["map_id"].strip()] = int(values["memlock"])
        return result

    def stop(self) -> Account:
        """Ends it by SIGTERM. ``peak_kib`` and ``cpu_s`` (since it was ready) are those of its whole life then."""
        self._process.send_signal(signal.SIGTERM)
        end = time.monotonic() + EXIT_WITHIN_S
        while True:
            self.peak_kib = max(self.peak_kib, self.memory_kib().get("VmHWM", 0))
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                raise RuntimeError(f"the daemon did not end within {EXIT_WITHIN_S} s:\n{self.words()}")
            time.sleep(POLL_S)
        self._process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        if self._process.returncode:
            raise RuntimeError(f"the daemon ended with {self._process.returncode}:\n{self.words()}")
        self.cpu_s = usage.ru_utime + usage.ru_stime - self._cpu_before_s
        return Account.of(self.words())
