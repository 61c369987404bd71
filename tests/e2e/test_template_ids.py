"""nfcapd keeps Templates by address and Observation Domain: no reload, instance or second collector may confuse it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lab.collectors import Nfcapd, UdpSink
from lab.daemon import Account, Counts, Daemon, Table, configuration, total
from lab.namespaces import Lab, in_namespace
from lab.programs import bound_socket, wait_until
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e(tools=("make", "nfcapd", "nfdump"))

TEMPLATES = ("default", "minimal", "strict", "solarwinds", "full")
RELOADS = 20
AT_ONCE: Table = {"active_timeout": "0s"}
SAMPLING = 10
NFCAPD_PORT = 9995
EVERY_ADDRESS, ANOTHER_ADDRESS = "0.0.0.0", "127.0.0.2"


def stored(lab: Lab, ns: str, directory: Path, sink: UdpSink) -> Counts:
    """What nfdump adds up of all that has come to ``sink``.

    nfcapd gets it in the same order and from the same address, but no faster than it reads: its own buffer is small.
    """
    messages = sink.drain()
    with Nfcapd(lab, ns, directory, NFCAPD_PORT) as collector:
        with in_namespace(ns):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.connect(("127.0.0.1", NFCAPD_PORT))
            for number, message in enumerate(messages):
                sender.send(message)
                if number % 32 == 0:
                    wait_until(lambda: is_read(ns), "nfcapd reads its socket empty")
        summary = collector.summary()
    assert summary.drops == 0
    return Counts(summary.flows, summary.packets, summary.octets)


def is_read(ns: str) -> bool:
    state = bound_socket(ns, NFCAPD_PORT, "udp")
    return state is not None and not state.waiting_bytes


def sent(*accounts: Account) -> Counts:
    """What all sessions have sent; nothing was lost on the way there."""
    for account in accounts:
        assert (account.ledger.keys() - {"not_sampled"}, account.not_sent) == (set(), {})
    return sum((total(account.sent) for account in accounts), Counts())


@pytest.mark.parametrize("protocol", ["ipfix", "netflow9"])
def test_reloads_that_change_the_template_while_flows_wait(lab: Lab, tmp_path: Path, protocol: str) -> None:
    near, far = lab.pair()

    def config(number: int) -> str:
        collector = {"name": "main", "protocol": protocol, "template": TEMPLATES[number % len(TEMPLATES)]}
        return configuration({"eviction_interval": "500ms"}, AT_ONCE, [collector])

    with UdpSink(far.ns) as sink:
        with Daemon(lab, far.ns, tmp_path, config(0)) as daemon:
            sender = Traffic(flows=30_000, packets=90_000).start(lab, near, rate=30_000)
            for number in range(1, RELOADS + 1):
                daemon.reload(config(number))
            passed = sender.wait()
            account = daemon.finish()
        assert account.seen.packets == passed.packets
        assert sent(account).measured == account.seen.measured
        assert stored(lab, far.ns, tmp_path, sink) == sent(account)


@pytest.mark.parametrize("protocol", ["ipfix", "netflow9"])
def test_two_instances_with_different_templates(lab: Lab, tmp_path: Path, protocol: str) -> None:
    """Even in one Observation Domain."""
    near, far = lab.pair()
    with UdpSink(far.ns) as sink:
        tables = [{"protocol": protocol, "observation_domain": 7, "template": name} for name in TEMPLATES[:2]]
        one, two = (configuration({"eviction_interval": "200ms"}, AT_ONCE, [table]) for table in tables)
        with Daemon(lab, far.ns, tmp_path, one, "one") as first, Daemon(lab, far.ns, tmp_path, two, "two") as second:
            Traffic(flows=2000, packets=20_000).send(lab, near)
            accounts = [first.finish(), second.finish()]
        assert stored(lab, far.ns, tmp_path, sink) == sent(*accounts)
    assert [account.sent["127.0.0.1"].packets for account in accounts] == [20_000] * 2


def test_two_instances_with_different_sampling(lab: Lab, tmp_path: Path) -> None:
    """Their Observation Domains differ, and so do their sampling rates for nfcapd."""
    near, far = lab.pair()
    with UdpSink(far.ns) as sink:
        one, two = (configuration({"sampling": rate}, AT_ONCE) for rate in (1, SAMPLING))
        with Daemon(lab, far.ns, tmp_path, one, "one") as first, Daemon(lab, far.ns, tmp_path, two, "two") as second:
            Traffic(flows=2000, packets=20_000).send(lab, near)
            whole, sampled = sent(first.finish()), sent(second.finish())
        wanted = [own + SAMPLING * other for own, other in zip(whole.measured, sampled.measured)]
        assert stored(lab, far.ns, tmp_path, sink) == Counts(whole.flows + sampled.flows, *wanted)
    assert whole.packets == 20_000
    assert 0 < sampled.packets < 10_000


def test_two_collectors_at_one_host_with_different_templates(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with UdpSink(far.ns, host=EVERY_ADDRESS) as sink:
        tables = [{"host": host, "template": name} for host, name in zip(("127.0.0.1", ANOTHER_ADDRESS), TEMPLATES)]
        with Daemon(lab, far.ns, tmp_path, configuration({"eviction_interval": "200ms"}, AT_ONCE, tables)) as daemon:
            Traffic(flows=2000, packets=20_000).send(lab, near)
            account = daemon.finish()
        assert stored(lab, far.ns, tmp_path, sink) == sent(account)
    assert {name: counts.packets for name, counts in account.sent.items()} == {
        "127.0.0.1": 20_000, ANOTHER_ADDRESS: 20_000}  # fmt: skip
