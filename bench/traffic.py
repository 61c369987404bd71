"""(b) Kernel cost on real traffic: run time per run that the kernel measures, above an empty program on the hook.

Packets come over a veth pair at full speed, round robin over the flows: the worst order for any cache. Evictions go
on meanwhile as in the daemon, so that the cost of new entries is in it.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from bench.programs import Drain, Loaded, Variant, run_time, run_time_stats
from bench.text import table
from bench.wire import Wire

TITLE = (
    "traffic: ns of a packet above an empty program in the same run, veth, round robin, an eviction every second\n"
    "(fits: max_flows = 2 x flows x CPUs, since every CPU may see every flow; else max_flows = flows / 8)"
)
FLOWS = (1, 1_000, 10_000, 100_000)
LEAST_TIGHT_FLOWS = 10_000  # a table has room for 1,024 flows on each CPU, whatever max_flows says
BASELINE = "percpu_hash, precise, fits"


def variants(flows: int, cpus: int) -> list[Variant]:
    """All that is measured with ``flows``."""
    fits = max(2 * flows * cpus, 1024)
    result = [
        Variant("percpu_array", False, fits, "fits"),
        Variant("percpu_array", True, fits, "fits"),
        Variant("percpu_hash", True, fits, "fits"),
        Variant("percpu_hash", False, fits, "fits"),
        Variant("ringbuf", False, fits, "fits"),
    ]
    if flows >= LEAST_TIGHT_FLOWS:
        result += [Variant(name, name == "percpu_hash", flows // 8, "does not fit")
                   for name in ("percpu_array", "percpu_hash")]  # fmt: skip
    return result


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each number of flows and variant: ``samples_ns``, their median ``ns``, ``ratio`` to ``BASELINE``."""
    rounds, packets = (3, 400_000) if quick else (5, 1_000_000)
    rows = []
    with Wire() as wire, run_time_stats():
        for flows in FLOWS:
            rows += _of_flows(wire, flows, rounds, packets)
    return rows


def _of_flows(wire: Wire, flows: int, rounds: int, packets: int) -> list[dict[str, Any]]:
    chosen = variants(flows, len(wire.other_cpus) + 1)
    samples: dict[Variant, list[dict[str, Any]]] = {variant: [] for variant in chosen}
    with Loaded(*chosen) as loaded:
        for number in range(rounds):
            start = number % len(chosen)
            for variant in chosen[start:] + chosen[:start]:
                samples[variant].append(_sample(wire, loaded, variant, flows, packets))
    rows: list[dict[str, Any]] = [
        {"flows": flows, "variant": str(variant), "flow_table": variant.flow_table, "max_flows": variant.max_flows,
         "ns": statistics.median(sample["ns"] for sample in values),
         "empty_ns": statistics.median(sample["empty_ns"] for sample in values), "samples": values}
        for variant, values in samples.items()
    ]  # fmt: skip
    baseline = next(row["ns"] for row in rows if row["variant"] == BASELINE)
    for row in rows:
        row["ratio"] = row["ns"] / baseline
    return rows


def _sample(wire: Wire, loaded: Loaded, variant: Variant, flows: int, packets: int) -> dict[str, Any]:
    empty, program = loaded.program_fd(None), loaded.program_fd(variant)
    drain = Drain(loaded.datapaths[variant])
    with wire.attached([empty, program]):
        before = run_time(empty), run_time(program)
        sent = wire.send(flows, packets, drain.poll)
        after = run_time(empty), run_time(program)
    empty_ns, program_ns = after[0].since(before[0]), after[1].since(before[1])
    runs = after[1].runs - before[1].runs
    return {"ns": program_ns - empty_ns, "empty_ns": empty_ns, "runs": runs, "packets": sent.packets,
            "packets_per_second": sent.packets_per_second, **asdict(drain.finish())}  # fmt: skip


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = []
    for row in rows:
        samples = row["samples"]
        levels = {level: sum(sample[level] for sample in samples) for level in ("slots", "overflow", "ring")}
        total = max(sum(levels.values()), 1)
        shares = [f"{100 * levels[level] / total:.0f} %" for level in ("overflow", "ring")]
        spread = f"{min(s['ns'] for s in samples):.0f}-{max(s['ns'] for s in samples):.0f}"
        lines.append(
            (f"{row['flows']:>7}  {row['variant']}", f"{row['ns']:.0f}", spread, f"{row['ratio']:.2f}", *shares)
        )
    head = ("  flows  table, clock", "ns", "range", f"ratio to {BASELINE}", "rows in overflow", "in ring")
    return table(head, lines)
