"""Restart, crash and upgrade under load: every packet that was sent is in a flow that each collector has, once."""

from __future__ import annotations

import contextlib
import os
import random
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.certificates import Authority
from lab.collectors import UdpSink
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.recording import Collector, Received, expected, split
from lab.traffic import Traffic
from tests.packages.host import BOOTED, CONF, UNIT, Host, Site

pytestmark = BOOTED

TIMES = int(os.environ.get("NETOBS_HAND_OVERS", "3"))
"""How often the daemon is restarted, and how often killed; NETOBS_HAND_OVERS=20 is the whole trial."""
RATE = 100_000
FLOWS = 20_000
LOAD = Traffic(flows=FLOWS, packets=200_000_000, size=(60, 1514), order="burst", burst=4)
UDP_PORT, TCP_PORT, TLS_PORT = 4801, 4802, 4803
SPACING_S = (1.0, 6.0)
"""The least and the longest time between two of them: less and more than an eviction interval."""


class Collectors:
    """One over UDP, one over TCP that is down until ``begin_tcp``, with a spool, and one over TLS."""

    def __init__(self, lab: Lab, ns: str, directory: Path, authority: Authority) -> None:
        self._lab, self._ns, self._directory = lab, ns, directory
        self._stack = contextlib.ExitStack()
        self.udp = self._stack.enter_context(UdpSink(ns, UDP_PORT))
        self._datagrams: list[bytes] = []
        own = authority.issue("collector", "IP:127.0.0.1")
        tls = Collector(lab, ns, directory, directory / "tls-files", "tls", 0, own.both, authority.ca, port=TLS_PORT)
        self._stack.enter_context(tls)

    def begin_tcp(self) -> None:
        files = self._directory / "tcp-files"
        self._stack.enter_context(Collector(self._lab, self._ns, self._directory, files, "tcp", port=TCP_PORT))

    def received(self) -> dict[str, Received]:
        """What each has by now."""
        self._datagrams += self.udp.drain()
        udp = Received()
        udp.add_session(self._datagrams)
        return {"udp": udp, "tcp": self._stream("tcp-files"), "tls": self._stream("tls-files")}

    def _stream(self, folder: str) -> Received:
        found = Received()
        for path in sorted((self._directory / folder).glob("*.ipfix")):
            found.add_session(split(path.read_bytes()))
        return found

    def close(self) -> None:
        self._stack.close()


def config(authority: Authority, host: Host, interface: str) -> str:
    """Default timeouts; the certificates are copied into the host."""
    own = authority.issue("exporter")
    folder = "/etc/netobs"
    host.run("mkdir", "-p", folder)
    paths = [host.copy(path, folder) for path in (authority.ca, own.cert, own.key)]
    host.run("chown", "netobs:", *paths)
    ca, cert, key = paths
    common = '[[collector]]\nhost = "127.0.0.1"\n'
    return f"""
[capture]
interfaces = ["{interface}"]
direction = "ingress"
{common}name = "udp"\nport = {UDP_PORT}
{common}name = "tcp"\nport = {TCP_PORT}\ntransport = "tcp"\nspool = "/var/spool/netobs"\nreconnect_max = "1s"
spool_rate = "64MiB"
{common}name = "tls"\nport = {TLS_PORT}\ntransport = "tls"\nreconnect_max = "1s"
ca = "{ca}"\ncert = "{cert}"\nkey = "{key}"
"""


@pytest.fixture
def collectors(prepared: Site, deb: Path, tmp_path: Path) -> Iterator[Collectors]:
    """The host has netobs, which exports to these and is running."""
    authority = Authority(tmp_path)
    host = prepared.host
    host.install(deb)
    made = Collectors(prepared.lab, prepared.far.ns, tmp_path, authority)
    host.path(CONF).write_text(config(authority, host, prepared.far.name), "utf-8")
    host.systemctl("restart", UNIT)
    yield made
    made.close()


def wait(seconds: float) -> None:
    """Traffic goes on meanwhile."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, f"{seconds} s pass", seconds + 10)


class Trial:
    """What is done to the daemon under load, and what it took."""

    def __init__(self, site: Site) -> None:
        self._site, self._random = site, random.Random(14)
        self.ready_s: dict[str, list[float]] = {}

    def pause(self) -> None:
        wait(self._random.uniform(*SPACING_S))

    def restart(self) -> None:
        self._site.host.systemctl("restart", UNIT)
        self.ready_s.setdefault("restart", []).append(self._site.host.seconds_to_active())

    def kill(self) -> None:
        """As a crash, with what systemd does then; the daemon's own pid."""
        host = self._site.host
        daemon = host.daemon()
        daemon.send(9)
        wait_until(lambda: host.state() == "active" and host.processes(UNIT) not in ([], [daemon]), "it is back", 60)
        self.ready_s.setdefault("kill", []).append(host.seconds_to_active())

    def figures(self) -> str:
        return "; ".join(
            f"{what}: {len(times)} x, ready in {statistics.median(times):.2f} s, at most {max(times):.2f} s"
            for what, times in self.ready_s.items()
        )


