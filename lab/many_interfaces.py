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
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lab.collectors import UdpSink
from lab.daemon import Account, Daemon, bpf_objects, configuration
from lab.keeping import ServiceStore
from lab.namespaces import Lab, command
from lab.programs import wait_until
from lab.taps import delete_taps, make_taps
from lab.traffic import Traffic

LONG_S = 900.0
PACKETS = 10_000


def percentiles(values: Sequence[float], unit: str) -> str:
    found = (f"p{share} {at(values, share):.1f}" for share in (50, 90, 99))
    return f"{', '.join(found)}, max {max(values, default=0.0):.1f} {unit} of {len(values)}"


def at(values: Sequence[float], share: int) -> float:
    """The percentile ``share``."""
    ranked = sorted(values) or [0.0]
    return ranked[min(len(ranked) - 1, len(ranked) * share // 100)]


def _seconds(stamp: str) -> float:
    """Of a line of the log, since 1970."""
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


@dataclass
class Timed:
    """One kind of work, and how long each "ip link add" of others took meanwhile."""

    what: str
    took_s: list[float] = field(default_factory=list)
    others_ms: list[float] = field(default_factory=list)

    def print(self, than: Timed | None = None) -> None:
        """``than``: what it is compared with."""
        took = f"{self.what}: {statistics.median(self.took_s):.2f} s"
        print(f"{took}; ip link add of others: {percentiles(self.others_ms, 'ms')}", end="", flush=True)
        if than is not None:
            ratios = [at(self.others_ms, share) / at(than.others_ms, share) for share in (50, 90)]
            print(f"; {ratios[0]:.2f} and {ratios[1]:.2f} times the p50 and p90 of {than.what!r}", end="")
        print(flush=True)


class Others:
    """Another program, which makes interfaces in its own namespace."""

    def __init__(self, ns: str) -> None:
        self._ns, self._made = ns, 0

    @contextlib.contextmanager
    def working(self, timed: Timed) -> Iterator[None]:
        """Adds to ``timed`` how long the work took, and how long each "ip link add" took meanwhile."""
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(stop, timed.others_ms))
        began = time.monotonic()
        thread.start()
        try:
            yield
        finally:
            timed.took_s.append(time.monotonic() - began)
            stop.set()
            thread.join()

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


def attached(daemon: Daemon, names: Iterable[str]) -> bool:
    return {f"{name}: attached" for name in names} <= set(re.findall(r"\S+: attached", daemon.log))


def run(taps: int, attach: str, turns: int, directory: Path, store: ServiceStore | None = None) -> Account:
    """Prints the figures; the account at the end."""
    with Lab() as lab, contextlib.ExitStack() as running:
        near, far = lab.pair()
        others, metered, bare = Others(lab.namespace("others")), Taps(far.ns, taps), Taps(lab.namespace("bare"), taps)
        config = configuration({"interfaces": ["veth0", "tap*"], "attach": attach}, {"active_timeout": "0s"})
        running.enter_context(UdpSink(far.ns))
        if store is not None:
            running.enter_context(store.serving())
        idle, start, stop = Timed("idle"), Timed(f"start with {taps} taps by {attach}"), Timed("stop")
        with others.working(idle):
            time.sleep(3)
        daemon = LongDaemon(lab, far.ns, directory, config, environment=store.environment if store else None)
        with others.working(start):
            running.enter_context(daemon)
        print(f"attached after: {percentiles(daemon.attached_after_s(), 's')}")
        print(daemon.state(), flush=True)
        without, within, after = Timed("turns without netobs"), Timed("turns with it"), Timed("until attached")
        for _ in range(turns):
            with others.working(idle):
                time.sleep(1)
            with others.working(without):
                bare.turn()
            with others.working(within):
                new = metered.turn()
            with others.working(after):
                wait_until(lambda: attached(daemon, new), "the new ones are attached", LONG_S)  # noqa: B023
            Traffic(packets=PACKETS).send(lab, near)
            print(daemon.state(), f"; {len(store.fds)} kept" if store else "", flush=True)
        with others.working(stop):
            daemon.process.send_signal(15)
            daemon.process.wait(LONG_S)
        idle.print()
        for timed, than in ((start, idle), (without, idle), (within, without), (after, idle), (stop, idle)):
            timed.print(than)
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
