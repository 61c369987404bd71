"""One line about the state of the daemon, for ``systemctl status``."""

from __future__ import annotations

from typing import NamedTuple

from netobs.base.clock import NS_PER_S


class Condition(NamedTuple):
    """The numbers in the line. ``flows``: Flow Records handed out since the start; ``up``: out of ``collectors``."""

    interfaces: int
    flows: int
    up: int
    collectors: int
    lost_packets: int
    not_sent_packets: int


class StatusLine:
    """Keeps the last reading, for the rate. ``reload_failed`` stays in the line until a reload succeeds."""

    def __init__(self, now_ns: int) -> None:
        self.reload_failed = False
        self._since_ns = now_ns
        self._flows = 0

    def text(self, condition: Condition, now_ns: int) -> str:
        """The present line. Flows per second are those since the last line, over a second at least."""
        elapsed_s = max(now_ns - self._since_ns, NS_PER_S) / NS_PER_S
        rate = (condition.flows - self._flows) / elapsed_s
        self._since_ns, self._flows = now_ns, condition.flows
        problem = "; the last reload failed: see the log" if self.reload_failed else ""
        return (
            f"measuring {condition.interfaces} interfaces, {rate:.0f} flows/s, "
            f"{condition.up} of {condition.collectors} collectors up; packets lost: "
            f"{condition.lost_packets} before a flow, {condition.not_sent_packets} not sent{problem}"
        )
