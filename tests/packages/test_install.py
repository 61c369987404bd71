"""From the package to a service that survives a reboot."""

from __future__ import annotations

import re
from pathlib import Path

from lab.traffic import Traffic
from tests.packages.host import BOOTED, COLLECTOR, UNIT, Host, Site

pytestmark = BOOTED

CAPABILITIES = sum(1 << number for number in (12, 38, 39))  # CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF
CAP_BPF = 1 << 39
GREATEST_EXPOSURE = 2.0
BEFORE = Traffic(flows=100, packets=10_000)
AFTER = Traffic(flows=100, packets=5_000, flow_base=1000)


def test_it_exports_before_and_after_a_reboot(bare: Site, suite: str, deb: Path, report: list[str]) -> None:
    host = bare.host
    assert "python3-numpy" in host.install(deb)
    assert (host.state(), host.systemctl("is-enabled", UNIT, check=False)) == ("inactive", "disabled")
    host.configure(host=COLLECTOR)
    with bare.collector() as collector:
        host.systemctl("enable", "--now", UNIT)
        assert host.state() == "active"
        report.append(f"{suite}: active {host.seconds_to_active():.2f} s after the start")
        confined(host, suite, report)
        BEFORE.send(bare.lab, bare.near)
        host.wait_sent(BEFORE.packets)
        host.reboot()
        assert host.state() == "active"
        report.append(f"{suite}: active {host.seconds_to_active():.2f} s after the start at a reboot")
        AFTER.send(bare.lab, bare.near)
        host.systemctl("stop", UNIT)
        summary = collector.summary()
    assert summary.packets == BEFORE.packets + AFTER.packets
    assert [account.seen.packets for account in host.accounts()] == [BEFORE.packets, AFTER.packets]


def confined(host: Host, suite: str, report: list[str]) -> None:
    """The daemon is nobody in particular, may have three capabilities, and has at most one in effect."""
    seen = host.run("ps", "-o", "user=,pid=,args=", "-p", host.show(UNIT, "MainPID")).stdout.strip()
    status = host.daemon().status()
    names = ("CapPrm", "CapBnd", "NoNewPrivs")
    report.append(f"{suite}: ps: {seen}")
    report.append(f"{suite}: {', '.join(f'{name} {status[name]}' for name in ('CapEff', *names))}")
    assert seen.split()[0] == "netobs"
    assert [int(status[name], 16) for name in names] == [CAPABILITIES, CAPABILITIES, 1]
    assert int(status["CapEff"], 16) in (0, CAP_BPF)  # with TCX, or for kernels before 6.0


def test_systemd_finds_nothing_to_complain_about(prepared: Site, suite: str, deb: Path, report: list[str]) -> None:
    host = prepared.host
    host.install(deb)
    for unit in (UNIT, "netobs@.service"):
        done = host.run("systemd-analyze", "verify", "--man=no", unit)
        assert (done.stdout, done.stderr) == ("", "")
    said = host.run("systemd-analyze", "--no-pager", "security", UNIT).stdout.splitlines()[-1]
    report.append(f"{suite}: {said}")
    exposure = re.search(r": (\d+\.\d+) ", said)
    assert exposure is not None
    assert float(exposure[1]) <= GREATEST_EXPOSURE
