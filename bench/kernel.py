"""(a) Kernel cost of a packet of a known flow, above an empty program: BPF_PROG_TEST_RUN, one flow."""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench.fill import udp_frame
from bench.programs import ALL_VARIANTS, PAPER, Loaded, Variant
from bench.text import table
from lab.prog_run import Run
from netobs.datapath.datapath import Datapath

TITLE = "kernel: ns of a packet above an empty program, BPF_PROG_TEST_RUN, 1 flow"
REPEAT = 100_000  # of one call: the ring of flow_table = "ringbuf" must hold them
CALLS = 10
SETTLE = 2_000


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each table and clock: ``samples_ns`` (one for each round), ``ns``, ``ratio`` to the paper's."""
    rounds = 7 if quick else 31
    programs: list[Variant | None] = [None, *ALL_VARIANTS]
    samples: dict[Variant | None, list[float]] = {program: [] for program in programs}
    with Loaded(*ALL_VARIANTS) as loaded:
        for number in range(rounds):
            start = number % len(programs)
            for program in programs[start:] + programs[:start]:
                samples[program].append(_sample(loaded, program))
    empty = samples.pop(None)
    above = {variant: [ns - base for ns, base in zip(values, empty)] for variant, values in samples.items() if variant}
    paper = statistics.median(above[PAPER])
    return [
        {"variant": str(variant), "flow_table": variant.flow_table, "precise_time": variant.precise_time,
         "ns": statistics.median(values), "ratio": statistics.median(values) / paper, "samples_ns": values,
         "empty_ns": statistics.median(empty)}
        for variant, values in above.items()
    ]  # fmt: skip


def _sample(loaded: Loaded, variant: Variant | None) -> float:
    """CPU ns of a run: this thread's CPU time, so that other processes do not count."""
    datapath = loaded.datapaths[variant] if variant else None
    run_program, frame, total_ns = Run(loaded.program_fd(variant)), udp_frame(0), 0
    run_program(frame, SETTLE)
    for _ in range(CALLS):
        _empty_ring(datapath)
        before = time.thread_time_ns()
        run_program(frame, REPEAT)
        total_ns += time.thread_time_ns() - before
    if datapath:
        _empty_ring(datapath)
        datapath.evict(time.monotonic_ns())
    return total_ns / (CALLS * REPEAT)


def _empty_ring(datapath: Datapath | None) -> None:
    if datapath:
        datapath.read_ring()


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = [(row["variant"], f"{row['ns']:.1f}", f"{row['ratio']:.2f}") for row in rows]
    return table(("flow table, clock", "ns", "ratio to percpu_hash, precise"), lines)
