"""``systemctl reload``: a good file comes into force with no flow lost, a bad one changes nothing."""

from __future__ import annotations

from lab.daemon import Counts
from lab.programs import wait_until
from lab.traffic import Traffic
from tests.packages.host import BOOTED, COLLECTOR, CONF, UNIT, Site

pytestmark = BOOTED

RATE = 20_000
LOAD = Traffic(flows=200, packets=1_000_000)  # more than the test takes: it is ended then
AFTER = Traffic(flows=100, packets=1000)
SECOND_PORT = 4740
SECOND = f"""
[[collector]]
name = "second"
host = "{COLLECTOR}"
port = {SECOND_PORT}
"""


def test_a_collector_is_added_under_load(installed: Site, suite: str, report: list[str]) -> None:
    host = installed.host
    with installed.collector() as first, installed.collector(SECOND_PORT) as second:
        host.systemctl("start", UNIT)
        before = host.daemon()
        running = LOAD.start(installed.lab, installed.near, rate=RATE)
        wait_until(lambda: host.account().sent[COLLECTOR].packets > RATE, "a second of traffic is exported")
        with host.path(CONF).open("a", encoding="utf-8") as file:
            file.write(SECOND)
        host.systemctl("reload", UNIT)
        wait_until(lambda: host.account().sent.get("second", Counts()).packets > RATE, "the second one gets flows")
        sent = running.stop()
        assert (host.daemon(), host.state()) == (before, "active")
        host.systemctl("stop", UNIT)
        totals = first.summary(), second.summary()
    (account,) = host.accounts()
    assert (account.seen.packets, account.ledger, account.not_sent) == (sent.packets, {}, {})
    assert [total.packets for total in totals] == [sent.packets, account.sent["second"].packets]
    report.append(
        f"{suite}: reload at {sent.packets_per_second:,.0f} packets/s: {sent.packets} sent, {totals[0].packets} at the "
        f"first collector, {totals[1].packets} at the one that was added"
    )


def test_a_mistake_changes_nothing(installed: Site) -> None:
    host = installed.host
    with installed.collector() as collector:
        host.systemctl("start", UNIT)
        before, attachments = host.daemon(), installed.attachments()
        host.configure(direction="sideways")
        failed = host.run("systemctl", "reload", UNIT, check=False)
        assert failed.returncode != 0
        wait_until(lambda: host.state() == "active", "the reload is over")
        errors = host.journal(f"--unit={UNIT}", "--priority=err")
        assert "[capture] direction: expected one of" in errors
        assert (host.daemon(), installed.attachments()) == (before, attachments)
        AFTER.send(installed.lab, installed.near)
        host.wait_sent(AFTER.packets)
        assert collector.summary().packets == AFTER.packets
    host.configure(direction="both")
    host.systemctl("reload", UNIT)
    assert host.daemon() == before
