"""Hundreds and thousands of taps under a daemon: how long it is silent, what it keeps, and what it costs others.

    python -m lab.many_interfaces [--taps 2000] [--attach auto] [--turns 5] [--keep]      (root; not a test)

A daemon starts on a namespace with so many taps; another namespace has as many without a daemon. In each turn a tenth
of the taps is deleted, a tenth gets other names, and as many new ones come, first in the one namespace, then in the
other, while traffic passes. Meanwhile another program makes an interface every 20 ms and measures how long
"ip link add" takes. Then the daemon stops. ``--keep``: the links go on in the store of a service manager.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from lab.collectors import UdpSink
from lab.daemon import Account, Daemon, bpf_objects, configuration
from lab.keeping import ServiceStore
from lab.namespaces import Lab
from lab.others import Others, Timed, percentiles
from lab.programs import wait_until
from lab.taps import delete_taps, make_taps
from lab.traffic import Traffic

LONG_S = 900.0
PACKETS = 10_000


def _seconds(stamp: str) -> float:
    """Of a line of the log, since 1970."""
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


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
        self.account()
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        links = sum(kind == "link" for kind, _ in bpf_objects(self.process))
        files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        silence = re.findall(r"loop: longest silence (.*)", self.log)[-1]
        return f"{files} fds, {links} links, {int(resident) / 1024:.1f} MiB; longest silence {silence}"


class Taps:
    """The taps of a namespace, of which some go and come in each turn."""

    def __init__(self, ns: str, count: int) -> None:
        self._ns, self._turn = ns, 0
        self.present = [f"tap{number}" for number in range(count)]
        make_taps(ns, self.present)

    def turn(self) -> list[str]:
        """Deletes a tenth, gives a tenth other names, makes as many new ones; the names that are new."""
        part = max(1, len(self.present) // 10)
        new = [f"tap{self._turn}-{number}" for number in range(part)]
        delete_taps(self._ns, self.present[:part])
        renamed = self._rename(self.present[part : 2 * part])
        make_taps(self._ns, new)
        self.present = [*self.present[2 * part :], *renamed, *new]
        self._turn += 1
        return new

    def _rename(self, names: Sequence[str]) -> list[str]:
        new = {name: f"tapr{self._turn}-{number}" for number, name in enumerate(names)}
        lines = "".join(f"link set {name} name {other}\n" for name, other in new.items())
        subprocess.run(["ip", "-n", self._ns, "-batch", "-"], input=lines, text=True, check=True)
        return [*new.values()]


def wait_for_attached(daemon: Daemon, names: Iterable[str]) -> None:
    """It looks seldom: this machine has other work."""
    missing = set(names)
    end = time.monotonic() + LONG_S
    while missing:
        missing -= set(re.findall(r"(\S+): attached", daemon.log))
        assert time.monotonic() < end, missing
        time.sleep(0.25)


def run(taps: int, attach: str, turns: int, directory: Path, store: ServiceStore | None = None) -> Account:
    """Prints the figures; the account at the end."""
    with Lab() as lab, contextlib.ExitStack() as running:
        near, far = lab.pair()
        metered, bare = Taps(far.ns, taps), Taps(lab.namespace("bare"), taps)
        others = running.enter_context(Others(lab.namespace("others"), directory))
        config = configuration({"interfaces": ["veth0", "tap*"], "attach": attach}, {"active_timeout": "0s"})
        running.enter_context(UdpSink(far.ns))
        if store is not None:
            running.enter_context(store.serving())
        idle, start, stop = Timed("idle"), Timed(f"start with {taps} taps by {attach}"), Timed("stop")
        with idle.running():
            time.sleep(3)
        daemon = LongDaemon(lab, far.ns, directory, config, environment=store.environment if store else None)
        with start.running():
            running.enter_context(daemon)
        print(f"attached after: {percentiles(daemon.attached_after_s(), 's')}")
        print(daemon.state(), flush=True)
        without, behind = Timed("turns without netobs"), Timed("after them")
        within, after = Timed("turns with it"), Timed("until attached")
        for _ in range(turns):
            with idle.running():
                time.sleep(1)
            with without.running():
                bare.turn()
            with behind.running():
                time.sleep(1)
            with within.running():
                new = metered.turn()
            with after.running():
                wait_for_attached(daemon, new)
            Traffic(packets=PACKETS).send(lab, near)
            print(daemon.state(), f"; {len(store.fds)} kept" if store else "", flush=True)
        with stop.running():
            daemon.process.send_signal(15)
            daemon.process.wait(LONG_S)
        pairs = [(idle, idle), (start, idle), (without, idle), (within, without), (behind, idle), (after, behind)]
        for timed, than in [*pairs, (stop, idle)]:
            print(others.compared(timed, than))
        print(re.findall(r"loop: longest silence .*", daemon.log)[-1])
        return daemon.finish()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taps", type=int, default=2000)
    parser.add_argument("--attach", choices=("auto", "tcx", "tc"), default="auto")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as kept:
        directory = Path(name)
        store = kept.enter_context(ServiceStore(directory / "notify")) if given.keep else None
        account = run(given.taps, given.attach, given.turns, directory, store)
        assert store is None or not store.fds, store.fds
    assert account.seen.packets == given.turns * PACKETS, account
    assert account.is_balanced(), account


if __name__ == "__main__":
    main()
