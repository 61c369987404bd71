"""netobs@NAME.service: several daemons, each with a file and interfaces of its own."""

from __future__ import annotations

from pathlib import Path

from lab.namespaces import Link
from lab.traffic import Traffic
from tests.packages.host import AT_ONCE, BOOTED, COLLECTOR, CONF, NOTHING, Site

pytestmark = BOOTED

PLANS = {"one": Traffic(flows=10, packets=300), "two": Traffic(flows=20, packets=5000)}
PORTS = {"one": 4739, "two": 4740}


def instance(name: str) -> str:
    return f"netobs@{name}.service"


def test_each_measures_its_own_and_survives_an_upgrade(installed: Site, newer_deb: Path) -> None:
    host, lab = installed.host, installed.lab
    links = {"one": (installed.near, installed.far)}
    links["two"] = lab.veth(installed.near.ns, installed.far.ns)
    text = host.path(CONF).read_text(encoding="utf-8")
    for name, (_, far) in links.items():
        conf = f"/etc/netobs/{name}.toml"
        host.path(conf).write_text(text, encoding="utf-8")
        host.configure(conf, host=COLLECTOR, port=PORTS[name], interfaces=[far.name], **AT_ONCE)
    with installed.collector(PORTS["one"]) as one, installed.collector(PORTS["two"]) as two:
        for name in links:
            host.systemctl("enable", "--now", instance(name))
        send_and_wait(installed, links, 1)
        daemons = {name: host.daemon(instance(name)) for name in links}
        host.upgrade(newer_deb)
        assert host.state() == "inactive"
        for name, daemon in daemons.items():
            assert host.state(instance(name)) == "active"
            assert host.daemon(instance(name)) != daemon
        send_and_wait(installed, links, 2)
        host.apt("purge", "netobs")
        assert [host.state(instance(name)) for name in links] == ["inactive", "inactive"]
        assert [collector.summary().packets for collector in (one, two)] == [
            2 * plan.packets for plan in PLANS.values()
        ]
    assert [installed.attachments(far) for _, far in links.values()] == [NOTHING, NOTHING]
    assert host.systemctl("list-unit-files", "netobs*", "--no-legend", check=False) == ""
    wanted = host.path("/etc/systemd/system/multi-user.target.wants")
    assert [file.name for file in wanted.glob("netobs*")] == []


def send_and_wait(here: Site, links: dict[str, tuple[Link, Link]], times: int) -> None:
    """Send the plan of each instance into its interface, for the time of this number, and wait until its collector has
    got it; the account goes on over an upgrade."""
    for name, (near, _) in links.items():
        PLANS[name].send(here.lab, near)
    for name in links:
        here.host.wait_sent(times * PLANS[name].packets, unit=instance(name))
