"""The real daemon in a namespace: configured, started, ended by a signal, and what its last log lines account for."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lab.namespaces import Lab, LabError, command
from lab.privileges import CAPABILITIES, give, unprivileged
from lab.programs import WAIT_FACTOR, Program, wait_until
from lab.traffic import REPOSITORY
from netobs.config.identity import control_socket

EXIT_WITHIN_S = 5.0 * WAIT_FACTOR
KEPT = {"active_timeout": "1h", "idle_timeout": "1h"}
"""[metering] for tests that count Flow Records: each flow is exported once, at the end, however slow the machine."""

AS_USER = os.environ.get("NETOBS_TEST_USER") == "1"
"""The daemon runs as an unprivileged user with the capabilities that a package's unit gives it."""

Table = dict[str, Any]


def configuration(
    capture: Table | None = None,
    metering: Table | None = None,
    collectors: Sequence[Table] = ({},),
    log: Table | None = None,
    groups: Sequence[Table] = (),
    packet_capture: Table | None = None,
    metrics: Table | None = None,
    insight: Table | None = None,
) -> str:
    """A configuration file that measures veth0 and exports to 127.0.0.1; the tables add keys, or replace them."""
    parts = [_table("[capture]", {"interfaces": ["veth0"], **(capture or {})})]
    tables = {
        "metering": metering,
        "packet_capture": packet_capture,
        "metrics": metrics,
        "insight": insight,
        "log": log,
    }
    parts += [_table(f"[{name}]", table) for name, table in tables.items() if table]
    parts += [_table("[[collector]]", {"host": "127.0.0.1", **collector}) for collector in collectors]
    parts += [_table("[[group]]", group) for group in groups]
    return "\n".join(parts)


def _table(title: str, entries: Table) -> str:
    # What JSON writes for strings, numbers, booleans and lists of them, TOML reads the same way.
    return "\n".join([title, *(f"{key} = {json.dumps(value)}" for key, value in entries.items()), ""])


@dataclass(frozen=True)
class Counts:
    """Flow Records, and the packets and octets in them; packets of the ledger have no flows."""

    flows: int = 0
    packets: int = 0
    octets: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.flows + other.flows, self.packets + other.packets, self.octets + other.octets)

    @property
    def measured(self) -> tuple[int, int]:
        """Packets and octets."""
        return self.packets, self.octets


def total(counts: dict[str, Counts]) -> Counts:
    """The sum over all reasons or collectors."""
    return sum(counts.values(), Counts())


@dataclass
class Account:
    """What the daemon said: ``sent`` and ``waiting`` by collector, ``not_sent`` by collector and reason."""

    seen: Counts = field(default_factory=Counts)
    ledger: dict[str, Counts] = field(default_factory=dict)
    sent: dict[str, Counts] = field(default_factory=dict)
    not_sent: dict[str, dict[str, Counts]] = field(default_factory=dict)
    spooled: dict[str, Counts] = field(default_factory=dict)
    taken_over: dict[str, Counts] = field(default_factory=dict)
    waiting: dict[str, Counts] = field(default_factory=dict)

    def transmitted(self, collector: str = "127.0.0.1") -> Counts:
        """What left this host, refused by the collector's or not."""
        return self.sent[collector] + self.not_sent.get(collector, {}).get("refused", Counts())

    def is_balanced(self, collector: str = "127.0.0.1") -> bool:
        """Whether each packet that was seen is in a flow that was sent or counted as not sent, or in the ledger.

        With a spool: or in the spool; and what an earlier run has left there counts as seen.
        """
        found = total(self.ledger) + self.sent[collector] + total(self.not_sent.get(collector, {}))
        found += self.spooled.get(collector, Counts())
        return found.measured == (self.seen + self.taken_over.get(collector, Counts())).measured


_OF_COLLECTOR = r' (?:collector "|(?=former collectors ))([^"]+?)(?:"| collectors) \(.*\): '


def read_account(log: str) -> Account:
    """The last account in a daemon's log. Those that a reload has taken away are summed up there, as "former"."""
    account = Account()
    for line in log.splitlines():
        if found := re.search(r" seen: (\d+) packets, (\d+) octets$", line):
            account = Account(Counts(0, int(found[1]), int(found[2])))
        elif found := re.search(r" not in a flow, (\w+): (\d+) packets, (\d+) octets$", line):
            account.ledger[found[1]] = Counts(0, int(found[2]), int(found[3]))
        elif found := re.search(
            _OF_COLLECTOR + r"(in the spool|taken over from an earlier run): "
            r"(\d+) flows, (\d+) packets, (\d+) octets",
            line,
        ):
            where = account.spooled if found[2] == "in the spool" else account.taken_over
            _add(where, found[1], Counts(*map(int, found.groups()[2:])))
        elif found := re.search(
            _OF_COLLECTOR + r"(?:not sent, (\w+): )?(\d+) flows, (\d+) packets, (\d+) octets( waiting)?",
            line,
        ):
            counts = Counts(*map(int, found.groups()[2:5]))
            if found[2]:
                _add(account.not_sent.setdefault(found[1], {}), found[2], counts)
            else:
                _add(account.waiting if found[6] else account.sent, found[1], counts)
    return account


def _add(where: dict[str, Counts], name: str, counts: Counts) -> None:
    where[name] = where.get(name, Counts()) + counts


