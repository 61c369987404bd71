"""The RPM package on a booted host. It is Debian 12, whose Python is the one that `make rpm` here builds for.

So rpm does not check dependencies, and is told that it is welcome; and Python is told of a folder that is Fedora's.
What only a host of the Fedora family shows: dependencies by name, and the scriptlets of its own macros.
"""

from __future__ import annotations

import pytest

from lab.daemon import alive, bpf_objects, traffic_control
from lab.programs import wait_until
from lab.traffic import Traffic
from tests.packages.host import AT_ONCE, BOOTED, COLLECTOR, CONF, NOTHING, UNIT, Site
from tests.packages.listing import ACCOUNT_FILES, differences, listing
from tests.packages.made import package as made_package

pytestmark = [
    *BOOTED,
    pytest.mark.packages(tools=("rpmbuild",)),
    pytest.mark.parametrize("suite", ["bookworm"], indirect=True),
]

RPM = ("rpm", "--force-debian", "--nodeps")
PYTHON = "/usr/lib/python3.11/site-packages"
PLAN = Traffic(flows=100, packets=10_000)


def test_it_runs_and_goes(prepared: Site, report: list[str]) -> None:
    host, hooks = prepared.host, traffic_control(prepared.lab, prepared.far.ns)
    package = made_package("rpm")
    inside = host.copy(package)
    host.apt("install", "rpm")
    host.drop_in(f"Environment=PYTHONPATH={PYTHON}")
    before = listing(host)
    host.run(*RPM, "--install", inside)
    assert host.run(*RPM, "--verify", "netobs").stdout == ""
    host.configure(host=COLLECTOR, **AT_ONCE)
    with prepared.collector() as collector:
        host.systemctl("start", UNIT)
        process, seconds = host.daemon(), host.seconds_to_active()
        objects = bpf_objects(process)
        assert process.uid == host.path("/var/spool/netobs").stat().st_uid
        PLAN.send(prepared.lab, prepared.near)
        host.wait_sent(PLAN.packets)
        assert collector.summary().packets == PLAN.packets
    host.run(*RPM, "--erase", "netobs")
    assert host.state() == "inactive"
    wait_until(lambda: not alive(objects), "the kernel lets go of what the daemon held")
    assert (prepared.attachments(), traffic_control(prepared.lab, prepared.far.ns)) == (NOTHING, hooks)
    left = [path for path in differences(before, listing(host)) if not host.path(path).is_dir()]
    files = [path for path in left if path not in ACCOUNT_FILES and "/.rpmdb/" not in path]
    report.append(f"rpm: active {seconds:.2f} s after the start; after --erase: {', '.join(files)}")
    assert files == [f"{CONF}.rpmsave"]  # it was edited
