"""(o) The live table of `netobs top`: what it costs the daemon, and how soon a screen is there."""

from __future__ import annotations

import contextlib
import os
import pty
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.daemon import REPOSITORY, Daemon
from bench.text import table
from bench.wire import Wire
from lab.daemon import children
from lab.programs import wait_until
from netobs.cli import control_client
from netobs.cli.top import Frames
from netobs.config.identity import control_socket

TITLE = (
    "live: the daemon with and without `netobs top` on a terminal; a frame of each flow, asked for by a second client"
)
FLOWS, RATE = 100_000, 200_000
CASES = ("without", "with top")


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each case: CPU of the daemon in per cent of a core, memory, and how long frames took."""
    rounds, seconds = (1, 12) if quick else (5, 20)
    samples: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    with Wire() as wire:
        for number in range(rounds):
            for case in CASES[number % 2 :] + CASES[: number % 2]:
                samples[case].append(_sample(wire, case == CASES[1], seconds))
    return [
        {"case": case, **{key: statistics.median(each[key] for each in values) for key in values[0]}, "samples": values}
        for case, values in samples.items()
    ]


def _sample(wire: Wire, with_top: bool, seconds: int) -> dict[str, float]:
    with Daemon(wire, capture={"max_flows": 2 * FLOWS * 2}) as daemon:
        with _terminal(wire, daemon) if with_top else contextlib.nullcontext() as terminal:
            before_s, began = daemon.cpu_so_far_s(), time.monotonic()
            found: dict[str, float] = {}

            def poll() -> None:
                if terminal is not None and not found and time.monotonic() - began > seconds / 2:
                    found.update(_frames(daemon))
                    found.update(_memory(daemon, terminal))

            sent = wire.send(FLOWS, RATE * seconds, poll, rate=RATE)
            lasted_s = time.monotonic() - began
            cpu = 100 * (daemon.cpu_so_far_s() - before_s) / lasted_s
        account = daemon.stop()
    return {
        "daemon_cpu_percent": cpu,
        "packets_per_second": sent.packets_per_second,
        "missing": account.missing + account.seen - sent.packets,
        **found,
    }


@contextlib.contextmanager
def _terminal(wire: Wire, daemon: Daemon) -> Iterator[int]:
    """`netobs top` on a terminal that somebody looks at; its process."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "netobs", "--conf", str(daemon.conf), "top"]
    process = wire.lab.popen(
        wire.receiver.ns, argv, cwd=REPOSITORY, stdin=slave, stdout=slave, stderr=slave,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    reader = subprocess.Popen(["cat"], stdin=master, stdout=subprocess.DEVNULL)
    os.close(slave)
    os.close(master)
    try:
        wait_until(lambda: bool(children(daemon.pid)), "the live table runs")
        yield process.pid
    finally:
        process.terminate()
        process.wait()
        reader.terminate()
        reader.wait()


def _frames(daemon: Daemon) -> dict[str, float]:
    """How long it takes from a request to its frame, and from a look to its frame, in ms."""
    with control_client.connect(control_socket(daemon.conf)) as sock:
        sock.sendall(control_client.request("top", rows=50))
        frames = Frames(sock, "the daemon")
        looks, answers = [], []
        for frame in frames.frames():
            if frame["interval_s"] is None:
                continue
            looks.append(time.time() - frame["time_s"])
            began = time.monotonic()
            frames.ask(sort="packets" if frame["sort"] == "bits" else "bits")
            next(frames.frames())
            answers.append(time.monotonic() - began)
            if len(looks) == 3:
                break
    return {"look_ms": 1000 * max(looks), "answer_ms": 1000 * max(answers), "flows": frame["totals"]["flows"]}


def _memory(daemon: Daemon, terminal: int) -> dict[str, float]:
    def peak_mib(pid: int) -> float:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmHWM"))

    live = children(daemon.pid)[0]
    return {"terminal_mib": peak_mib(terminal), "process_mib": peak_mib(live)}


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    keys = ("look_ms", "answer_ms", "terminal_mib", "process_mib")
    lines = [
        (
            row["case"],
            f"{row['daemon_cpu_percent']:.1f} %",
            f"{row['packets_per_second']:,.0f}",
            f"{row['missing']:.0f}",
            *(f"{row[key]:.0f}" if key in row else "-" for key in keys),
        )
        for row in rows
    ]
    head = ("case", "daemon's CPU", "packets/s", "missing", "look to frame, ms", "key to frame, ms", "top, MiB",
            "its process, MiB")  # fmt: skip
    return table(head, lines)
