"""What is left when the package is removed, and when it is purged."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.daemon import BpfObjects, alive, bpf_objects, traffic_control
from lab.programs import wait_until
from lab.traffic import Traffic
from tests.packages.host import AT_ONCE, BOOTED, COLLECTOR, CONF, NOTHING, UNIT, Site
from tests.packages.listing import ACCOUNT_FILES, ACCOUNTS, differences, listing

pytestmark = BOOTED

PLAN = Traffic(flows=100, packets=1000)


def nothing_is_left_in_the_kernel(here: Site, objects: BpfObjects, hooks: str) -> None:
    assert {kind for kind, _ in objects} >= {"prog", "map"}
    wait_until(lambda: not alive(objects), "the kernel lets go of what the daemon held")
    assert (here.attachments(), traffic_control(here.lab, here.far.ns)) == (NOTHING, hooks)


@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_removed_it_leaves_the_configuration_and_comes_back(installed: Site, deb: Path, attach: str) -> None:
    host, hooks = installed.host, traffic_control(installed.lab, installed.far.ns)
    host.configure(attach=attach)
    mine = host.path(CONF).read_text(encoding="utf-8")
    with installed.collector() as collector:
        host.systemctl("enable", "--now", UNIT)
        objects = bpf_objects(host.daemon())
        assert installed.attachments() != NOTHING
        PLAN.send(installed.lab, installed.near)
        host.apt("remove", "netobs")
        nothing_is_left_in_the_kernel(installed, objects, hooks)
        assert host.state() == "inactive"
        assert host.processes(UNIT) == []
        assert host.path(CONF).read_text(encoding="utf-8") == mine
        assert not host.path("/usr/lib/python3/dist-packages/netobs").exists()
        host.install(deb)
        assert host.systemctl("is-enabled", UNIT) == "enabled"  # as before
        assert host.path(CONF).read_text(encoding="utf-8") == mine
        host.systemctl("start", UNIT)
        PLAN.send(installed.lab, installed.near)
        host.wait_sent(PLAN.packets)
        summary = collector.summary()
    assert summary.packets == 2 * PLAN.packets


@pytest.mark.parametrize("use", ["never started", "disabled again", "enabled", "running"])
def test_purged_it_leaves_nothing(prepared: Site, suite: str, deb: Path, use: str, report: list[str]) -> None:
    host, hooks = prepared.host, traffic_control(prepared.lab, prepared.far.ns)
    package = host.copy(deb)
    before = listing(host)
    accounts = {path: set(host.path(path).read_text(encoding="utf-8").splitlines()) for path in ACCOUNTS}
    host.apt("install", package)
    objects: BpfObjects = frozenset()
    if use != "never started":
        host.configure(host=COLLECTOR, spool="/var/spool/netobs", **AT_ONCE)
        with prepared.collector() as collector:
            host.systemctl("enable", "--now", UNIT)
            objects = bpf_objects(host.daemon())
            PLAN.send(prepared.lab, prepared.near)
            host.wait_sent(PLAN.packets)
            assert collector.summary().packets == PLAN.packets
        if use == "disabled again":
            host.systemctl("disable", "--now", UNIT)
        elif use == "enabled":
            host.systemctl("stop", UNIT)
    while_installed = differences(before, listing(host))
    host.apt("purge", "netobs")
    left = differences(before, listing(host))
    assert set(while_installed) > {CONF, "/usr/bin/netobs"}
    assert left == dict.fromkeys(ACCOUNT_FILES, "changed")
    assert not host.path("/run/netobs").exists()
    for path in sorted(ACCOUNTS):
        new = set(host.path(path).read_text(encoding="utf-8").splitlines()) ^ accounts[path]
        assert [line.split(":")[0] for line in new] == ["netobs"]
    places = ", ".join(sorted(ACCOUNTS))
    report.append(f"{suite}: {use}: {len(while_installed)} paths with it; after purge: a line for netobs in {places}")
    assert (host.state(), host.show(UNIT, "LoadState")) == ("inactive", "not-found")
    if objects:
        nothing_is_left_in_the_kernel(prepared, objects, hooks)
