"""(i) Packets to one client: the highest rate without a loss, and the cost of a packet, compared with ``tcpdump -w``.

Both take the same packets off the same interface and write classic pcap into a pipe. Counting its bytes shows whether a
packet is missing. netobs meters flows at the same time. The rate rises in steps until a packet is missing; both take
turns. The copy in the kernel happens in the sender, so the sender's CPU time shows its cost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.daemon import Daemon
from bench.text import table
from bench.wire import Wire
from lab.daemon import children
from lab.namespaces import stop
from lab.programs import wait_until
from lab.traffic import Traffic

TITLE = (
    "streaming: packets per second to one client without a loss, CPU of a packet in the agent, and in the kernel\n"
    "above nothing; UDP over veth at up to full speed of one CPU; netobs meters flows besides"
)
SIZES = (100, 1500)
RATES = (50_000, 100_000, 200_000, 300_000, 400_000, 0)  # 0: full speed
PORT = 9990
SETTLED_S = 1.2  # without CPU time for this long, all work is done; tcpdump flushes its buffer after a second
COUNT_TIMEOUT_S = 30
FILE_HEADER_BYTES, RECORD_HEADER_BYTES = 24, 16
NOTHING, NETOBS, TCPDUMP = "nothing", "netobs", "tcpdump -w"


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each size and agent: ``packets_per_second`` (the highest without a loss in every round), CPU ns."""
    rounds, seconds = (1, 1.0) if quick else (3, 2.0)
    rows = []
    with Wire() as wire:
        for size in SIZES:
            samples: dict[str, list[dict[str, Any]]] = {NOTHING: [], NETOBS: [], TCPDUMP: []}
            for rate in RATES:
                # At full speed all have a turn, to compare the kernel's cost of each.
                going = [name for name in samples if not rate or all(not each["lost"] for each in samples[name])]
                for _ in range(rounds):
                    for name in going:
                        samples[name].append(_sample(wire, name, size, rate, seconds))
            rows += [_row(size, name, samples) for name in (NETOBS, TCPDUMP)]
    return rows


