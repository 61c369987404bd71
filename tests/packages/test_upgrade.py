"""What an upgrade leaves as the administrator had it. What it costs under load, test_hand_over.py says: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.programs import wait_until
from lab.traffic import Traffic
from tests.packages.host import AT_ONCE, BOOTED, COLLECTOR, CONF, UNIT, Site

pytestmark = BOOTED

SHORT = Traffic(flows=20, packets=1_000)
LISTEN = "127.0.0.1:9990"


def test_the_last_releases_configuration_goes_on_working(prepared: Site, former_deb: Path, newer_deb: Path) -> None:
    host = prepared.host
    host.install(former_deb)
    host.configure(host=COLLECTOR, **AT_ONCE)
    with prepared.collector() as collector:
        host.systemctl("enable", "--now", UNIT)
        host.configure(enabled=True)  # from the next start on; the key "listen" is as the last release had it
        mine = host.path(CONF).read_text("utf-8")
        host.upgrade(newer_deb)
        assert (host.state(), host.path(CONF).read_text("utf-8")) == ("active", mine)
        wait_until(lambda: f"listening on {LISTEN}" in host.logs()[-1], "packet capture listens as before")
        sent = SHORT.start(prepared.lab, prepared.near).wait()
        host.wait_sent(sent.packets)
        host.run("netobs", "--dry-run")
        done = host.run("netobs", "capture", "--connect", LISTEN, "--duration", "1s", "--write", "/var/tmp/out.pcap")
        host.systemctl("stop", UNIT)
    assert collector.summary().packets == sent.packets
    assert "warning" not in done.stderr
    (log,) = host.logs()[-1:]
    assert " error" not in log


@pytest.mark.parametrize("enabled", ["enabled", "disabled"])
@pytest.mark.parametrize("state", ["active", "inactive"])
def test_an_upgrade_leaves_what_it_finds(installed: Site, newer_deb: Path, enabled: str, state: str) -> None:
    host = installed.host
    mine = host.path(CONF).read_text(encoding="utf-8")
    if enabled == "enabled":
        host.systemctl("enable", UNIT)
    if state == "active":
        host.systemctl("start", UNIT)
    run = host.show(UNIT, "InvocationID")
    host.upgrade(newer_deb)
    assert host.run("dpkg-query", "--show", "--showformat=${Version}", "netobs").stdout.endswith("+next")
    assert (host.systemctl("is-enabled", UNIT, check=False), host.state()) == (enabled, state)
    assert (host.show(UNIT, "InvocationID") == run) == (state == "inactive")
    assert host.path(CONF).read_text(encoding="utf-8") == mine
    assert host.path(f"{CONF}.dpkg-dist").exists()