def resent(host: Host) -> dict[str, int]:
    """Flows that the daemon says it has sent to each collector a second time."""
    found: dict[str, int] = {}
    for name, flows in re.findall(r'collector "(\w+)" .*: sent again, [^:]*: (\d+) flows', host.logs()[-1]):
        found[name] = int(flows)
    return found


def check(site: Site, collectors: Collectors, sent_packets: int, kills: int, report: list[str], title: str) -> None:
    """Every flow of the load, to the packet and octet, is at each collector, but for what the ledger names."""
    host = site.host
    (account,) = host.accounts()[-1:]
    what = expected(replace(LOAD, packets=sent_packets).expected(ifindex=site.far.ifindex))
    again = resent(host)
    for name, received in collectors.received().items():
        report.append(
            f"{title}, {name}: {sent_packets} packets sent, {received.packets} received in {received.records} flow "
            f"records of {len(received.flows)} flows, {received.gaps} missing in the sequence, {received.doubles} "
            f"doubled messages, {again.get(name, 0)} flows sent again, {received.sessions} sessions"
        )
    for name, received in collectors.received().items():
        assert account.ledger == {}
        assert received.gaps == 0
        if name == "udp":
            assert received.doubles <= kills
            assert received.flows == what
        else:
            assert received.packets >= sent_packets
            assert received.flows == what or again.get(name)


def test_nothing_is_lost_over_restarts_and_crashes(
    prepared: Site, suite: str, collectors: Collectors, report: list[str]
) -> None:
    host, trial = prepared.host, Trial(prepared)
    running = LOAD.start(prepared.lab, prepared.near, rate=RATE)
    for number in range(2 * TIMES):
        trial.pause()
        if number == TIMES:
            collectors.begin_tcp()
        trial.kill() if number % 2 else trial.restart()
    trial.pause()
    sent = running.stop()
    host.systemctl("stop", UNIT)
    report.append(f"{suite}: {sent.packets_per_second:,.0f} packets/s; {trial.figures()}")
    check(prepared, collectors, sent.packets, TIMES, report, suite)


def test_nothing_is_lost_over_an_upgrade_and_a_downgrade(
    prepared: Site, suite: str, collectors: Collectors, deb: Path, newer_deb: Path, other_deb: Path, report: list[str]
) -> None:
    """To the next version with the same programs, to one with another layout of the maps, and back."""
    host, trial = prepared.host, Trial(prepared)
    collectors.begin_tcp()
    running = LOAD.start(prepared.lab, prepared.near, rate=RATE)
    for package in (newer_deb, other_deb, deb):
        trial.pause()
        before = host.daemon()
        host.upgrade(package)
        assert host.state() == "active"
        assert host.daemon() != before
        trial.ready_s.setdefault(package.name, []).append(host.seconds_to_active())
    trial.pause()
    sent = running.stop()
    host.systemctl("stop", UNIT)
    report.append(f"{suite}: {sent.packets_per_second:,.0f} packets/s; {trial.figures()}")
    check(prepared, collectors, sent.packets, 0, report, suite)


TAPS = int(os.environ.get("NETOBS_HAND_OVER_INTERFACES", "100"))
ATTACH = os.environ.get("NETOBS_HAND_OVER_ATTACH", "auto")


def test_nothing_is_lost_with_many_interfaces(
    prepared: Site, suite: str, collectors: Collectors, report: list[str]
) -> None:
    """The same with hundreds of interfaces, on both hooks; NETOBS_HAND_OVER_INTERFACES=500 is the whole trial."""
    host, trial, lab, ns = prepared.host, Trial(prepared), prepared.lab, prepared.far.ns
    lines = [f"link add tap{number} up type bridge mcast_snooping 0" for number in range(TAPS)]
    batch = prepared.directory / "interfaces"
    batch.write_text("\n".join([*lines, ""]), "ascii")
    lab.run(ns, ["ip", "-batch", str(batch)])
    text = host.path(CONF).read_text("utf-8").replace("[capture]", f'[capture]\nattach = "{ATTACH}"')
    host.path(CONF).write_text(text, "utf-8")
    host.configure(interfaces=["tap*", prepared.far.name], direction="both")
    host.systemctl("restart", UNIT)
    collectors.begin_tcp()
    attached = [prepared.attachments(lab.link(ns, name)) for name in ("tap0", f"tap{TAPS - 1}")]
    running = LOAD.start(lab, prepared.near, rate=RATE)
    for number in range(2 * TIMES):
        trial.pause()
        trial.kill() if number % 2 else trial.restart()
    trial.pause()
    sent = running.stop()
    assert [prepared.attachments(lab.link(ns, name)) for name in ("tap0", f"tap{TAPS - 1}")] == attached
    began_s = time.monotonic()
    host.systemctl("stop", UNIT)
    report.append(
        f"{suite}, {TAPS + 1} interfaces, {ATTACH}: {sent.packets_per_second:,.0f} packets/s; {trial.figures()}; "
        f"stopped in {time.monotonic() - began_s:.1f} s"
    )
    check(prepared, collectors, sent.packets, TIMES, report, suite)
