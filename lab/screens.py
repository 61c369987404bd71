"""``python -m lab.screens FOLDER`` writes ``top.txt`` and ``status.txt``: what `netobs top` and `netobs status` show of
known traffic, for the documentation. Root only."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from lab.collectors import UdpSink
from lab.daemon import Daemon, configuration, netobs
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.top import Terminal
from lab.traffic import Traffic
from netobs.cli.top_page import BARS

COLUMNS, LINES, BARS_SHOWN = 100, 24, 12
PLANS = (
    (Traffic(flows=40, packets=10**8, order="random", size=(60, 1514), protocol="tcp", dst_port=443), 4000),
    (Traffic(flows=300, packets=10**8, order="random", size=(70, 200), dst_port=53, flow_base=10_000), 900),
    (Traffic(flows=5, packets=10**8, order="random", size=(90, 1400), protocol="tcp", ipv6=True, dst_port=22), 600),
    (Traffic(flows=3, packets=10**8, protocol="icmp", vlan=100), 20),
)
"""Traffic, and its packets per second."""


def _bars(screen: str) -> int:
    return sum(map(screen.splitlines()[0].count, BARS[1:]))


def main() -> None:
    """The screen after a while, of each flow, and the state of the daemon then."""
    with Lab() as lab, tempfile.TemporaryDirectory() as folder:
        near, far = lab.pair()
        with UdpSink(far.ns), Daemon(lab, far.ns, Path(folder), configuration()) as daemon:
            sending = [plan.start(lab, near, rate=rate, threads=1) for plan, rate in PLANS]
            try:
                arguments = ["--conf", str(daemon.conf), "top"]
                with Terminal(lab, far.ns, arguments, COLUMNS, LINES) as terminal:
                    terminal.until("348 flows")
                    wait_until(lambda: _bars(terminal.screen) >= BARS_SHOWN, "the totals of some seconds")
                    screen = terminal.screen
                state = netobs(lab, far.ns, "--conf", str(daemon.conf), "status").stdout
            finally:
                for running in sending:
                    running.stop()
    state = state.replace(str(daemon.conf), "/etc/netobs.toml")
    for name, text in (("top.txt", screen), ("status.txt", state)):
        Path(sys.argv[1], name).write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
