"""A host on which netobs is installed from its package, as an administrator sees it."""

from __future__ import annotations

import errno
import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import Nfcapd
from lab.daemon import Account, read_account
from lab.namespaces import Lab, Link
from lab.programs import wait_until
from tests.kernel.foreign import handles, tcx_programs
from tests.packages.container import Container, Process

BOOTED = [
    pytest.mark.packages(
        tools=("make", "clang", "dpkg-buildpackage", "debootstrap", "systemd-nspawn", "bpftool", "nfcapd", "nfdump")
    ),
    pytest.mark.kernel,
]
"""What a test needs that boots a host with the Debian package."""

UNIT = "netobs.service"
CONF = "/etc/netobs.toml"
COLLECTOR = "192.0.2.10"
SENT_S = 60.0
NOTHING: dict[str, tuple[int, list[int]]] = {"ingress": (0, []), "egress": (0, [])}
# Flows are exported within a second.
AT_ONCE = {"eviction_interval": "200ms", "active_timeout": "0s", "idle_timeout": "200ms"}


class Host(Container):
    """A container with the commands that this is about."""

    def apt(self, *arguments: str) -> str:
        """What apt says."""
        return self.run("apt", "-y", "-o", "Dpkg::Use-Pty=0", *arguments).stdout

    def install(self, deb: Path) -> str:
        """``apt install`` of a file, with all that it depends on; what apt says."""
        return self.apt("install", self.copy(deb))

    def upgrade(self, deb: Path) -> None:
        """As ``install``; to the question which configuration file it shall be, the answer is: the edited one."""
        self.apt("-o", "Dpkg::Options::=--force-confold", "--allow-downgrades", "install", self.copy(deb))

    def configure(self, conf: str = CONF, **values: Any) -> None:
        """Edit the file ``conf``: give keys that stand there another value, at their first place."""
        file = self.path(conf)
        text = file.read_text(encoding="utf-8")
        for key, value in values.items():
            text, count = re.subn(rf"^{key} = .*$", f"{key} = {json.dumps(value)}", text, count=1, flags=re.MULTILINE)
            assert count == 1, f"{conf} has no key {key}"
        file.write_text(text, encoding="utf-8")

    def drop_in(self, *lines: str, unit: str = UNIT) -> None:
        """What ``systemctl edit`` makes: settings of the section [Service]."""
        folder = self.path(f"/etc/systemd/system/{unit}.d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text("\n".join(["[Service]", *lines, ""]), encoding="utf-8")
        self.systemctl("daemon-reload")

    def state(self, unit: str = UNIT) -> str:
        """``active``, ``inactive``, ``failed`` …"""
        return self.show(unit, "ActiveState")

    def daemon(self, unit: str = UNIT) -> Process:
        """The daemon's process; packet capture has one of its own, which is younger."""
        process, *_ = self.processes(unit)
        return process

    def active_since_s(self, unit: str = UNIT) -> float:
        """When ``unit`` last told READY=1, on the clock of ``time.monotonic``."""
        return int(self.show(unit, "ActiveEnterTimestampMonotonic")) / 1e6

    def seconds_to_active(self, unit: str = UNIT) -> float:
        """How long the last start of ``unit`` took, from its process to READY=1."""
        return self.active_since_s(unit) - int(self.show(unit, "ExecMainStartTimestampMonotonic")) / 1e6

    def logs(self, unit: str = UNIT) -> list[str]:
        """What the runs of ``unit`` logged, in their order, a text for each."""
        runs: dict[str, list[str]] = {}
        for line in self.journal("--output=json", f"--unit={unit}").splitlines():
            entry = json.loads(line)
            if "_SYSTEMD_INVOCATION_ID" in entry:  # said by the daemon, not about it
                runs.setdefault(entry["_SYSTEMD_INVOCATION_ID"], []).append(f" {entry['MESSAGE']}\n")
        return ["".join(lines) for lines in runs.values()]

    def accounts(self, unit: str = UNIT) -> list[Account]:
        """What each run accounted for last."""
        return [read_account(log) for log in self.logs(unit)]

    def account(self, unit: str = UNIT) -> Account:
        """What the daemon accounts for so far; it runs on."""
        before = len(self.logs(unit)[-1])
        self.daemon(unit).send(signal.SIGUSR1)
        wait_until(lambda: " flow cache: " in self.logs(unit)[-1][before:], f"{unit} logs its state")
        return read_account(self.logs(unit)[-1][before:])

    def wait_sent(self, packets: int, collector: str = COLLECTOR, unit: str = UNIT) -> None:
        """Wait until the daemon has sent flows with ``packets`` packets."""
        wait_until(lambda: self.account(unit).sent[collector].packets == packets, f"{packets} packets are sent", SENT_S)


@dataclass
class Site:
    """A host that gets traffic, and where it comes from. The host's collectors are at ``COLLECTOR``."""

    lab: Lab
    near: Link
    far: Link
    host: Host
    directory: Path

    def collector(self, port: int = 4739) -> Nfcapd:
        return Nfcapd(self.lab, self.far.ns, self.directory, port, COLLECTOR)

    def attachments(self, link: Link | None = None) -> dict[str, tuple[int, list[int]]]:
        """What is on each hook of ``link``, by default the host's: the number of TCX programs, the filters' handles."""
        where = link or self.far
        return {hook: (_tcx(where, hook), handles(self.lab, where, hook)) for hook in ("ingress", "egress")}

    def received(self) -> int:
        """Packets that the host's interface has received."""
        return self.lab.counters(self.far)["rx_packets"]


def _tcx(link: Link, hook: str) -> int:
    try:
        return len(tcx_programs(link, hook))
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel before 6.6
            raise
        return 0


@contextmanager
def site(lab: Lab, directory: Path, root: Path) -> Iterator[Site]:
    """A host booted from ``root``."""
    near, far = lab.pair()
    lab.address(Link(far.ns, "lo", 1, ""), f"{COLLECTOR}/32")
    with Host(lab, far.ns, directory, root) as host:
        yield Site(lab, near, far, host, directory)
