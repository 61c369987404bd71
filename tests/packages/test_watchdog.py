"""A daemon that hangs is replaced; one that cannot start is tried again if that may help, else left alone."""

from __future__ import annotations

import signal
import time

import pytest

from lab.programs import wait_until
from lab.traffic import Traffic
from tests.packages.host import BOOTED, COLLECTOR, NOTHING, UNIT, Site

pytestmark = BOOTED

REPLACED_S = 60.0
BEFORE = Traffic(flows=100, packets=1000)
MEANWHILE = Traffic(flows=100, packets=2000, flow_base=2000)
AFTER = Traffic(flows=100, packets=3000, flow_base=1000)
ALL_PACKETS = BEFORE.packets + MEANWHILE.packets + AFTER.packets


@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_a_stuck_daemon_is_replaced(installed: Site, suite: str, attach: str, report: list[str]) -> None:
    host = installed.host
    host.configure(attach=attach)
    host.drop_in("WatchdogSec=2s")
    with installed.collector() as collector:
        host.systemctl("start", UNIT)
        stuck, attachments = host.daemon(), installed.attachments()
        BEFORE.send(installed.lab, installed.near)
        host.wait_sent(BEFORE.packets)
        stuck.send(signal.SIGSTOP)
        stopped_s = time.monotonic()
        MEANWHILE.send(installed.lab, installed.near)
        wait_until(
            lambda: host.state() == "active" and host.processes(UNIT) not in ([stuck], []),
            "systemd replaces the daemon",
            REPLACED_S,
        )
        assert host.show(UNIT, "NRestarts") == "1"
        assert "Watchdog timeout" in host.journal(f"--unit={UNIT}")
        report.append(
            f"{suite}, {attach}: active {host.active_since_s() - stopped_s:.1f} s after it got stuck (WatchdogSec=2s)"
        )
        # One set of attachments: with two, each packet would count twice.
        assert installed.attachments() == attachments
        AFTER.send(installed.lab, installed.near)
        host.systemctl("stop", UNIT)
        summary = collector.summary()
    account = host.accounts()[-1]
    assert account.seen.packets == ALL_PACKETS
    assert account.is_balanced(COLLECTOR)
    assert summary.packets == ALL_PACKETS
    assert installed.attachments() == NOTHING


def test_a_mistake_in_the_configuration_is_named_and_the_start_not_tried_again(installed: Site) -> None:
    host = installed.host
    host.configure(direction="sideways")
    assert host.run("systemctl", "start", UNIT, check=False).returncode != 0
    assert (host.state(), host.show(UNIT, "SubState"), host.show(UNIT, "NRestarts")) == ("failed", "failed", "0")
    assert "[capture] direction: expected one of" in host.journal(f"--unit={UNIT}", "--priority=err")
    host.configure(direction="both")
    host.systemctl("start", UNIT)
    assert host.state() == "active"


def test_an_interface_that_comes_late_is_waited_for(installed: Site) -> None:
    host = installed.host
    host.configure(interfaces=["late0"])
    host.run("systemctl", "start", UNIT, check=False)
    wait_until(lambda: host.show(UNIT, "SubState") == "auto-restart", "the start is to be tried again")
    _, late = installed.lab.veth(installed.near.ns, installed.far.ns, names=("", "late0"))
    wait_until(lambda: host.state() == "active", "the start succeeds", REPLACED_S)
    assert installed.attachments() == NOTHING
    assert installed.attachments(late) != NOTHING
