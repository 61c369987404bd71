"""One daemon, five collectors of each kind: one dies, stands still or refuses the daemon, and no other is harmed."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Union

import pytest

from lab.certificates import Authority
from lab.collectors import IpfixDump, Nfcapd
from lab.daemon import Counts, Daemon, configuration, total
from lab.namespaces import Lab
from lab.pmacct import Nfacctd
from lab.programs import wait_until
from lab.streams import TlsIpfixDump
from lab.traffic import Traffic
from tests.e2e.test_exact import like_ethernet, sums
from tests.e2e.test_tls import tls

pytestmark = pytest.mark.e2e(tools=("make", "ethtool", "nfcapd", "nfdump", "nfacctd", "socat", "ipfixDump", "openssl"))

Collector = Union[Nfcapd, Nfacctd, IpfixDump]
FAST = {"eviction_interval": "100ms"}
AT_ONCE = {"active_timeout": "0s"}
SMALL_BUFFER = "4096 8192 8192"
"""So that a TCP collector that stands still is noticed after some Messages, not after megabytes."""

# One packet for each flow: however the evictions fall, a flow is one Flow Record.
BEFORE = (Traffic(flows=300, size=(60, 1514)), Traffic(flows=100, size=(62, 1514), ipv6=True))
AFTER = (Traffic(flows=300, flow_base=1000, size=(60, 1514)), Traffic(flows=100, flow_base=1000, ipv6=True))


def counts(*plans: Traffic) -> Counts:
    """What ``plans`` must give."""
    return sum((Counts(*sums(plan)) for plan in plans), Counts())


def everything(name: str) -> Counts:
    """NetFlow v5 has no IPv6."""
    return counts(*(plan for plan in (*BEFORE, *AFTER) if name != "v5" or not plan.ipv6))


def received(collector: Collector, flows: int) -> Counts:
    """What ``collector`` has, without faults, when ``flows`` have come."""
    if isinstance(collector, Nfcapd):
        summary = collector.summary()
        assert summary.drops == 0
        return Counts(summary.flows, summary.packets, summary.octets)
    if isinstance(collector, Nfacctd):
        shown = collector.flows(flows)
        assert collector.warnings() == []
        return Counts(len(shown), *(sum(flow[name] for flow in shown) for name in ("packets", "bytes")))
    assert collector.faults() == []
    return recorded(collector)


def recorded(collector: IpfixDump) -> Counts:
    """The flows that ipfixDump prints."""
    records = [record for record in collector.records() if {"sourceIPv4Address", "sourceIPv6Address"} & record.keys()]
    names = ("packetDeltaCount", "octetDeltaCount")
    return Counts(len(records), *(sum(int(record[name]) for record in records) for name in names))


@contextmanager
def five(lab: Lab, ns: str, directory: Path, own: Authority, accepted: Authority) -> Iterator[dict[str, Collector]]:
    """The collectors. The one with TLS is of ``own`` and accepts those whom ``accepted`` has signed."""
    certificate = own.issue("collector", "IP:127.0.0.1")
    collectors: dict[str, Collector] = {
        "v5": Nfcapd(lab, ns, directory, 2055),
        "v9": Nfcapd(lab, ns, directory, 2056),
        "udp": Nfacctd(lab, ns, directory, 2057),
        "tcp": IpfixDump(lab, ns, directory, 4739),
        "tls": TlsIpfixDump(lab, ns, directory, certificate, accepted.ca, port=4740),
    }
    with ExitStack() as stack:
        for collector in collectors.values():
            stack.enter_context(collector)
        yield collectors


def config(authority: Authority) -> str:
    tables = [
        {"name": "v5", "port": 2055, "protocol": "netflow5"},
        {"name": "v9", "port": 2056, "protocol": "netflow9"},
        {"name": "udp", "port": 2057},
        {"name": "tcp", "port": 4739, "transport": "tcp", "reconnect_max": "1s"},
        tls(authority, authority.issue("exporter"), name="tls", port=4740),
    ]
    return configuration(FAST, AT_ONCE, tables)


def killed(collector: Collector) -> None:
    process = collector.process
    process.kill()
    process.wait()


def stopped(collector: Collector) -> None:
    collector.process.send_signal(signal.SIGSTOP)


def nothing(_collector: Collector) -> None:
    """It refuses the certificate by itself."""


CASES: dict[str, tuple[str, Callable[[Collector], None]]] = {
    "killed": ("v9", killed),
    "stopped": ("tcp", stopped),
    "refusing": ("tls", nothing),
}


@pytest.mark.parametrize("case", CASES)
def test_the_others_receive_everything(lab: Lab, tmp_path: Path, case: str) -> None:
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    for name in ("tcp_rmem", "tcp_wmem"):
        lab.sysctl(far.ns, f"net/ipv4/{name}", SMALL_BUFFER)
    (tmp_path / "stranger").mkdir()
    authority, stranger = Authority(tmp_path), Authority(tmp_path / "stranger")
    victim, harm = CASES[case]
    with five(lab, far.ns, tmp_path, authority, stranger if case == "refusing" else authority) as collectors:
        others = collectors.keys() - {victim}
        with Daemon(lab, far.ns, tmp_path, config(authority)) as daemon:
            for plan in BEFORE:
                plan.send(lab, near)
            wait_until(lambda: daemon.account().sent["udp"] == counts(*BEFORE), "the first flows are sent")
            harm(collectors[victim])
            for plan in AFTER:
                plan.send(lab, near)
            wait_until(
                lambda: all(daemon.account().sent[name] == everything(name) for name in others),
                "all flows are sent to the others",
            )
            waiting = daemon.account().waiting
            account = daemon.finish()
        collectors[victim].process.send_signal(signal.SIGCONT)
        assert {name: received(collectors[name], everything(name).flows) for name in others} == {
            name: everything(name) for name in others
        }
        dump = collectors["tcp"]
        assert isinstance(dump, IpfixDump)
        assert recorded(dump) == account.sent["tcp"]  # it stood still, or not: what counts as sent gets there
    assert account.seen.measured == everything(victim).measured
    for name in collectors:
        assert account.sent[name] + total(account.not_sent.get(name, {})) == everything(name)
    if case == "killed":
        assert re.search(r'"v9" \(.*\): [1-9]\d* times nothing listened there', daemon.log)
        assert account.not_sent.keys() <= {victim}
    else:
        assert account.not_sent.keys() == waiting.keys() == {victim}
        assert account.not_sent[victim].keys() == {"closed"}
    if case == "refusing":
        assert waiting[victim] == everything(victim)
        assert re.search(r'"tls" \(.*\): [1-9]\d* times not reached, or refused$', daemon.log, re.MULTILINE)
