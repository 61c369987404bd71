"""Starts a process for each run of the test, and reads what came of it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from netobs.base import child
from netobs.base.errors import NetobsError
from netobs.config.schema import FLOW_TABLES

TABLES = FLOW_TABLES.built
RUN_WITHIN_S = 300
"""Two seconds will do; an emulated machine takes longer."""
_OF_A_SERVICE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
                 "FDSTORE", "JOURNAL_STREAM", "RUNTIME_DIRECTORY", "STATE_DIRECTORY")  # fmt: skip
"""What tells a daemon where it runs: not the one of the test."""


def run(table: str, attach: str) -> dict[str, Any]:
    """Tests the flow table ``table``: "table", "method", "cost_ns", "checks" and "flows", as ``process.main`` has them,
    and the lines of the daemon's "log". ``attach``: as the key capture.attach.

    :raises NetobsError: the test cannot be done: a right or a feature is missing.
    """
    argv = child.command("netobs.selftest.process", table, attach)
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_SERVICE}
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_WITHIN_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise NetobsError(
            f"{table}: the test has not ended within {RUN_WITHIN_S} s", _last_line(error.stderr)
        ) from None
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise NetobsError(f"{table}: the test ended with status {done.returncode}", _last_line(done.stderr)) from None
    said = done.stderr.decode("utf-8", "replace").splitlines()
    if "error" in result:
        raise NetobsError("\n".join([*said, result["error"]]))
    return {**result, "log": said}


def _last_line(log: bytes | None) -> str:
    lines = (log or b"").decode("utf-8", "replace").strip().splitlines()
    return f"its last words: {lines[-1]}" if lines else "it said nothing"


def passed(result: dict[str, Any]) -> bool:
    """Whether every check of a run is right."""
    return all(check["ok"] for check in result["checks"])
