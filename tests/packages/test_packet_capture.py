"""Packet capture in the sandbox of the unit: three capabilities, and a filter of system calls."""

from __future__ import annotations

from lab.pcap import read_pcap
from lab.traffic import Traffic
from tests.packages.host import BOOTED, COLLECTOR, UNIT, Site

pytestmark = BOOTED

LOAD = Traffic(flows=20, packets=200_000, size=300)  # more than the test takes: it is ended then
WANTED = 5_000
FILE = "/var/tmp/out.pcap"


def test_packets_come_out_of_the_sandbox(installed: Site, suite: str, report: list[str]) -> None:
    host = installed.host
    host.configure(enabled=True, recorder="30s")
    with installed.collector():
        host.systemctl("start", UNIT)
        running = LOAD.start(installed.lab, installed.near, rate=5_000)
        captured = host.run("netobs", "capture", "--filter", "udp", "--count", str(WANTED), "--write", FILE)
        running.stop()
        account = host.account()
        host.systemctl("stop", UNIT)
    packets = read_pcap(host.path(FILE))
    assert [(packet.length, len(packet.octets)) for packet in packets] == [(300, 300)] * WANTED
    (log,) = host.logs()
    assert "packet capture: listening on 127.0.0.1:9990" in log
    assert "perf buffer has" not in log  # the unit lets it lock what it needs
    assert account.sent[COLLECTOR].packets > 0
    report.append(f"{suite}: {captured.stderr.strip()}")
