"""How long something took, by duration."""

from __future__ import annotations

from bisect import bisect_left

from netobs.base.clock import NS_PER_S

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds, each of them included. Longer ones follow."""


class Histogram:
    """``counts``: a number for each of ``BOUNDS``, and one for what is longer. ``sum_ns``: all durations together."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum_ns = 0
        self.last_ns: int | None = None

    def add(self, duration_ns: int) -> None:
        """It took so long this time."""
        self.counts[bisect_left(BOUNDS, duration_ns / NS_PER_S)] += 1
        self.sum_ns += duration_ns
        self.last_ns = duration_ns

    def as_json(self) -> dict[str, object]:
        """For the state document."""
        return {"bounds": list(BOUNDS), "counts": self.counts[:], "sum": self.sum_ns / NS_PER_S}
