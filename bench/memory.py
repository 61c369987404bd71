"""(e) Memory of the real daemon: idle, at its peak with three evictions of 100,000 flows, and of its maps."""

from __future__ import annotations

import time
from typing import Any

from bench.daemon import Daemon
from bench.text import table
from bench.wire import Wire
from netobs.datapath.layout import FLOW_TABLES

TITLE = "memory of the daemon (MiB): resident, and its maps in the kernel"
FLOWS, EVICTIONS = 100_000, 3
INTERVAL_S = 3.0
AFTER_EVICTION_S = 0.4  # delay of the flows, so that they do not coincide with the eviction
IDLE_S = 1.0
MAX_FLOWS = 131_072
"""Holds ``FLOWS``; they come on one CPU."""


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each table idle, with the default configuration, and one for each peak."""
    tables = FLOW_TABLES[: 1 if quick else 2]
    peaks = [(name, *case) for name in tables for case in (("0s", True), ("60s", False), ("60s", True))]
    with Wire() as wire:
        return [_idle(wire, name) for name in FLOW_TABLES] + [_peak(wire, *peak) for peak in peaks]


def _idle(wire: Wire, flow_table: str) -> dict[str, Any]:
    with Daemon(wire, capture={"flow_table": flow_table}) as daemon:
        time.sleep(IDLE_S)
        memory, maps = daemon.memory_kib(), sum(daemon.map_bytes().values())
        daemon.stop()
    return {"case": f"{flow_table}, idle, default max_flows", "flow_table": flow_table, "rss_kib": memory["VmRSS"],
            "peak_kib": memory["VmHWM"], "status_kib": memory, "map_bytes": maps}  # fmt: skip


def _peak(wire: Wire, flow_table: str, timeout: str, others: bool) -> dict[str, Any]:
    """``others``: each eviction has other flows, else the same ones."""
    capture = {"flow_table": flow_table, "max_flows": MAX_FLOWS, "eviction_interval": f"{INTERVAL_S:.0f}s"}
    with Daemon(wire, capture=capture, metering={"active_timeout": timeout}) as daemon:
        for number in range(EVICTIONS):
            _sleep_until(daemon.ready_at + number * INTERVAL_S + AFTER_EVICTION_S)
            wire.send(FLOWS, FLOWS, first_flow=number * FLOWS if others else 0)
        _sleep_until(daemon.ready_at + EVICTIONS * INTERVAL_S + INTERVAL_S / 2)
        memory, maps = daemon.memory_kib(), sum(daemon.map_bytes().values())
        account = daemon.stop()
    what = f"{EVICTIONS} x {FLOWS} {'other' if others else 'same'} flows, active_timeout {timeout}"
    return {"case": f"{flow_table}, {what}", "flow_table": flow_table,
            "rss_kib": memory["VmRSS"], "peak_kib": daemon.peak_kib, "status_kib": memory, "map_bytes": maps,
            "max_flows": MAX_FLOWS, "exported_flows": account.exported_flows, "missing_packets": account.missing,
            "cpu_s": daemon.cpu_s}  # fmt: skip


def _sleep_until(when_s: float) -> None:
    time.sleep(max(0.0, when_s - time.monotonic()))


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = [
        (row["case"], *(f"{row[key] / 1024:.1f}" for key in ("rss_kib", "peak_kib")), f"{row['map_bytes'] / 2**20:.1f}",
         str(row.get("exported_flows", "")))
        for row in rows
    ]  # fmt: skip
    return table(("case", "RSS", "peak RSS", "maps", "flows exported"), lines)