class Daemon(Program):
    """``netobs --conf FILE`` in ``ns``, ready when it is entered. ``config`` is the text of the file.

    ``environment`` adds variables, as a service manager does. ``prefix`` is a command that starts it. ``as_user``: as
    an unprivileged user, whom all that is in ``directory`` belongs to.
    """

    def __init__(
        self,
        lab: Lab,
        ns: str,
        directory: Path,
        config: str,
        label: str = "netobs",
        environment: Mapping[str, str] | None = None,
        as_user: bool = AS_USER,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(lab, ns, directory, label)
        self._argv = [*prefix, *NETOBS]
        self.conf = self.directory / "netobs.toml"
        self.conf.write_text(config, encoding="utf-8")
        self._environment = {**os.environ, **(environment or {})}
        self._state, self._as_user = directory, as_user

    def _start(self) -> None:
        argv = [*self._argv, "--conf", str(self.conf)]
        if self._as_user:
            give(self._state)
            argv = unprivileged(argv, [self._state])
        process = self._process = self._run(argv, cwd=REPOSITORY, stdin=subprocess.DEVNULL, env=self._environment)
        self._ready(process, self._is_ready)

    def _end(self) -> None:
        super()._end()
        Path(control_socket(self.conf)).unlink(missing_ok=True)  # it stays where the process was killed

    def _is_ready(self) -> bool:
        """It measures, and it is known whether it captures packets, too."""
        captures = "[packet_capture]\nenabled = true" in self.conf.read_text(encoding="utf-8")
        said = re.search(r"packet capture: (listening on|.*tried again)", self.log)
        return "netobs ready" in self.log and bool(said or not captures)

    def reload(self, config: str) -> str:
        """Give it another configuration by SIGHUP; what it logs of that."""
        self.conf.write_text(config, encoding="utf-8")
        before = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: re.search(r" reload: (done|failed)", self.log[before:]) is not None, f"{self.label} reloads")
        return self.log[before:]

    def stop(self, number: int = signal.SIGTERM, within: float = EXIT_WITHIN_S) -> int:
        """End it by a signal; its exit code. ``LabError`` when it takes longer than an operator would wait."""
        self.process.send_signal(number)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.label} runs on {within:g} s after signal {number}:\n{self.log}") from None

    def finish(self, within: float = EXIT_WITHIN_S) -> Account:
        """End it as systemd does; what it accounts for. ``LabError`` unless it ended well."""
        code = self.stop(within=within)
        if code or "Traceback" in self.log:
            raise LabError(f"{self.label} ended with {code}:\n{self.log}")
        return read_account(self.log)

    def account(self) -> Account:
        """What it accounts for so far; it runs on."""
        before = len(self.log)
        self.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: " flow cache: " in self.log[before:], f"{self.label} logs its state")
        return read_account(self.log[before:])

    def wait_for(self, text: str) -> None:
        """Wait until its log contains ``text``."""
        wait_until(lambda: text in self.log, f"{self.label} logs {text!r}; its log so far:\n{self.log}")

    def capture_process(self) -> Child:
        """Its process for packet capture. ``LabError`` if it has none."""
        for pid in children(self.process.pid):
            if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "netobs-capture":
                return Child(pid)
        raise LabError(f"{self.label} has no process for packet capture:\n{self.log}")


@dataclass(frozen=True)
class Child:
    """A process that a program of ours has started."""

    pid: int


def children(pid: int) -> list[int]:
    """The processes that the main thread of ``pid`` has started (proc(5))."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


NETOBS = (sys.executable, "-m", "netobs")


def netobs(
    lab: Lab,
    ns: str,
    *arguments: str,
    prefix: Sequence[str] = (),
    capabilities: Sequence[str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a ``netobs`` command in ``ns`` to its end; ``prefix`` is a command that starts it, as root.

    ``capabilities``: as an unprivileged user with these, whom the folder of the configuration file is given to.
    """
    argv = ["env", f"PYTHONPATH={REPOSITORY}", *prefix, *NETOBS, *arguments]
    if capabilities is None and AS_USER and not prefix:
        capabilities = CAPABILITIES
    if capabilities is not None:
        folders = [Path(after).parent for name, after in zip(arguments, arguments[1:]) if name == "--conf"]
        mine = [folder for folder in folders if REPOSITORY not in folder.parents]
        for folder in mine:
            give(folder)
        argv = unprivileged(argv, mine, capabilities)
    return lab.run(ns, argv, check=False)


BpfObjects = frozenset[tuple[str, int]]


class HasId(Protocol):
    """A process of ours, or one of a container."""

    @property
    def pid(self) -> int: ...


def bpf_objects(process: HasId) -> BpfObjects:
    """Kind and id of the BPF programs, maps and links that ``process`` holds open (proc(5), fdinfo)."""
    found = set()
    for file in Path(f"/proc/{process.pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            text = file.read_text(encoding="ascii")
            found.update(re.findall(r"^(prog|map|link)_id:\s+(\d+)$", text, re.MULTILINE))
    return frozenset((kind, int(number)) for kind, number in found)


def alive(objects: BpfObjects) -> BpfObjects:
    """Those of ``objects`` that the kernel still has, as bpftool shows them.

    One after the other: its list of all ends at a link that anybody is just making (EAGAIN).
    """
    return frozenset(one for one in objects if _is_alive(*one))


def _is_alive(kind: str, number: int) -> bool:
    argv = ["bpftool", "-j", kind, "show", "id", str(number)]
    done = command(argv, check=False)
    if done.returncode and os.strerror(errno.ENOENT) not in done.stdout + done.stderr:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.returncode == 0


def traffic_control(lab: Lab, ns: str, interface: str = "veth0") -> str:
    """All qdiscs and filters of ``interface``, and all BPF programs on it, as tc and bpftool show them."""
    listings = [["tc", "qdisc", "show", "dev", interface], ["bpftool", "net", "show", "dev", interface]]
    listings += [["tc", "filter", "show", "dev", interface, hook] for hook in ("ingress", "egress")]
    return "".join(lab.run(ns, argv, check=False).stdout for argv in listings)
