"""(i) Cost of a packet for the packet capture agent, above an empty program (BPF_PROG_TEST_RUN), and of reading it."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.filters import FROM_HOST
from bench.programs import Empty
from bench.text import table
from lab import frames as f
from lab.prog_run import Run
from netobs.kernel import libbpf
from netobs.pcap.filters import compile_filter
from netobs.pcap.filters.program import FilterProgram
from netobs.pcap.selection import LINK_ETHERNET, Selection
from netobs.pcap.tap.layout import COPY_SLOTS, FILTER_SLOTS
from netobs.pcap.tap.programs import PacketPrograms
from netobs.pcap.tap.rings import PacketRings

TITLE = "packets: ns of a packet for the capture agent above an empty program, BPF_PROG_TEST_RUN, and for reading it"
REPEAT, SETTLE = 100_000, 10_000  # where nothing is copied
COPIES, CALLS = 2_000, 20  # so many in one call: the rings hold them
BYTES_PER_CPU = 4 << 20
READ_BYTES = 512 << 10  # at a time
OWN_PORT = 9990
EXPRESSION = "tcp port 443 and host 10.0.0.1"


def _udp(size: int) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(size - 42))))


@dataclass
class Case:
    """What runs: ``text`` of the filter ("": none is set), a frame, whether it is copied."""

    name: str
    text: str
    frame: bytes
    copied: bool = False
    own_port: int = 0
    kernel_ns: list[float] = field(default_factory=list)
    read_ns: list[float] = field(default_factory=list)


def _cases() -> list[Case]:
    return [
        Case("attached, nothing is selected", "", _udp(100)),
        Case(f"not selected by: {EXPRESSION}", EXPRESSION, FROM_HOST),
        Case("copied, 100 octets", "udp", _udp(100), copied=True),
        Case("copied, 100 octets, not of the agent's own stream", "udp", _udp(100), copied=True, own_port=OWN_PORT),
        Case("copied, 1,500 octets", "udp", _udp(1500), copied=True),
    ]


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each case: ``samples_ns`` (one for each round), ``ns``, ``read_ns`` of user space."""
    cases = _cases()
    with _loaded() as bench:
        for _ in range(3 if quick else 15):
            for case in cases:
                bench.sample(case)
    return [
        {
            "case": case.name,
            "ns": statistics.median(case.kernel_ns),
            "read_ns": statistics.median(case.read_ns) if case.read_ns else None,
            "samples_ns": case.kernel_ns,
        }
        for case in cases
    ]


class _Bench:
    """The programs and the rings, and the empty program."""

    def __init__(self, programs: PacketPrograms, rings: PacketRings, empty_fd: int) -> None:
        self._programs, self._rings = programs, rings
        self._empty_fd, self._entry_fd = empty_fd, programs.program_fd("packets_ingress")

    def sample(self, case: Case) -> None:
        """One round of ``case``: CPU time of this thread, so that other processes do not count."""
        self._programs.set_own_port(case.own_port)
        self._set_filter(case.text)
        if case.copied:
            self._sample_copies(case)
        else:
            ns = self._timed(self._entry_fd, case.frame, REPEAT)
            case.kernel_ns.append(ns - self._timed(self._empty_fd, case.frame, REPEAT))

    def _sample_copies(self, case: Case) -> None:
        empty_ns = self._timed(self._empty_fd, case.frame, COPIES * CALLS)
        before, kernel_ns, read_ns = self._programs.count(), 0.0, 0.0
        for _ in range(CALLS):
            kernel_ns += self._timed(self._entry_fd, case.frame, COPIES) / CALLS
            read_ns += self._read(COPIES) / CALLS
        after = self._programs.count()
        if after.lost != before.lost or after.copied - before.copied != COPIES * CALLS:
            raise RuntimeError(f"{case.name}: {after.copied - before.copied} packets copied, {after.lost} lost")
        case.kernel_ns.append(kernel_ns - empty_ns)
        case.read_ns.append(read_ns)

    def _timed(self, program_fd: int, frame: bytes, repeat: int) -> float:
        run_program = Run(program_fd)
        if repeat >= SETTLE:
            run_program(frame, SETTLE)
        start = time.thread_time_ns()
        run_program(frame, repeat)
        return (time.thread_time_ns() - start) / repeat

    def _read(self, packets: int) -> float:
        start, found = time.thread_time_ns(), len(self._rings.read(READ_BYTES))
        while self._rings.backlog_bytes:
            found += len(self._rings.read(READ_BYTES))
        if found != packets:
            raise RuntimeError(f"{found} packets read of {packets}")
        return (time.thread_time_ns() - start) / packets

    def _set_filter(self, text: str) -> None:
        """Without a text the slot is empty."""
        programs_fd, matches_fd = (self._programs.map_fd(name) for name in ("packet_programs", "packet_matches"))
        if not text:
            libbpf.delete_u32(programs_fd, FILTER_SLOTS[0])
            return
        chosen = [(0, Selection(compile_filter([text])))]
        fd = FilterProgram(chosen, LINK_ETHERNET, COPY_SLOTS[0], programs_fd, matches_fd).load()
        try:
            self._programs.set_filters({FILTER_SLOTS[0]: fd})
        finally:
            os.close(fd)


@contextlib.contextmanager
def _loaded() -> Iterator[_Bench]:
    programs, rings, empty = PacketPrograms(), PacketRings(BYTES_PER_CPU), Empty()
    try:
        programs.load(rings.wakeup_bytes)
        rings.open(programs.map_fd("packet_rings"))
        yield _Bench(programs, rings, empty.program_fd("empty"))
    finally:
        rings.close()
        programs.close()
        empty.close()


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = [(row["case"], f"{row['ns']:.1f}", f"{row['read_ns']:.1f}" if row["read_ns"] else "-") for row in rows]
    return table(("packet", "kernel, ns", "reading, ns"), lines)
