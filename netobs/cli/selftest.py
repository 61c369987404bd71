"""``netobs selftest``: runs the test for each flow table, and prints each check."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from typing import Any

from netobs import __version__
from netobs.base.log import printable
from netobs.collector.text_table import FlowTable
from netobs.kernel import libbpf
from netobs.selftest import runner

SHOWN = 4
"""So many differences of a check are listed; JSON has all."""


def run(tables: Sequence[str], attach: str, as_json: bool, flows: bool) -> bool:
    """Prints each result when it is there; whether all is right. ``flows``: the Flow Records too.

    :raises NetobsError: a right or a feature is missing.
    """
    if not as_json:
        print(f"netobs {__version__}, Linux {platform.release()}, libbpf {libbpf.version()}", flush=True)
    results = []
    for table in tables:
        result = runner.run(table, attach)
        results.append(result)
        if not as_json:
            print("\n".join(_lines(result, flows)), flush=True)
    passed = all(map(runner.passed, results))
    if as_json:
        if not flows:
            results = [{key: value for key, value in result.items() if key != "flows"} for result in results]
        print(json.dumps({"version": __version__, "kernel": platform.release(), "ok": passed, "tables": results}))
    else:
        print(_summary([check for result in results for check in result["checks"]]))
    return passed


def _lines(result: dict[str, Any], flows: bool) -> Iterator[str]:
    yield f"{result['table']}, attached by {result['method']}:"
    if flows:
        table = FlowTable()
        yield from (table.title(), *map(printable, map(table.row, result["flows"])))
    for check in result["checks"]:
        yield f"  {'ok' if check['ok'] else 'FAILED':7} {check['name']}{_counts(check)}"
        yield from (f"            {printable(each)}" for each in check["differences"][:SHOWN])
        if len(check["differences"]) > SHOWN:
            yield f"            and {len(check['differences']) - SHOWN} more"
    if result["cost_ns"]:
        yield _cost(**result["cost_ns"])
    yield from (f"  log     {printable(line)}" for line in result["log"])


def _cost(ingress: int, egress: int, empty: int) -> str:
    inwards, outwards = (max(0, each - empty) for each in (ingress, egress))
    return (
        f"  cost    {inwards} ns for a packet of a known flow at ingress, {outwards} ns at egress, "
        f"and {empty} ns for running a program at all"
    )


def _counts(check: dict[str, Any]) -> str:
    exported = check["exported"]
    return f": {exported['packets']:,} packets, {exported['octets']:,} octets" if exported["packets"] else ""


def _summary(checks: list[dict[str, Any]]) -> str:
    failed = sum(not check["ok"] for check in checks)
    if not failed:
        return f"all {len(checks)} checks ok: what was sent came back as flows, or stands in the ledger"
    return f"{failed} of {len(checks)} checks FAILED: see netobs(8), selftest"
