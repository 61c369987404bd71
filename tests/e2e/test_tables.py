"""The three flow tables under load: every packet that was sent is in a record that was exported, or in the ledger.

``NETOBS_LONG=1`` sends 20 million packets through each table, and 4 million to one that is far too small.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.collectors import UdpSink
from lab.daemon import Daemon, configuration
from lab.namespaces import Lab
from lab.traffic import Traffic
from netobs.datapath.layout import FLOW_TABLES

# They keep all CPUs busy, and a daemon sends for 4 s when it ends.
pytestmark = [pytest.mark.e2e(tools=("make",)), pytest.mark.alone]

LONG = os.environ.get("NETOBS_LONG") == "1"
PACKETS = 5_000_000 if LONG else 300_000
OVERLOAD_PACKETS = 4_000_000 if LONG else 400_000
BOTH_CPUS = {"threads": 2, "cpus": (0, 1)}
EVERY_EVICTION = {"active_timeout": "0s"}


@pytest.mark.parametrize("flows", [1, 1000, 10_000, 100_000])
@pytest.mark.parametrize("table", ["percpu_array", "percpu_hash"])
def test_nothing_is_lost_while_flows_are_taken_out(lab: Lab, tmp_path: Path, table: str, flows: int) -> None:
    near, far = lab.pair()
    capture = {"flow_table": table, "max_flows": 262_144, "eviction_interval": "200ms"}
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configuration(capture, EVERY_EVICTION)) as daemon:
        sent = Traffic(flows=flows, packets=PACKETS, order="random").send(lab, near, **BOTH_CPUS)
        account = daemon.finish()
    assert account.ledger == {}
    assert account.not_sent == {}
    assert account.seen.measured == account.sent["127.0.0.1"].measured == (sent.packets, sent.ip_octets)


@pytest.mark.parametrize("max_flows", [64, 5000])
@pytest.mark.parametrize("table", FLOW_TABLES)
def test_far_more_flows_than_the_table_holds(lab: Lab, tmp_path: Path, table: str, max_flows: int) -> None:
    near, far = lab.pair()
    capture = {"flow_table": table, "max_flows": max_flows}
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configuration(capture)) as daemon:
        sent = Traffic(flows=200_000, packets=OVERLOAD_PACKETS).send(lab, near, **BOTH_CPUS)
        account = daemon.finish()
    exported = account.sent["127.0.0.1"]
    share = exported.packets / sent.packets
    print(f"{table}, max_flows {max_flows}: {share:.4%} exported at {sent.packets_per_second:,.0f} packets/s")
    assert account.seen.measured == (sent.packets, sent.ip_octets)
    assert account.is_balanced()  # with the ledger, and what a starved daemon could not send before its deadline
    assert set(account.ledger) <= {"ring_full"}
    assert exported.packets > 0
