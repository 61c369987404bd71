"""(c) CPU time in user space for each flow taken out of the kernel, by stage: evict, meter, encode, send.

Each case runs in a process of its own (``python -m bench.userspace``), so that no case inherits another's memory.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import os
import pstats
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, Callable

from bench.fill import fill
from bench.text import table
from lab.keeping import DictKeeper
from lab.prog_run import on_cpu
from netobs.base import clock, malloc
from netobs.base.clock import ClockPair
from netobs.base.keeper import KeepsNothing
from netobs.base.loop import EventLoop
from netobs.config import CaptureConfig, CollectorConfig
from netobs.datapath.datapath import Datapath
from netobs.encode.ipfix import Encoder, Header
from netobs.encode.template import file
from netobs.export.session import TransportSession
from netobs.flow.journal import open_journal
from netobs.flow.records import FlowBatch, Records
from netobs.metering.process import Metering

TITLE = (
    "user space: CPU us (user and system) for each flow taken out of the kernel, IPFIX over UDP\n"
    "(timeout 0: each eviction is exported; 60 s: the flows go on for 60 s, 13 evictions 5 s apart, then one export)"
)
STAGES = ("evict", "meter", "encode", "send")
FLOWS = (1_000, 10_000, 100_000, 500_000)
TABLES = ("percpu_array", "percpu_hash")
TIMEOUTS_S = (0, 60)
PROFILED = ("percpu_array", 100_000)
PROFILE_LINES = 15
INTERVAL_NS = 5 * clock.NS_PER_S
CASE_TIMEOUT_S = 600


class Stopwatch:
    """Adds up the CPU time (user and system, ns) inside ``measure``."""

    def __init__(self, profile: cProfile.Profile | None = None) -> None:
        self.ns: dict[str, int] = dict.fromkeys(STAGES, 0)
        self._profile = profile

    def measure(self, stage: str, call: Callable[[], Any]) -> Any:
        before = time.process_time_ns()
        result = self._profile.runcall(call) if self._profile else call()
        self.ns[stage] += time.process_time_ns() - before
        return result


class Pipeline:
    """Every stage of the daemon, each called by hand. ``late_ns``: how far its clock is ahead of the real one.
    ``keeps``: with the journal, for the next process."""

    def __init__(self, flow_table: str, flows: int, timeout_s: int, port: int, keeps: bool = False) -> None:
        malloc.return_large()  # as the daemon does
        self.datapath = Datapath(CaptureConfig(flow_table=flow_table, max_flows=2 * flows))
        keeper = DictKeeper() if keeps else KeepsNothing()
        journal = self.datapath.journal = open_journal(self.datapath.record, keeper)
        self.datapath.load()
        self._program = self.datapath.program_fd("netobs_ingress")
        self._metering = Metering(timeout_s * clock.NS_PER_S, 15 * clock.NS_PER_S, journal=journal, keeper=keeper)
        self._encoder = Encoder(file.load("default"))
        self._loop = EventLoop()
        config = CollectorConfig(host="127.0.0.1", port=port, observation_domain=1)
        self._session = TransportSession(config, self._encoder, Header, self._loop)
        self._session.open(clock.read_pair(), clock.monotonic_ns())
        self._cpus = sorted(os.sched_getaffinity(0))
        self.late_ns = 0

    def interval(self, flows: int, first: int, watch: Stopwatch) -> None:
        """Fills the table with ``flows`` flows, an equal part on each CPU, and takes them as far as they go."""
        parts = [flows * part // len(self._cpus) for part in range(len(self._cpus) + 1)]
        for cpu, begin, end in zip(self._cpus, parts, parts[1:]):
            with on_cpu(cpu):
                fill(self._program, end - begin, first + begin)
        rows = watch.measure("evict", lambda: self.datapath.evict(clock.monotonic_ns()))
        if len(rows) != flows:
            raise RuntimeError(f"{len(rows)} of {flows} flows evicted")
        self._export(rows, watch)

    def _export(self, rows: Records, watch: Stopwatch) -> None:
        for name in ("first_ns", "last_ns"):
            rows[name] += self.late_ns
        now = clock.read_pair()
        pair = ClockPair(now.monotonic_ns + self.late_ns, now.realtime_ns + self.late_ns)
        due = watch.measure("meter", lambda: self._metering.update(rows, pair.monotonic_ns))
        data_sets = watch.measure("encode", lambda: self._encoder.encode(FlowBatch(due, pair)).data_sets)
        watch.measure("meter", self.datapath.journal.exported)
        watch.measure("send", lambda: self._send(data_sets, pair))

    def _send(self, data_sets: list[Any], pair: ClockPair) -> None:
        self._session.send(data_sets, pair, clock.monotonic_ns())
        while self._session.account.queued.flows:
            self._loop.run_once(100_000_000)

    @property
    def sent(self) -> int:
        """Flow Records that went out."""
        return self._session.account.sent.flows

    def close(self) -> None:
        self.datapath.close()
        self._loop.close()


def _round(pipeline: Pipeline, flows: int, timeout_s: int, number: int, profile: cProfile.Profile | None) -> Stopwatch:
    """One eviction, or with a timeout all evictions of one export."""
    watch = Stopwatch(profile)
    if not timeout_s:
        pipeline.interval(flows, number * flows, watch)
    else:
        for _ in range(timeout_s * clock.NS_PER_S // INTERVAL_NS + 1):
            pipeline.interval(flows, 0, watch)
            pipeline.late_ns += INTERVAL_NS
    return watch


def measure(flow_table: str, flows: int, timeout_s: int, rounds: int, profiled: bool = False) -> dict[str, Any]:
    """Medians over ``rounds``, after a warm-up round. ``profile``: the report of cProfile, or ''."""
    profile = cProfile.Profile(time.process_time) if profiled else None  # CPU, not waiting
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:  # takes what fits its buffer: nobody reads
        sink.bind(("127.0.0.1", 0))
        pipeline = Pipeline(flow_table, flows, timeout_s, sink.getsockname()[1])
        _round(pipeline, flows, timeout_s, 0, None)
        before = pipeline.sent
        watches = [_round(pipeline, flows, timeout_s, number, profile) for number in range(1, rounds + 1)]
        sent, levels = pipeline.sent - before, pipeline.datapath.table.occupancy()
        pipeline.close()
    evicted = flows * (timeout_s * clock.NS_PER_S // INTERVAL_NS + 1)
    us = {stage: [watch.ns[stage] / evicted / 1000 for watch in watches] for stage in STAGES}
    us["total"] = [sum(parts) for parts in zip(*us.values())]
    return {"flow_table": flow_table, "flows": flows, "timeout_s": timeout_s, "sent": sent, "occupancy": levels,
            "evicted": evicted * rounds, "samples_us": us, "profile": _text_of(profile) if profile else "",
            **{f"{stage}_us": statistics.median(values) for stage, values in us.items()}}  # fmt: skip


def _text_of(profile: cProfile.Profile) -> str:
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("cumulative").print_stats(PROFILE_LINES)
    return text.getvalue().strip()


def run(quick: bool, profiled: bool = False) -> list[dict[str, Any]]:
    """A row for each number of flows, timeout and table. ``profiled`` adds a profile, in a run of its own."""
    rounds = 3 if quick else 5
    cases = [
        (name, flows, timeout_s, 1 if timeout_s else rounds, False)
        for flows in FLOWS[: 3 if quick else None]
        for timeout_s in TIMEOUTS_S
        for name in TABLES
    ]
    rows = [_in_process(*case) for case in cases]
    if profiled:
        rows += [_in_process(*PROFILED, timeout_s, 1 if timeout_s else rounds, True) for timeout_s in TIMEOUTS_S]
    return rows


def _in_process(flow_table: str, flows: int, timeout_s: int, rounds: int, profiled: bool) -> dict[str, Any]:
    argv = [sys.executable, "-m", "bench.userspace", flow_table, str(flows), str(timeout_s), str(rounds)]
    done = subprocess.run(
        argv + ["--profile"] * profiled, check=True, stdout=subprocess.PIPE, text=True, timeout=CASE_TIMEOUT_S
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``, and the profiles."""
    columns = [f"{stage}_us" for stage in (*STAGES, "total")]
    lines = [
        (f"{row['flows']:>7}  {row['flow_table']}, timeout {row['timeout_s']} s", *(f"{row[c]:.3f}" for c in columns))
        for row in rows
        if not row["profile"]
    ]
    profiles = [
        f"\nprofile: {row['flow_table']}, {row['flows']} flows, timeout {row['timeout_s']} s\n{row['profile']}"
        for row in rows
        if row["profile"]
    ]
    return "\n".join([table(("  flows  table", *STAGES, "total"), lines), *profiles])


def _main() -> None:
    parser = argparse.ArgumentParser(description="one case, for bench.userspace.run")
    parser.add_argument("flow_table")
    for name in ("flows", "timeout_s", "rounds"):
        parser.add_argument(name, type=int)
    parser.add_argument("--profile", action="store_true")
    case = parser.parse_args()
    print(json.dumps(measure(case.flow_table, case.flows, case.timeout_s, case.rounds, case.profile)))


if __name__ == "__main__":
    _main()
