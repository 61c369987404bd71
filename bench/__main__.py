"""`make bench`: measures, prints a table for each section, writes one JSON file and PNG plots. Root is needed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import (
    exporting,
    filters,
    host,
    journal,
    kernel,
    listen,
    live,
    memory,
    overload,
    packets,
    scraping,
    start,
    streaming,
    throughput,
    traffic,
    userspace,
)
from lab.namespaces import LabError
from netobs.base.errors import NetobsError

SECTIONS: dict[str, ModuleType] = {
    "kernel": kernel,
    "filters": filters,
    "packets": packets,
    "traffic": traffic,
    "userspace": userspace,
    "journal": journal,
    "throughput": throughput,
    "memory": memory,
    "overload": overload,
    "export": exporting,
    "streaming": streaming,
    "listen": listen,
    "start": start,
    "scraping": scraping,
    "live": live,
}
FAILURES = (NetobsError, LabError, OSError, RuntimeError, subprocess.SubprocessError)
JSON = Path(__file__).resolve().parent / "results" / "bench.json"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measures netobs on this host. Runs alternate, and the figures are medians; an idle host gives the "
        "best ones. Traffic stays in namespaces that it makes.",
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and fewer packets")
    parser.add_argument("--profile", action="store_true", help="userspace: also profile 100,000 flows by cProfile")
    parser.add_argument("--json", type=Path, default=JSON, help="where the figures go; the plots go beside it")
    parser.add_argument("--no-plots", action="store_true", help="no PNG files: matplotlib is not needed")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]}: {', '.join(SECTIONS)}")
    return options


def measure(options: argparse.Namespace, report: dict[str, Any]) -> list[str]:
    """Runs the sections one by one, and writes the file after each; returns the names of failed sections."""
    failed = []
    for name in options.sections or SECTIONS:
        load = host.load_average()
        arguments = {"profiled": True} if name == "userspace" and options.profile else {}
        try:
            rows = SECTIONS[name].run(options.quick, **arguments)
        except FAILURES as error:
            failed.append(name)
            print(f"\n{name}: failed: {error}", file=sys.stderr, flush=True)
            continue
        report["sections"][name] = rows
        report["load_average_before"][name] = load
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"\n{SECTIONS[name].TITLE}\nload average before: {load[0]:.2f}\n{SECTIONS[name].text(rows)}", flush=True)
    return failed


def main() -> None:
    """Entry point."""
    options = parse()
    if os.geteuid() != 0:
        sys.exit("bench: root is needed, to load BPF programs and to make network namespaces")
    signal.signal(signal.SIGTERM, lambda _signum, _frame: sys.exit(1))  # so that namespaces and links are removed
    machine = host.describe()
    print(
        f"{machine['cpu']}, {machine['cpus']} CPUs, kernel {machine['kernel']}, Python {machine['python']}, "
        f"numpy {machine['numpy']}, libbpf {machine['libbpf']}, netobs {machine['revision']}\n"
        f"load average {machine['load_average'][0]:.2f}: whatever else runs makes figures worse and noisy; runs of "
        "compared cases alternate; the figures are medians"
    )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine, "quick": options.quick, "load_average_before": {}, "sections": {}}
    failed = measure(options, report)
    print(f"\nwritten: {options.json}")
    if not options.no_plots:
        from bench import plots

        for file in plots.draw(report["sections"], options.json.parent):
            print(f"written: {file}")
    if failed:
        sys.exit(f"bench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
