"""(d) Throughput of the host: packets per second through a veth pair, with and without our programs."""

from __future__ import annotations

import statistics
from typing import Any

from bench.programs import ALL_VARIANTS, Drain, Loaded, Variant
from bench.text import table
from bench.wire import Wire

TITLE = "throughput: packets per second of one sending CPU through a veth pair, an eviction every second"
FLOWS = (1, 10_000)
NOTHING, EMPTY = "no program", "empty program"


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each number of flows and program: ``packets_per_second`` and its ``samples``."""
    rounds, packets = (3, 400_000) if quick else (5, 1_000_000)
    with Wire() as wire, Loaded(*ALL_VARIANTS) as loaded:
        return [row for flows in FLOWS for row in _of_flows(wire, loaded, flows, rounds, packets)]


def _of_flows(wire: Wire, loaded: Loaded, flows: int, rounds: int, packets: int) -> list[dict[str, Any]]:
    programs: list[Variant | str] = [NOTHING, EMPTY, *ALL_VARIANTS]
    samples: dict[Variant | str, list[float]] = {program: [] for program in programs}
    for number in range(rounds):
        start = number % len(programs)
        for program in programs[start:] + programs[:start]:
            samples[program].append(_sample(wire, loaded, program, flows, packets))
    nothing = statistics.median(samples[NOTHING])
    return [
        {"flows": flows, "program": str(program), "packets_per_second": statistics.median(values),
         "ratio": statistics.median(values) / nothing, "samples": values}
        for program, values in samples.items()
    ]  # fmt: skip


def _sample(wire: Wire, loaded: Loaded, program: Variant | str, flows: int, packets: int) -> float:
    if not isinstance(program, Variant):
        with wire.attached([] if program == NOTHING else [loaded.program_fd(None)]):
            return wire.send(flows, packets).packets_per_second
    drain = Drain(loaded.datapaths[program])
    with wire.attached([loaded.program_fd(program)]):
        sent = wire.send(flows, packets, drain.poll)
    drain.finish()
    return sent.packets_per_second


def text(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``."""
    lines = [
        (f"{row['flows']:>7}  {row['program']}", f"{row['packets_per_second']:,.0f}", f"{row['ratio']:.2f}")
        for row in rows
    ]
    return table(("  flows  program", "packets/s", "of no program"), lines)
