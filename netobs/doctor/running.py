"""What the running daemon says of itself: the state document that ``netobs status --json`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from netobs.doctor.finding import DAEMON, Finding

State = Mapping[str, Any]
RUNNING = "running"


def pid_of(state: State | None) -> int:
    """The daemon's process; 0 if it does not say."""
    number = _part(state, "daemon").get("pid")
    return number if isinstance(number, int) else 0


def is_at_work(state: State | None) -> bool:
    """Whether it is neither starting nor stopping: then each selected interface should have its programs."""
    return pid_of(state) > 0 and _part(state, "daemon").get("state", RUNNING) == RUNNING


def file_of(state: State | None) -> str:
    """The configuration file that it reads; "" if it does not say."""
    return str(_part(state, "configuration").get("file") or "")


def findings(state: State) -> Iterator[Finding]:
    """Whatever the document has; what it lacks is left out."""
    daemon, problems = _part(state, "daemon"), state.get("problems") or ()
    words = f"netobs {daemon.get('version')}, process {daemon.get('pid')}, is {daemon.get('state', RUNNING)}"
    yield Finding("daemon", "ok", words, (DAEMON,))
    for line in problems:
        what, _, remedy = str(line).rpartition("; ")
        yield Finding("daemon-problem", "problem", what or remedy, (DAEMON,), remedy=remedy if what else "")
    steps = _part(state, "events").get("clock_step")
    if steps:
        yield Finding(
            "clock-stepped", "warning", f"the wall clock was set {steps} times while the daemon ran", (DAEMON,),
            "Export Time follows the clock; flows of before keep their times",
            "have chrony or systemd-timesyncd correct the clock at boot, before netobs starts",
        )  # fmt: skip


def _part(state: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    part = (state or {}).get(name)
    return part if isinstance(part, Mapping) else {}