def _row(size: int, name: str, samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    mine = samples[name]
    lossy = {each["rate"] for each in mine if each["lost"]}
    whole = [each for each in mine if each["rate"] not in lossy]
    best = max((each["rate"] or float("inf") for each in whole), default=0)
    at_best = [each for each in whole if (each["rate"] or float("inf")) == best]
    return {
        "size": size, "agent": name,
        "packets_per_second": statistics.median(each["packets_per_second"] for each in at_best) if at_best else 0,
        "agent_ns": statistics.median(each["agent_ns"] for each in at_best) if at_best else 0,
        "kernel_ns": _sender_ns(mine) - _sender_ns(samples[NOTHING]),
        "first_loss": [each for each in mine if each["lost"]][:1], "samples": mine,
    }  # fmt: skip


def _sender_ns(samples: list[dict[str, Any]]) -> float:
    """At full speed: below, the sender fills the time between two packets by waiting."""
    full = [each["sender_ns"] for each in samples if not each["rate"]]
    return statistics.median(full) if full else float("nan")


def _sample(wire: Wire, name: str, size: int, rate: int, seconds: float) -> dict[str, Any]:
    packets = int((rate or 1_000_000) * seconds)
    with AGENTS[name](wire) as agent:
        before_s, busy_before_s = agent.cpu_s(), _busy_s(wire.traffic_cpu)
        traffic = Traffic(packets=packets, flows=100, size=size)
        sent = traffic.start(wire.lab, wire.sender, rate=rate, cpus=[wire.traffic_cpu]).wait()
        busy_s = _busy_s(wire.traffic_cpu) - busy_before_s
        agent.settle()
        spent_s = agent.cpu_s() - before_s
        lost = sent.packets - agent.finish(sent.packets, size)
    return {
        "rate": rate, "packets": sent.packets, "packets_per_second": sent.packets_per_second, "lost": lost,
        "agent_ns": 1e9 * spent_s / sent.packets, "sender_ns": 1e9 * busy_s / sent.packets,
    }  # fmt: skip


def _busy_s(cpu: int) -> float:
    """Busy time of a CPU so far (proc(5), /proc/stat: all except idle and iowait)."""
    line = next(line for line in Path("/proc/stat").read_text("ascii").splitlines() if line.startswith(f"cpu{cpu} "))
    ticks = [int(field) for field in line.split()[1:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


class Nothing:
    """Without a capture: the cost of sending alone."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *_error: object) -> None:
        self._cleanup.close()

    def cpu_s(self) -> float:
        """Of the agent so far."""
        return 0.0

    def settle(self) -> None:
        """Waits until it has finished its work."""

    def finish(self, packets: int, _size: int) -> int:
        """Ends it; how many whole packets came out of it."""
        return packets


class Tcpdump(Nothing):
    """``tcpdump -w -`` into a pipe. Its buffer is as large as that of netobs for a CPU."""

    ARGV: tuple[str, ...] = (
        "tcpdump", "-n", "-s", "262144", "-B", "4096", "--time-stamp-precision=nano", "-w", "-", "udp"
    )  # fmt: skip

    def __enter__(self) -> Tcpdump:
        words = self._cleanup.enter_context(tempfile.NamedTemporaryFile())
        self._start([*self.ARGV, "-i", self._wire.receiver.name], words)
        wait_until(lambda: b"listening on" in Path(words.name).read_bytes(), "tcpdump listens")
        return self

    def _start(self, argv: list[str], words: Any = None) -> None:
        """``argv``, with its output counted."""
        popen, ns = self._wire.lab.popen, self._wire.receiver.ns
        self._agent = popen(ns, argv, stdout=subprocess.PIPE, stderr=words)
        self._counter = popen(ns, ["wc", "-c"], stdin=self._agent.stdout, stdout=subprocess.PIPE)
        assert self._agent.stdout is not None
        self._agent.stdout.close()  # a pipe: its end is now that of wc alone
        for process in (self._counter, self._agent):
            self._cleanup.callback(stop, process)

    def cpu_s(self) -> float:
        return _cpu_s(self._agent.pid)

    def settle(self) -> None:
        before = -1.0
        while before != self.cpu_s():
            before = self.cpu_s()
            time.sleep(SETTLED_S)

    def finish(self, packets: int, size: int) -> int:
        stop(self._agent, signal.SIGINT)
        return self._whole(size)

    def _whole(self, size: int) -> int:
        output, _ = self._counter.communicate(timeout=COUNT_TIMEOUT_S)
        packets, rest = divmod(int(output) - FILE_HEADER_BYTES, RECORD_HEADER_BYTES + size)
        if rest:
            raise RuntimeError(f"{output!r} bytes are no whole number of packets of {size} octets")
        return packets


class Streaming(Tcpdump):
    """The daemon, and one client that only forwards its stream."""

    ARGV = ("socat", "-u", "-b", "1048576", f"TCP:127.0.0.1:{PORT}", "-")

    def __enter__(self) -> Streaming:
        settings = {"enabled": True, "filter": "udp", "listen": f"127.0.0.1:{PORT}"}
        self._daemon = self._cleanup.enter_context(Daemon(self._wire, packet_capture=settings))
        self._start(list(self.ARGV))
        wait_until(lambda: ": gets " in self._daemon.words(), "the client is served")
        return self

    def cpu_s(self) -> float:
        """Of the daemon, which meters, and of its process that captures."""
        return sum(map(_cpu_s, (self._daemon.pid, *children(self._daemon.pid))))

    def finish(self, packets: int, size: int) -> int:
        self._daemon.stop()
        return self._whole(size)


AGENTS: dict[str, type[Nothing]] = {NOTHING: Nothing, NETOBS: Streaming, TCPDUMP: Tcpdump}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = [
        (f"{row['size']:>5} B  {row['agent']}", f"{row['packets_per_second']:,.0f}", f"{row['agent_ns']:.0f}",
         f"{row['kernel_ns']:.0f}", f"{row['agent_ns'] + row['kernel_ns']:.0f}")
        for row in rows
    ]  # fmt: skip
    return table((" size  agent", "packets/s", "agent ns", "kernel ns", "sum"), lines)
