"""(f) The real daemon with far more flows than its table holds, packets at full speed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench.daemon import Daemon
from bench.text import table
from bench.wire import Wire

FLOWS = 200_000
TITLE = f"overload: {FLOWS:,} flows round robin at full speed, default eviction_interval (5 s)"
CASES = (("percpu_array", 5_000), ("percpu_array", 64), ("percpu_hash", 5_000), ("ringbuf", 5_000))


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each case: the account of the packets, CPU time and memory of the daemon."""
    packets = 1_000_000 if quick else 4_000_000
    with Wire() as wire:
        return [_case(wire, name, max_flows, packets) for name, max_flows in CASES[: 2 if quick else None]]


def _case(wire: Wire, flow_table: str, max_flows: int, packets: int) -> dict[str, Any]:
    with Daemon(wire, capture={"flow_table": flow_table, "max_flows": max_flows}) as daemon:
        sent = wire.send(FLOWS, packets)
        account = daemon.stop()
    return {"case": f"{flow_table}, max_flows {max_flows}", "flow_table": flow_table, "max_flows": max_flows,
            "sent": sent.packets, "packets_per_second": sent.packets_per_second, "seconds": sent.seconds,
            **asdict(account), "missing": account.missing, "exported_share": account.exported / max(account.seen, 1),
            "cpu_s": daemon.cpu_s, "peak_kib": daemon.peak_kib}  # fmt: skip


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = []
    for row in rows:
        lost = {**row["not_in_a_flow"], **row["not_sent"]}
        reasons = ", ".join(f"{packets:,} {reason}" for reason, packets in lost.items()) or "none"
        lines.append(
            (row["case"], f"{row['packets_per_second']:,.0f}", f"{row['seen']:,}", f"{100 * row['exported_share']:.3f}",
             str(row["missing"]), f"{row['cpu_s']:.1f} in {row['seconds']:.1f}", f"{row['peak_kib'] / 1024:.0f}",
             f"{row['exported_flows']:,}", str(row["evictions"]), reasons)
        )  # fmt: skip
    head = ("case", "packets/s", "seen", "exported %", "missing", "CPU s", "peak MiB", "records", "evictions", "ledger")
    return table(head, lines)
