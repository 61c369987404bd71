"""`make bench`: runs each measurement in a process of its own, prints a table, writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS = ("evict", "meter", "encode", "send", "total")


def userspace(flow_table: str, flows: int, rounds: int) -> dict[str, Any]:
    """CPU per flow by stage; a fresh process, so that its peak memory is its own."""
    command = [sys.executable, "-m", "bench.userspace", flow_table, str(flows), str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """CPU microseconds per exported flow, by stage, and memory."""
    lines = [f"{'flow table':14}{'flows':>9}" + "".join(f"{name:>9}" for name in COLUMNS) + "   RSS idle, peak (MiB)"]
    for row in rows:
        stages = "".join(f"{row[f'{name}_us_per_flow']:9.3f}" for name in COLUMNS)
        memory = f"   {row['rss_idle_mib']:.0f}, {row['rss_peak_mib']:.0f}"
        lines.append(f"{row['flow_table']:14}{row['flows']:9}{stages}{memory}")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="bench", description="CPU microseconds per exported flow, by stage")
    parser.add_argument("--flows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--tables", nargs="+", default=["percpu_hash"])
    parser.add_argument("--rounds", type=int, default=5, help="evictions of which the median counts")
    parser.add_argument("--json", type=Path, default=RESULTS / "userspace.json", help="where the figures go")
    options = parser.parse_args()
    rows = [userspace(name, flows, options.rounds) for flows in options.flows for name in options.tables]
    print("CPU time for each exported flow (us, user and system, median), IPFIX over UDP")
    print(table(rows))
    machine = {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine, "userspace": rows}, indent=1) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
