"""(c) What it costs to keep all flows for the next process: eviction and metering with the journal and without.

Both alternate in one process, a process of its own for each case (``python -m bench.journal``).
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
from typing import Any

from bench.text import table
from bench.userspace import CASE_TIMEOUT_S, TABLES, Pipeline, Stopwatch

TITLE = (
    "journal: CPU us (user and system) to evict and meter a known flow, with everything kept for the next process and\n"
    "without. The ratio is the median over pairs of evictions, one right after the other; its quartiles are beside it"
)
FLOWS = (1_000, 30_000)
WARM_UP = 2
TIMEOUT_S = 3600  # no flow is due


def measure(flow_table: str, flows: int, rounds: int) -> dict[str, Any]:
    """``samples_us``: of each eviction, without and with the journal."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        pipelines = [Pipeline(flow_table, flows, TIMEOUT_S, sink.getsockname()[1], keeps) for keeps in (False, True)]
        samples: list[list[float]] = [[], []]
        for number in range(WARM_UP + rounds):
            for keeps in (0, 1) if number % 2 else (1, 0):
                watch = Stopwatch()
                pipelines[keeps].interval(flows, 0, watch)
                samples[keeps].append((watch.ns["evict"] + watch.ns["meter"]) / flows / 1000)
        for pipeline in pipelines:
            pipeline.close()
    without, kept = (each[WARM_UP:] for each in samples)
    quartiles = statistics.quantiles([after / before for before, after in zip(without, kept)], n=4)
    return {"flow_table": flow_table, "flows": flows, "samples_us": [without, kept], "ratio_quartiles": quartiles,
            "without_us": statistics.median(without), "with_us": statistics.median(kept),
            "ratio": quartiles[1]}  # fmt: skip


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each table and number of flows."""
    rows = []
    for flow_table in TABLES:
        for flows in FLOWS:
            case = [flow_table, str(flows), str((10 if quick else 20) * (5 if flows == FLOWS[0] else 1))]
            argv = [sys.executable, "-m", "bench.journal", *case]
            done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=CASE_TIMEOUT_S)
            rows.append(json.loads(done.stdout))
    return rows


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = [
        (
            f"{row['flows']:>7}  {row['flow_table']}",
            *(f"{row[name]:.3f}" for name in ("without_us", "with_us", "ratio")),
            "{0:.3f} to {2:.3f}".format(*row["ratio_quartiles"]),
        )
        for row in rows
    ]
    return table(("  flows  table", "without", "with", "ratio", "quartiles"), lines)


def _main() -> None:
    parser = argparse.ArgumentParser(description="one case, for bench.journal.run")
    parser.add_argument("flow_table")
    for name in ("flows", "rounds"):
        parser.add_argument(name, type=int)
    case = parser.parse_args()
    print(json.dumps(measure(case.flow_table, case.flows, case.rounds)))


if __name__ == "__main__":
    _main()
