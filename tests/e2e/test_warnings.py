"""What an operator has to know stands in the log once, with what to do, and has a metric that an alert looks at."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lab.daemon import Daemon, configuration
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.recording import Collector
from lab.traffic import Traffic
from tests.e2e.test_metrics import LISTEN, scrape
from tests.e2e.test_wall_clock import environment

pytestmark = pytest.mark.e2e(tools=("make", "gcc", "tc"))

SAID = {
    "connection lost": "; flows wait in the spool",
    "not sent, spool_full: a loss begins": "check it, or raise spool_max",
    "the spool fills up": "check the collector, or raise spool_max",
    "the flow table was full": "raise capture.max_flows, or shorten eviction_interval",
    "was not measured for a while": "somebody removed the filter",
    "the wall clock was set forward": "Export Time follows it",
}
"""A warning, and more of its line."""


def test_each_warning_stands_in_the_log_once(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    capture = {"eviction_interval": "1s", "max_flows": 64, "attach": "tc", "direction": "ingress"}
    table = {"name": "main", "transport": "tcp", "spool": str(tmp_path / "spool"), "spool_max": "4MiB"}
    config = configuration(capture, {"active_timeout": "0s"}, [table], metrics={"listen": LISTEN})
    offset = tmp_path / "offset"
    offset.write_text("+0", encoding="ascii")
    with (
        Collector(lab, far.ns, tmp_path, tmp_path / "files", "main", 0) as collector,
        Daemon(lab, far.ns, tmp_path, config, environment=environment(tmp_path, offset)) as daemon,
    ):
        wait_until(lambda: scrape(far.ns)['netobs_collector_up{collector="main"}'] == 1, "the collector is up")
        collector.signal(signal.SIGKILL)
        Traffic(flows=60_000).send(lab, near, rate=26_000)
        daemon.wait_for("the spool fills up")
        daemon.wait_for("spool_full: a loss begins")
        lab.run(far.ns, ["tc", "qdisc", "del", "dev", far.name, "clsact"])
        daemon.wait_for("was not measured")
        offset.write_text("+3600", encoding="ascii")
        daemon.wait_for("clock was set")
        found, log = scrape(far.ns), daemon.log
    warnings = [line for line in log.splitlines() if " WARNING " in line]
    for text, more in SAID.items():
        lines = [line for line in warnings if text in line]
        assert len(lines) == 1, log
        assert more in lines[0]
    assert found['netobs_collector_up{collector="main"}'] == 0
    assert found['netobs_spool_bytes{collector="main"}'] > 0.5 * found['netobs_spool_max_bytes{collector="main"}']
    assert found["netobs_emergency_evictions_total"] >= 10
    assert found['netobs_events_total{event="hook_removed"}'] == 1
    assert found['netobs_events_total{event="clock_step"}'] == 1
