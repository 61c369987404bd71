"""What a running daemon says of itself."""

from __future__ import annotations

import re
import signal
from functools import partial
from pathlib import Path

import pytest

from lab.daemon import KEPT, Daemon, configuration
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.traffic import Traffic
from netobs.datapath.layout import FLOW_TABLES

pytestmark = pytest.mark.e2e(tools=("make",))


def _logged(daemon: Daemon, times: int) -> bool:
    return daemon.log.count("INFO flow cache") >= times


@pytest.mark.parametrize("table", FLOW_TABLES)
def test_a_signal_asks_for_the_state_of_everything(lab: Lab, tmp_path: Path, table: str) -> None:
    near, far = lab.pair()
    config = configuration({"flow_table": table, "eviction_interval": "1s"}, KEPT)
    with Daemon(lab, far.ns, tmp_path, config) as daemon:
        Traffic(flows=300, packets=1500).send(lab, near)
        found = None
        while found is None:  # the flows may come in two evictions
            before = daemon.log.count("INFO flow cache")
            daemon.process.send_signal(signal.SIGUSR1)
            wait_until(partial(_logged, daemon, before + 1), "the state is logged")
            found = re.search(r"INFO flow cache: 300 flows; exported: none", daemon.log)
        log = daemon.log
    assert re.search(r"INFO seen: 1500 packets, \d+ octets", log)
    assert re.search(
        rf"INFO flow table {table}: \d+ evictions, 0 of them because it was full, \d+ packets by the ring", log
    )


def test_the_state_is_logged_at_the_start_for_who_debugs(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(log={"level": "debug"})) as daemon:
        assert "DEBUG flow table percpu_array: 0 evictions" in daemon.log
