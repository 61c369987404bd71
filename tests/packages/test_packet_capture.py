"""Packet capture in the sandbox of the unit: three capabilities, and a filter of system calls."""

from __future__ import annotations

import platform

from lab.pcap import read_pcap
from lab.programs import wait_until
from lab.traffic import Traffic
from tests.packages.host import BOOTED, COLLECTOR, UNIT, Host, Site

pytestmark = BOOTED

LOAD = Traffic(flows=20, packets=200_000, size=300)  # more than the test takes: it is ended then
WANTED = 5_000
FILE = "/var/tmp/out.pcap"
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
# A software event of CPU 0, with struct perf_event_attr in its first size.
OPEN_PERF_EVENT = """
import ctypes, errno, os, struct
attributes = struct.pack("=IIQQQQQIIQ", 1, 64, 10, 1, 0, 0, 0, 0, 0, 0)
call = ctypes.CDLL(None, use_errno=True).syscall
assert call({number}, attributes, -1, 0, -1, 0) == -1
print(errno.errorcode[ctypes.get_errno()])
"""


def perf_event(host: Host) -> str:
    """What a service with the user and the capabilities of the daemon gets for a perf event."""
    host.path("/var/tmp/perf.py").write_text(
        OPEN_PERF_EVENT.format(number=PERF_EVENT_OPEN[platform.machine()]), encoding="ascii"
    )
    service = (
        "Type=oneshot",
        "User=netobs",
        f"AmbientCapabilities={host.show(UNIT, 'AmbientCapabilities')}",
        "ExecStart=/usr/bin/python3 /var/tmp/perf.py",
        "StandardOutput=truncate:/var/tmp/perf.txt",
    )
    host.path("/run/systemd/system/perf.service").write_text("\n".join(["[Service]", *service, ""]), encoding="ascii")
    host.systemctl("daemon-reload")
    host.systemctl("start", "perf.service")
    return host.path("/var/tmp/perf.txt").read_text(encoding="ascii")


def test_packets_come_out_of_the_sandbox(installed: Site, suite: str, report: list[str]) -> None:
    """Where nobody may open perf events, as kernel.perf_event_paranoid = 3 of Debian keeps services from it."""
    host = installed.host
    assert perf_event(host) == "EPERM\n"
    host.configure(enabled=True, recorder="30s")
    with installed.collector():
        host.systemctl("start", UNIT)
        wait_until(lambda: "packet capture: listening" in host.logs()[-1], "it captures packets")
        running = LOAD.start(installed.lab, installed.near, rate=5_000)
        captured = host.run("netobs", "capture", "--filter", "udp", "--count", str(WANTED), "--write", FILE)
        running.stop()
        account = host.account()
        host.systemctl("stop", UNIT)
    packets = read_pcap(host.path(FILE))
    assert [(packet.length, len(packet.octets)) for packet in packets] == [(300, 300)] * WANTED
    (log,) = host.logs()
    assert "packet capture: listening on /run/netobs/capture.sock" in log
    assert account.sent[COLLECTOR].packets > 0
    report.append(f"{suite}: {captured.stderr.strip()}")
