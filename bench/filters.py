"""(h) Kernel cost of a packet that a capture filter does not select, above an empty program: BPF_PROG_TEST_RUN."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench.programs import Empty
from bench.text import table
from lab import frames as f
from lab.packet_maps import create_maps
from lab.prog_run import Run, get
from netobs.kernel import libbpf
from netobs.pcap.filters import compile_filter
from netobs.pcap.filters.program import FilterProgram
from netobs.pcap.selection import LINK_ETHERNET, Selection
from netobs.pcap.tap.layout import COPY_SLOTS

TITLE = "filters: ns of a packet that is not selected above an empty program, BPF_PROG_TEST_RUN"
REPEAT = 1_000_000
SETTLE = 10_000
OTHER_PORT = 8080
FROM_HOST = f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(dport=OTHER_PORT), src="10.0.0.1"))
CASES: dict[str, tuple[tuple[str, ...], bytes]] = {
    # The packet fails at the last comparison.
    "tcp port 443 and host 10.0.0.1": (("tcp port 443 and host 10.0.0.1",), FROM_HOST),
    "tcp,80": (("tcp,80",), f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(dport=OTHER_PORT)))),
    "host 10.0.0.1 or host 2001:db8::9": (
        ("host 10.0.0.1 or host 2001:db8::9",),
        f.ethernet(f.IPV6, f.ipv6(f.TCP, f.tcp(dport=OTHER_PORT))),
    ),
    "32 at once: tcp port N and host 10.0.0.1": (
        tuple(f"tcp port {port} and host 10.0.0.1" for port in range(1, 33)),
        FROM_HOST,
    ),
}


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each filter: ``samples_ns`` (one for each round), ``ns``."""
    rounds = 5 if quick else 21
    samples: dict[str, list[float]] = {name: [] for name in CASES}
    empties = []
    with _loaded() as (empty_fd, fds):
        for _ in range(rounds):
            for name, (_, frame) in CASES.items():
                empty = _sample(empty_fd, frame)
                samples[name].append(_sample(fds[name], frame) - empty)
                empties.append(empty)
    return [
        {"filter": name, "ns": statistics.median(values), "samples_ns": values, "empty_ns": statistics.median(empties)}
        for name, values in samples.items()
    ]


@contextmanager
def _loaded() -> Iterator[tuple[int, dict[str, int]]]:
    """Descriptors of the empty program, and of a filter program for each case."""
    programs_fd, matches_fd = create_maps()
    empty, fds = Empty(), {}
    try:
        for name, (texts, _) in CASES.items():
            chosen = [(bit, Selection(compile_filter([text]))) for bit, text in enumerate(texts)]
            fds[name] = FilterProgram(chosen, LINK_ETHERNET, COPY_SLOTS[0], programs_fd, matches_fd).load()
        yield empty.program_fd("empty"), fds
        masks = get(matches_fd, np.uint32(0), 8 * libbpf.possible_cpus())
        if masks is None or any(masks):
            raise RuntimeError("a filter selected the packet that it should not")
    finally:
        empty.close()
        for fd in (programs_fd, matches_fd, *fds.values()):
            os.close(fd)


def _sample(program_fd: int, frame: bytes) -> float:
    """CPU ns of a run: this thread's CPU time, so that other processes do not count."""
    run_program = Run(program_fd)
    run_program(frame, SETTLE)
    before = time.thread_time_ns()
    run_program(frame, REPEAT)
    return (time.thread_time_ns() - before) / REPEAT


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    return table(("filter", "ns"), [(row["filter"], f"{row['ns']:.1f}") for row in rows])
