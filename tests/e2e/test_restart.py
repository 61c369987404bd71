"""A collector that is restarted reads what comes next at once, in each protocol and over each transport."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.certificates import Authority
from lab.collectors import IpfixDump, Nfcapd, Tshark
from lab.daemon import Daemon, configuration
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.streams import TlsIpfixDump
from lab.traffic import Traffic
from tests.e2e.test_exact import like_ethernet, sums
from tests.e2e.test_five_collectors import AT_ONCE, FAST, recorded
from tests.e2e.test_tls import tls

pytestmark = pytest.mark.e2e(
    tools=("make", "ethtool", "nfcapd", "nfdump", "tcpdump", "tshark", "socat", "ipfixDump", "openssl")
)

# One packet for each flow: however the evictions fall, a flow is one Flow Record.
BEFORE = Traffic(flows=300, size=(60, 1514))
MEANWHILE = Traffic(flows=200, size=(60, 1514), flow_base=1000)
AFTER = Traffic(flows=400, size=(60, 1514), flow_base=2000)
ALL_FLOWS = BEFORE.flows + MEANWHILE.flows + AFTER.flows
NAME = "127.0.0.1"


def wait_sent(daemon: Daemon, flows: int) -> None:
    wait_until(lambda: daemon.account().transmitted(NAME).flows == flows, f"{flows} flows are sent")


@pytest.mark.parametrize("protocol", ["netflow5", "netflow9", "ipfix"])
def test_over_udp(lab: Lab, tmp_path: Path, protocol: str) -> None:
    """What was sent meanwhile is lost; what is sent then has its Templates in front, and continues the sequence."""
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    config = configuration(FAST, AT_ONCE, [{"protocol": protocol}])
    runs = [tmp_path / "first", tmp_path / "second"]
    for run in runs:
        run.mkdir()
    with Tshark(lab, far.ns, tmp_path) as stream:
        with Nfcapd(lab, far.ns, runs[0]) as first, Daemon(lab, far.ns, tmp_path, config) as daemon:
            BEFORE.send(lab, near)
            wait_sent(daemon, BEFORE.flows)
            before = first.summary()  # ends it
            MEANWHILE.send(lab, near)
            wait_sent(daemon, BEFORE.flows + MEANWHILE.flows)
            daemon.wait_for("nothing listens there")
            with Nfcapd(lab, far.ns, runs[1]) as second:
                AFTER.send(lab, near)
                wait_sent(daemon, ALL_FLOWS)
                after = second.summary()
            account = daemon.finish()
        assert stream.experts() == []
    assert (before.flows, before.packets, before.octets) == sums(BEFORE)
    assert (after.flows, after.packets, after.octets) == sums(AFTER)
    assert (before.drops, after.drops) == (0, 0)
    assert account.transmitted(NAME).flows == ALL_FLOWS
    assert account.not_sent[NAME].keys() == {"refused"}
    assert account.not_sent[NAME]["refused"].flows >= MEANWHILE.flows
    assert account.is_balanced()


def dump(lab: Lab, ns: str, directory: Path, authority: Authority | None) -> IpfixDump:
    directory.mkdir()
    if authority is None:
        return IpfixDump(lab, ns, directory)
    return TlsIpfixDump(lab, ns, directory, authority.issue(directory.name, "IP:127.0.0.1"), authority.ca)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_over_a_connection(lab: Lab, tmp_path: Path, transport: str) -> None:
    """What was measured meanwhile waits; the new Transport Session begins with Templates and Sequence Number 0."""
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    authority = Authority(tmp_path) if transport == "tls" else None
    own = {"transport": "tcp", "reconnect_max": "1s"}
    if authority is not None:
        own = tls(authority, authority.issue("exporter"))
    config = configuration(FAST, AT_ONCE, [own])
    first = dump(lab, far.ns, tmp_path / "first", authority)
    second = dump(lab, far.ns, tmp_path / "second", authority)
    with Tshark(lab, far.ns, tmp_path, transport="tcp") as stream:
        with first, Daemon(lab, far.ns, tmp_path, config) as daemon:
            BEFORE.send(lab, near)
            wait_sent(daemon, BEFORE.flows)
            first.process.kill()
            daemon.wait_for("connection lost")
            MEANWHILE.send(lab, near)
            with second:
                AFTER.send(lab, near)
                wait_sent(daemon, ALL_FLOWS)
                account = daemon.finish()
                assert second.faults() == []
                got, sequences = recorded(second), second.sequences()
        assert stream.experts() == []
        streams = stream.sequences()
    assert (got.flows, got.packets, got.octets) == tuple(map(sum, zip(sums(MEANWHILE), sums(AFTER))))
    assert sequences[0] == 0
    assert sequences[-1] > 0
    assert sequences == sorted(sequences)
    assert account.is_balanced()
    assert account.not_sent == {}
    if transport == "tcp":
        assert len(streams) == 2
        assert [numbers[0] for numbers in streams] == [0, 0]
        assert streams[1] == sequences
