"""Prometheus, as Debian has it, scrapes a daemon: its sums are those of the collector, and each panel has an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import metrics
from lab.namespaces import Lab
from lab.programs import wait_until

SECONDS = 3

pytestmark = pytest.mark.e2e(tools=("make", "prometheus", "nfcapd"))


def test_prometheus_counts_what_nfcapd_gets(lab: Lab, tmp_path: Path) -> None:
    with metrics.scene(lab, tmp_path) as made:
        metrics.send(made, SECONDS)
        # The kernel's counters are read every five seconds.
        wait_until(lambda: metrics.empty(made) == [], "each query of the dashboard has an answer")
        assert made.prometheus.problems() == []
        assert {*made.prometheus.firing()} <= metrics.EXPECTED
        found, theirs = metrics.sums(made)
    assert found == theirs
    assert theirs[1] > 1000
