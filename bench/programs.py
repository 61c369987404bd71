"""The compared programs: loaded side by side in one process, so that their runs can alternate."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import tempfile
import time
from collections.abc import Iterator
from ctypes import c_int
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from lab.prog_run import declared
from netobs.config import CaptureConfig
from netobs.datapath.datapath import Datapath
from netobs.datapath.layout import FLOW_TABLES
from netobs.kernel import libbpf
from netobs.kernel.object import BpfObject

EMPTY_SOURCE = Path(__file__).with_name("empty.bpf.c")
EVICTION_S = 1.0
EMERGENCY_S = 0.1  # the daemon's spacing of evictions that a full table calls for
POLL_S = 0.02
BPF_STATS_RUN_TIME = 0


@dataclass(frozen=True)
class Variant:
    """One set of programs. ``max_flows``: as in [capture]."""

    flow_table: str
    precise_time: bool = False
    max_flows: int = 65_536
    note: str = ""

    def __str__(self) -> str:
        words = [self.flow_table, "precise" if self.precise_time else "coarse", self.note]
        return ", ".join(word for word in words if word)


ALL_VARIANTS = tuple(Variant(table, precise) for table in FLOW_TABLES for precise in (False, True))
PAPER = Variant("percpu_hash", precise_time=True)
"""The paper's variant, the baseline of the others."""


class Empty:
    """A program that does nothing, compiled now."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "empty.bpf.o")
            argv = ["clang", "-O2", "-g", "-target", "bpfel", "-mcpu=v3", "-c", str(EMPTY_SOURCE), "-o", str(target)]
            subprocess.run(argv, check=True, timeout=60)
            self._object = BpfObject(target)
        self._object.load()

    def program_fd(self, _name: str) -> int:
        """File descriptor of the program."""
        return self._object.program_fd("empty")

    def close(self) -> None:
        """Frees the program."""
        self._object.close()


class Loaded:
    """``variants``, and the empty program as ``None``, loaded; a context manager."""

    def __init__(self, *variants: Variant) -> None:
        self._cleanup = contextlib.ExitStack()
        self.datapaths: dict[Variant, Datapath] = {}
        try:
            self._empty = Empty()
            self._cleanup.callback(self._empty.close)
            for variant in variants:
                self.datapaths[variant] = self._load(variant)
        except BaseException:
            self._cleanup.close()
            raise

    def _load(self, variant: Variant) -> Datapath:
        datapath = Datapath(
            CaptureConfig(flow_table=variant.flow_table, max_flows=variant.max_flows, precise_time=variant.precise_time)
        )
        self._cleanup.callback(datapath.close)
        datapath.load()
        return datapath

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def program_fd(self, variant: Variant | None, name: str = "netobs_ingress") -> int:
        """File descriptor of a program of ``variant``."""
        return self._empty.program_fd(name) if variant is None else self.datapaths[variant].program_fd(name)


@dataclass
class Taken:
    """Amounts that a ``Drain`` took out of the kernel: rows by level, packets."""

    evictions: int = 0
    emergency_evictions: int = 0
    slots: int = 0
    overflow: int = 0
    ring: int = 0
    packets: int = 0


class Drain:
    """Serves a datapath like the daemon: evicts at intervals and when the table is full, reads the ring."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._last = time.monotonic()
        self.taken = Taken()

    def poll(self) -> None:
        """One round; to be called often."""
        reading = self._datapath.read_ring()
        self.taken.ring += len(reading.records)
        self.taken.packets += int(reading.records["packets"].sum())
        age = time.monotonic() - self._last
        full = bool((reading.records["errno"] == errno.E2BIG).any())
        if age >= EVICTION_S or (full and age >= EMERGENCY_S):
            self.taken.emergency_evictions += age < EVICTION_S
            self._evict()

    def _evict(self) -> None:
        self._last = time.monotonic()
        rows = self._datapath.evict(time.monotonic_ns())
        self.taken.evictions += 1
        self.taken.packets += int(rows["packets"].sum(dtype=np.uint64))
        occupancy = self._datapath.table.occupancy()
        self.taken.slots += occupancy.get("slots", len(rows))
        self.taken.overflow += occupancy.get("overflow", 0)

    def finish(self) -> Taken:
        """Takes the remaining flows out of both halves."""
        self._evict()
        self._evict()
        self.poll()
        return self.taken


@dataclass(frozen=True)
class RunTime:
    """The kernel's statistics of a program's runs since it was loaded."""

    ns: int
    runs: int

    def since(self, before: RunTime) -> float:
        """ns of a run, on average."""
        return (self.ns - before.ns) / max(self.runs - before.runs, 1)


def run_time(program_fd: int) -> RunTime:
    """Run time of a program: counted only inside ``run_time_stats``."""
    lines = Path(f"/proc/self/fdinfo/{program_fd}").read_text(encoding="ascii").splitlines()
    values = dict(line.split(":\t", 1) for line in lines)
    return RunTime(int(values["run_time_ns"]), int(values["run_cnt"]))


@contextlib.contextmanager
def run_time_stats() -> Iterator[None]:
    """Like sysctl kernel.bpf_stats_enabled=1, but by a file descriptor (kernel 5.8), so nothing has to be restored."""
    fd = libbpf.checked(declared("bpf_enable_stats", c_int)(BPF_STATS_RUN_TIME), "run time statistics")
    with open(fd, "rb", buffering=0):
        yield
