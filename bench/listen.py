"""The cost of one Message for ``netobs listen``: the worst of 64 KiB, 100,000 damaged ones, and an ordinary one."""

from __future__ import annotations

import gc
import io
import random
import statistics
import struct
import time
from typing import Any

from bench.text import table
from lab.damaged import SEED, mutated
from lab.samples import golden_messages
from lab.worst_cases import WORST, Worst, filled
from netobs.collector.decode import Damaged, Decoded, Decoder
from netobs.collector.output import Printer

TITLE = "netobs listen: CPU ms for one Message, decoded and printed (the greater of table and JSON), none above 50 ms"
ORDINARY = "an ordinary Message of 64 KiB (682 flows of 26 fields)"
ROUNDS, QUICK_ROUNDS = 15, 3
MESSAGES, QUICK_MESSAGES = 100_000, 5_000
_NS_PER_MS = 1_000_000


def ordinary() -> Worst:
    """The flows of the default template in a Message as long as it can be."""
    templates, data, *_ = golden_messages()
    body = filled(data[20:116], 65_535 - 20)
    head = struct.pack("!HHIII", 10, 20 + len(body), 0, 0, 42) + data[16:18] + struct.pack("!H", 4 + len(body))
    decoder = Decoder()
    decoder.decode(templates)
    if len(decoder.decode(head + body).flows) != len(body) // 96:
        raise RuntimeError("the ordinary Message is not read whole")
    return Worst(head + body, (templates,))


def read(decoder: Decoder, raw: bytes) -> Decoded | None:
    try:
        return decoder.decode(raw, "exporter")
    except Damaged as error:
        return error.decoded


def cost_ms(decoder: Decoder, raw: bytes, as_json: bool) -> float:
    """CPU time to decode ``raw`` and to print what it holds, options records too."""
    printer = Printer(io.StringIO(), as_json, options=True)
    begin = time.process_time_ns()
    decoded = read(decoder, raw)
    if decoded is not None:
        printer.show(decoded, "exporter", {"exporterIPv4Address": "192.0.2.1"})
    return (time.process_time_ns() - begin) / _NS_PER_MS


def case_row(name: str, case: Worst, rounds: int) -> dict[str, Any]:
    """Each round has a decoder of its own; only the Message counts, not the Messages before it."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for as_json, times in found.items():
            decoder = Decoder()
            for raw in case.before:
                read(decoder, raw)
            gc.collect()
            times.append(cost_ms(decoder, case.raw, as_json))
    times = max(found.values(), key=statistics.median)
    return {"case": name, "octets": len(case.raw), "median_ms": statistics.median(times), "max_ms": max(times)}


def mutated_row(count: int) -> dict[str, Any]:
    """One decoder for all; JSON and table by turns."""
    generator, decoder = random.Random(SEED), Decoder()
    times, octets = [], 0
    for number in range(count):
        raw = mutated(generator)
        octets += len(raw)
        times.append(cost_ms(decoder, raw, number % 2 == 0))
    return {
        "case": f"{count:,} damaged Messages",
        "octets": octets // count,
        "median_ms": statistics.median(times),
        "max_ms": max(times),
    }


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each case. ``ratio``: of the cost of an octet to that in the ordinary Message, by medians."""
    gc.freeze()  # as the command does
    rounds = QUICK_ROUNDS if quick else ROUNDS
    rows = [case_row(name, case, rounds) for name, case in {ORDINARY: ordinary(), **WORST}.items()]
    rows.append(mutated_row(QUICK_MESSAGES if quick else MESSAGES))
    plain = rows[0]["median_ms"] / rows[0]["octets"]
    for row in rows:
        row["ratio"] = row["median_ms"] / row["octets"] / plain
    return rows


def text(rows: list[dict[str, Any]]) -> str:
    """The table."""
    cells = [
        (row["case"], str(row["octets"]), f"{row['median_ms']:.2f}", f"{row['max_ms']:.2f}", f"{row['ratio']:.2f}")
        for row in rows
    ]
    return table(("case", "octets", "median ms", "max ms", "per octet"), cells)
