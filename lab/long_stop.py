"""A stop with hundreds and thousands of interfaces: when the last flows are out, and how long it takes.

    python -m lab.long_stop [--taps 1000] [--attach auto]      (root; not a test)

A daemon runs under a service manager with a store for its links. The first one ends by SIGTERM, as at "systemctl
stop". The second one gets SIGTERM, too, and SIGKILL while it detaches. Each flow must be at the collector once.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import tempfile
import time
from pathlib import Path

from lab.collectors import UdpSink
from lab.daemon import KEPT, configuration
from lab.keeping import ServiceStore
from lab.many_interfaces import LONG_S, LongDaemon
from lab.namespaces import Lab, Link
from lab.others import percentiles
from lab.programs import wait_until
from lab.recording import Received, expected
from lab.taps import make_taps
from lab.traffic import Traffic

STOP_TIMEOUT_S = 20.0
"""TimeoutStopSec= of the unit; EXTEND_TIMEOUT_USEC= is as long."""
FLOWS_WITHIN_S = 5.0
TRAFFIC = Traffic(flows=20_000, packets=100_000, dst_port=80)


class Stop:
    """One daemon's life, up to its stop."""

    def __init__(self, lab: Lab, links: tuple[Link, Link], directory: Path, attach: str) -> None:
        self._lab, (self._near, self._far) = lab, links
        self._directory = directory
        directory.mkdir()
        self._config = configuration({"interfaces": ["veth0", "tap*"], "attach": attach}, KEPT)

    def run(self, kill: bool) -> None:
        """Prints its figures."""
        with contextlib.ExitStack() as running:
            sink = running.enter_context(UdpSink(self._far.ns))
            store = running.enter_context(ServiceStore(self._directory / "notify"))
            running.enter_context(store.serving())
            daemon = LongDaemon(self._lab, self._far.ns, self._directory, self._config, environment=store.environment)
            began = time.monotonic()
            running.enter_context(daemon)
            print(
                f"READY after {time.monotonic() - began:.2f} s, attached: {percentiles(daemon.attached_after_s(), 's')}"
            )
            TRAFFIC.send(self._lab, self._near)
            wait_until(lambda: daemon.account().seen.packets == TRAFFIC.packets, "all are counted")
            said = len(store.heard_s)
            began = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            self._await_flows(sink, began)
            if kill:
                wait_until(lambda: " flow cache: " in daemon.log, "it detaches")
                time.sleep(0.3)
                assert daemon.process.poll() is None, "it has ended before it could be killed"
                daemon.process.kill()
                print(f"killed after {time.monotonic() - began:.2f} s, with {len(store.fds)} descriptors stored")
                daemon.process.wait()
                return
            daemon.process.wait(LONG_S)
            ended = time.monotonic()
            told = [began, *(when for when, text in store.heard_s[said:] if text.startswith("EXTEND_TIMEOUT")), ended]
            longest = max(after - before for before, after in zip(told, told[1:]))
            print(f"ended after {ended - began:.2f} s; the service manager was told of it every {longest:.2f} s")
            assert longest < STOP_TIMEOUT_S
            assert daemon.finish().is_balanced()
            wait_until(lambda: not store.fds, "nothing is stored")

    def _await_flows(self, sink: UdpSink, began: float) -> None:
        """All flows are out, and none twice."""
        messages: list[bytes] = []
        while True:
            messages += sink.drain()
            received = Received()
            received.add_session(messages)
            if received.records >= TRAFFIC.flows:
                break
            assert time.monotonic() < began + LONG_S, received.records
            time.sleep(0.02)
        out_s = time.monotonic() - began
        print(f"all {received.records} flows were out {out_s:.2f} s after SIGTERM")
        assert received.flows == expected(TRAFFIC.expected(ifindex=self._far.ifindex, src_mac=self._near.mac))
        assert out_s < FLOWS_WITHIN_S


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taps", type=int, default=1000)
    parser.add_argument("--attach", choices=("auto", "tcx", "tc"), default="auto")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name, Lab() as lab:
        links = lab.pair()
        make_taps(links[1].ns, [f"tap{number}" for number in range(given.taps)])
        for kill in (False, True):
            Stop(lab, links, Path(name, "killed" if kill else "ended"), given.attach).run(kill)


if __name__ == "__main__":
    main()
