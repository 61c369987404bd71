"""Start of the daemon until it is ready, after a crash, against an interpreter that only imports numpy."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench.text import table
from lab.daemon import configuration
from lab.keeping import ServiceStore, run_with
from lab.namespaces import Lab, LabError, in_namespace

TITLE = "start of the daemon until it is ready: wall time and CPU time (ms)"
ROUNDS = 15
POLL_S = 0.001
READY_WITHIN_S = 30
NUMPY = [sys.executable, "-c", "import numpy, os; os._exit(0)"]


class Start(NamedTuple):
    """What one start took."""

    wall_s: float
    cpu_s: float


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each case: ``samples``, their medians, and ``ratio`` of the CPU time to that of numpy's import."""
    with Lab() as lab, tempfile.TemporaryDirectory() as folder, ServiceStore(Path(folder, "notify")) as store:
        _, far = lab.pair()
        conf = Path(folder, "netobs.toml")
        conf.write_text(configuration({"interfaces": [far.name]}), encoding="utf-8")
        with store.serving(), in_namespace(far.ns):
            first = _daemon(store, conf)
            pairs = [(_numpy(), _daemon(store, conf)) for _ in range(3 if quick else ROUNDS)]
    numpy, adopting = ([*starts] for starts in zip(*pairs))
    cases = {"python -c 'import numpy'": numpy, "after a crash": adopting, "the first": [first]}
    base_s = statistics.median(start.cpu_s for start in numpy)
    return [
        {"case": case, "wall_s": statistics.median(start.wall_s for start in starts), "samples": starts,
         "cpu_s": (cpu_s := statistics.median(start.cpu_s for start in starts)), "ratio": cpu_s / base_s}
        for case, starts in cases.items()
    ]  # fmt: skip


def _numpy() -> Start:
    begin_s = time.perf_counter()
    pid = os.posix_spawn(NUMPY[0], NUMPY, os.environ)
    used = os.wait4(pid, 0)[2]
    return Start(time.perf_counter() - begin_s, used.ru_utime + used.ru_stime)


def _daemon(store: ServiceStore, conf: Path) -> Start:
    """A start that finds what ``store`` has, and ends by SIGKILL."""
    said, begin_s = len(store.heard), time.perf_counter()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.environ.update(store.environment)
            argv = [sys.executable, "-m", "netobs", "--conf", str(conf)]
            run_with([*store.fds.values()], [*store.fds], argv)
        finally:
            os._exit(1)
    try:
        while not any("READY=1" in each for each in store.heard[said:]):
            if time.perf_counter() > begin_s + READY_WITHIN_S:
                raise LabError(f"netobs was not ready within {READY_WITHIN_S} s")
            time.sleep(POLL_S)
        cpu_clock = ~pid << 3 | 2  # as clock_getcpuclockid(3) makes it
        return Start(time.perf_counter() - begin_s, time.clock_gettime(cpu_clock))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = [(row["case"], *(f"{row[key] * 1000:.0f}" for key in ("wall_s", "cpu_s")), f"{row['ratio']:.2f}")
             for row in rows]  # fmt: skip
    return table(("case", "wall", "CPU", "CPU ratio to numpy"), lines)
