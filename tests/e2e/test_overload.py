"""More flows than the table holds: every packet is in a flow at the collector or in the ledger."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from lab.collectors import IpfixDump, Nfcapd, UdpSink
from lab.daemon import Daemon, configuration, total
from lab.namespaces import Lab
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e(tools=("make",))

SMALL_TABLE = {"max_flows": 1000}


@pytest.mark.e2e(tools=("socat", "ipfixDump"))
@pytest.mark.alone  # keeps all CPUs busy
@pytest.mark.parametrize(("flows", "interval"), [(100_000, "5s"), (20_000, "100ms")])
def test_each_packet_is_accounted_for(lab: Lab, tmp_path: Path, flows: int, interval: str) -> None:
    plan = Traffic(flows=flows, packets=3 * flows // 2, order="random")
    near, far = lab.pair()
    config = configuration({**SMALL_TABLE, "eviction_interval": interval}, collectors=[{"transport": "tcp"}])
    with IpfixDump(lab, far.ns, tmp_path) as reader:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            sent = plan.send(lab, near)
            account = daemon.finish()
        records = reader.flows()
        assert reader.faults() == []
    assert account.seen.packets == sent.packets
    packets, octets = (sum(int(record[name]) for record in records) for name in ("packetDeltaCount", "octetDeltaCount"))
    ledger = total(account.ledger)
    assert (packets + ledger.packets, octets + ledger.octets) == account.seen.measured
    assert set(account.ledger) <= {"ring_full"}
    assert account.not_sent == {}
    assert packets > 0


def test_packets_that_find_no_room_are_not_lost_in_silence(lab: Lab, tmp_path: Path) -> None:
    plan = Traffic(packets=200_000)  # more than the ring buffer takes
    near, far = lab.pair()
    config = configuration({"flow_table": "ringbuf", "eviction_interval": "200ms"})
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, config) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        plan.send(lab, near)
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait_for("not in a flow, ring_full: a loss begins: ")
        account = daemon.finish()
    (lost,) = set(re.findall(r"ring_full: a loss begins: (\d+) packets; raise capture.max_flows", daemon.log))
    assert account.ledger["ring_full"].packets == int(lost) > 0
    assert account.is_balanced()
    assert account.seen.packets == plan.packets


@pytest.mark.e2e(tools=("nfcapd", "nfdump"))
def test_a_small_flow_cache_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    plan = Traffic(flows=20_000, packets=100_000)
    near, far = lab.pair()
    config = configuration(metering={"max_flows": 64, "idle_timeout": "1h"})
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            plan.send(lab, near)
            account = daemon.finish()
        summary = collector.summary()
    assert account.is_balanced()
    assert summary.drops == 0
    assert (summary.packets, summary.octets) == account.seen.measured
    assert account.seen.packets == plan.packets


def test_sampled_packets_and_the_others_add_up(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    config = configuration({"sampling": 10})
    with Daemon(lab, far.ns, tmp_path, config) as daemon:
        Traffic(flows=10, packets=50_000).send(lab, near)
        account = daemon.finish()
    assert account.seen.packets == 50_000
    assert account.is_balanced()
    measured = account.sent["127.0.0.1"].packets + total(account.not_sent.get("127.0.0.1", {})).packets
    assert 4_000 < measured < 6_000  # 15 standard deviations
