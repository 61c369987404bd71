"""Groups of collectors: the real daemon and real collectors, one of which is killed and comes back."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import IpfixDump, Nfcapd
from lab.daemon import Counts, Daemon, Table, configuration, read_account, total
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.traffic import Traffic
from netobs.collector.decode import Decoder
from tests.e2e.test_outage import AT_ONCE, FAST, TcpCollector

pytestmark = pytest.mark.e2e(tools=("make", "nfcapd", "nfdump", "socat", "ipfixDump"))

PORTS = {"a": 4739, "b": 4740, "c": 4741}


def grouped(policy: str, names: str, **keys: object) -> str:
    """A configuration with a group of collectors."""
    collectors: list[Table] = [{"name": name, "port": PORTS[name], **keys} for name in names]
    group = {"name": "site", "policy": policy, "collectors": list(names)}
    return configuration(FAST, AT_ONCE, collectors, groups=[group])


def wait_until_sent(daemon: Daemon, name: str, flows: int) -> None:
    """Wait until so many flows were sent to a collector; the daemon says it when it is asked."""

    def sent() -> bool:
        daemon.process.send_signal(signal.SIGUSR1)
        return read_account(daemon.log).sent.get(name, Counts()).flows >= flows

    wait_until(sent, f"{flows} flows are sent to {name}")


def sources(flows: Iterable[dict[str, Any]]) -> Counter[str]:
    """How many packets of each flow, which its source address tells, nfcapd has."""
    packets: Counter[str] = Counter()
    for flow in flows:
        packets[flow.get("src4_addr") or flow["src6_addr"]] += flow["in_packets"]
    return packets


def addresses(first: int, count: int) -> set[str]:
    """The source addresses of the generator's flows with these numbers."""
    return {f"198.18.{number >> 8}.{number & 255}" for number in range(first, first + count)}


def moved(daemon: Daemon) -> dict[str, int]:
    """Flows by collector: given away as negative numbers, taken over as positive ones."""
    found = re.findall(r'"(\w+)" \(.*\): (given to|taken over from) another collector: (\d+) flows', daemon.log)
    return {name: int(flows) * (1 if verb.startswith("taken") else -1) for name, verb, flows in found}


def test_failover_over_udp(lab: Lab, tmp_path: Path) -> None:
    """What is lost is what was on its way when the collector died; then each flow is at exactly one collector."""
    near, far = lab.pair()
    (tmp_path / "later").mkdir()
    first = Nfcapd(lab, far.ns, tmp_path, PORTS["a"])
    again = Nfcapd(lab, far.ns, tmp_path / "later", PORTS["a"])
    with Nfcapd(lab, far.ns, tmp_path, PORTS["b"]) as spare:
        with first, Daemon(lab, far.ns, tmp_path, grouped("failover", "ab")) as daemon:
            Traffic(flows=500).send(lab, near)
            wait_until_sent(daemon, "a", 500)
            before = sources(first.flows())
            Traffic(flows=500, flow_base=1000).send(lab, near)
            daemon.wait_for('group "site": flows go to collector "b"')
            Traffic(flows=500, flow_base=2000).send(lab, near)
            wait_until_sent(daemon, "b", 500)
            with again:
                daemon.wait_for('flows go to collector "a" (udp 127.0.0.1:4739) again: it is up')
                Traffic(flows=300, flow_base=3000).send(lab, near)
                account = daemon.finish()
                after, faults = sources(again.flows()), again.summary().sequence_errors
        meanwhile = sources(spare.flows())
        assert spare.summary().sequence_errors == 0
    assert faults == 0
    assert before.keys() == addresses(0, 500)
    assert after.keys() == addresses(3000, 300)
    assert addresses(2000, 500) <= meanwhile.keys() <= addresses(2000, 500) | addresses(1000, 500)
    assert set((before + meanwhile + after).values()) == {1}
    lost = 1800 - sum((before + meanwhile + after).values())
    assert 0 < lost <= 500
    refused = account.not_sent["a"]["refused"].flows
    assert account.not_sent.keys() == {"a"}
    assert lost <= refused <= 1000, "an estimate: what was sent a moment before may be in it"
    assert total(account.sent).flows + refused == 1800
    assert account.sent["b"].flows == len(meanwhile)
    assert re.search(r'"a" \(.*\): [1-9]\d* times nothing listened there', daemon.log)


def test_failover_over_tcp_is_exact(lab: Lab, tmp_path: Path) -> None:
    """Nobody is up, then the second is, then the first, which dies again: each flow is at exactly one collector."""
    near, far = lab.pair()
    config = grouped("failover", "ab", transport="tcp", reconnect_max="1s")
    with Daemon(lab, far.ns, tmp_path, config) as daemon:
        Traffic(flows=400).send(lab, near)
        daemon.wait_for('"b" (tcp 127.0.0.1:4740): not reachable')
        with IpfixDump(lab, far.ns, tmp_path, PORTS["b"]) as spare:
            wait_until_sent(daemon, "b", 400)
            with TcpCollector(far.ns) as first:
                first.accept()
                Traffic(flows=100, flow_base=400).send(lab, near)
                wait_until_sent(daemon, "b", 500)
                daemon.wait_for('flows go to collector "a" (tcp 127.0.0.1:4739) again: it is up')
                Traffic(flows=300, flow_base=500).send(lab, near)
                wait_until(lambda: not first.read() and first.packets() == 300, "the first has its place again")
                at_first = _numbers(first)
            daemon.wait_for('"a" (tcp 127.0.0.1:4739): connection lost')
            Traffic(flows=200, flow_base=800).send(lab, near)
            wait_until_sent(daemon, "b", 700)
            account = daemon.finish()
            records = spare.flows()
            assert spare.faults() == []
    assert at_first == addresses(500, 300)
    assert len(records) == 700
    assert {record["sourceIPv4Address"] for record in records} == addresses(0, 500) | addresses(800, 200)
    assert (account.sent["a"].flows, account.sent["b"].flows, account.not_sent) == (300, 700, {})
    assert total(account.sent).measured == account.seen.measured
    assert moved(daemon) == {"a": -400, "b": 400}


def _numbers(collector: TcpCollector) -> set[str]:
    decoder = Decoder()
    return {flow["sourceIPv4Address"] for message in collector.messages() for flow in decoder.decode(message, "").flows}


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_balance_over_three(lab: Lab, tmp_path: Path, ipv6: bool) -> None:
    """Each flow is at one collector with all of its records, and each collector has about a third."""
    near, far = lab.pair()
    plan = Traffic(flows=3000, packets=12_000, ipv6=ipv6)
    a, b, c = (Nfcapd(lab, far.ns, tmp_path, port) for port in PORTS.values())
    with a, b, c:
        with Daemon(lab, far.ns, tmp_path, grouped("balance", "abc")) as daemon:
            plan.send(lab, near, rate=12_000)
            account = daemon.finish()
        shares = [collector.flows() for collector in (a, b, c)]
        assert [collector.summary().sequence_errors for collector in (a, b, c)] == [0, 0, 0]
    assert sum(map(len, shares)) == total(account.sent).flows > 3000
    packets = [sources(share) for share in shares]
    assert sum(map(len, packets)) == len(packets[0] + packets[1] + packets[2]) == 3000
    assert set((packets[0] + packets[1] + packets[2]).values()) == {4}
    assert all(850 < len(share) < 1150 for share in packets)
    assert (account.not_sent, total(account.sent).measured) == ({}, account.seen.measured)
