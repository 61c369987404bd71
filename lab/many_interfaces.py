"""Hundreds and thousands of taps under a daemon: how long it is silent, what it keeps, and what it costs others.

    python -m lab.many_interfaces [--taps 2000] [--attach auto] [--turns 5]      (root; not a test)

A daemon starts on a namespace with so many taps. In each turn a tenth of them is deleted, a tenth gets other names, and
as many new ones come, while traffic passes. Meanwhile another program makes an interface every 20 ms and measures how
long "ip link add" takes. Then the daemon stops.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from lab.collectors import UdpSink
from lab.daemon import Account, Daemon, bpf_objects, configuration
from lab.namespaces import Lab, command
from lab.programs import wait_until
from lab.taps import delete_taps, make_taps
from lab.traffic import Traffic

LONG_S = 900.0
PACKETS = 10_000


def percentiles(values: Sequence[float], unit: str) -> str:
    ranked = sorted(values) or [0.0]
    found = (f"p{share} {ranked[min(len(ranked) - 1, len(ranked) * share // 100)]:.1f}" for share in (50, 90, 99))
    return f"{', '.join(found)}, max {ranked[-1]:.1f} {unit} of {len(values)}"


def _seconds(stamp: str) -> float:
    """Of a line of the log, since 1970."""
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


class Others:
    """Another program, which makes interfaces in its own namespace."""

    def __init__(self, ns: str) -> None:
        self._ns, self._made = ns, 0

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Prints how long ``what`` took, and how long each "ip link add" took meanwhile."""
        stop, took_ms = threading.Event(), list[float]()
        thread = threading.Thread(target=self._work, args=(stop, took_ms))
        began = time.monotonic()
        thread.start()
        try:
            yield
        finally:
            elapsed_s = time.monotonic() - began
            stop.set()
            thread.join()
        print(f"{what}: {elapsed_s:.2f} s; ip link add of others: {percentiles(took_ms, 'ms')}", flush=True)

    def _work(self, stop: threading.Event, took_ms: list[float]) -> None:
        while not stop.wait(0.02):
            self._made += 1
            began = time.monotonic()
            command(["ip", "-n", self._ns, "link", "add", f"other{self._made}", "type", "bridge"])
            took_ms.append((time.monotonic() - began) * 1000)


class LongDaemon(Daemon):
    """Its start may take minutes."""

    def _ready(self, process: subprocess.Popen[bytes], condition: object) -> None:
        wait_until(self._is_ready, "the daemon is ready", LONG_S)

    def attached_after_s(self) -> list[float]:
        """When each interface was attached, after the first line of the log."""
        first, *_ = stamps = re.findall(r"^(\S+ \S+) (?:INFO \S+: attached|INFO flow table)", self.log, re.MULTILINE)
        return [_seconds(stamp) - _seconds(first) for stamp in stamps[1:]]

    def state(self) -> str:
        """What it holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        links = sum(kind == "link" for kind, _ in bpf_objects(self.process))
        files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        silence = re.findall(r"loop: longest silence (.*)", self.log)[-1]
        return f"{files} fds, {links} links, {int(resident) / 1024:.1f} MiB; longest silence {silence}"


def rename(ns: str, names: Iterable[str], prefix: str) -> list[str]:
    """Gives each of ``names`` another one; those."""
    new = {name: f"{prefix}{number}" for number, name in enumerate(names)}
    lines = "".join(f"link set {name} name {other}\n" for name, other in new.items())
    subprocess.run(["ip", "-n", ns, "-batch", "-"], input=lines, text=True, check=True)
    return [*new.values()]


def attached(daemon: Daemon, names: Iterable[str]) -> bool:
    return {f"{name}: attached" for name in names} <= set(re.findall(r"\S+: attached", daemon.log))


def run(taps: int, attach: str, turns: int, directory: Path) -> Account:
    """Prints the figures; the account at the end."""
    with Lab() as lab:
        near, far = lab.pair()
        others, part = Others(lab.namespace("others")), max(1, taps // 10)
        present = [f"tap{number}" for number in range(taps)]
        make_taps(far.ns, present)
        config = configuration({"interfaces": ["veth0", "tap*"], "attach": attach}, {"active_timeout": "0s"})
        with UdpSink(far.ns):
            with others.working("idle"):
                time.sleep(3)
            daemon = LongDaemon(lab, far.ns, directory, config)
            with others.working(f"start with {taps} taps by {attach}"):
                daemon.__enter__()
            try:
                print(f"attached after: {percentiles(daemon.attached_after_s(), 's')}")
                daemon.account()
                print(daemon.state())
                for turn in range(turns):
                    new = [f"tap{turn}-{number}" for number in range(part)]
                    with others.working(f"turn {turn + 1}: {part} deleted, {part} renamed, {part} new"):
                        delete_taps(far.ns, present[:part])
                        renamed = rename(far.ns, present[part : 2 * part], f"tapr{turn}-")
                        make_taps(far.ns, new)
                        Traffic(packets=PACKETS).send(lab, near)
                        wait_until(lambda: attached(daemon, new), "the new ones are attached", LONG_S)  # noqa: B023
                    present = [*present[2 * part :], *renamed, *new]
                    daemon.account()
                    print(daemon.state())
                with others.working("stop"):
                    daemon.process.send_signal(15)
                    daemon.process.wait(LONG_S)
                print(re.findall(r"loop: longest silence .*", daemon.log)[-1])
                return daemon.finish()
            finally:
                daemon.__exit__(None, None, None)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taps", type=int, default=2000)
    parser.add_argument("--attach", choices=("auto", "tcx", "tc"), default="auto")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        account = run(given.taps, given.attach, given.turns, Path(directory))
    assert account.seen.packets == given.turns * PACKETS, account
    assert account.is_balanced(), account


if __name__ == "__main__":
    main()
