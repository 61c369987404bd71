"""Durations by their length."""

from __future__ import annotations

from netobs.base.histogram import BOUNDS, Histogram

MS = 1_000_000


def test_a_bound_belongs_to_what_it_bounds() -> None:
    durations = Histogram()
    assert [durations.last_ns] == [None]
    for duration_ns in (0, MS, MS + 1, 2500 * MS, 2501 * MS):
        durations.add(duration_ns)
    assert durations.counts == [2, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert durations.last_ns == 2501 * MS
    assert durations.as_json() == {"bounds": list(BOUNDS), "counts": durations.counts, "sum": 5.003000001}
