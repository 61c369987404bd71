"""The whole examination, as JSON and as text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netobs.base.errors import ConfigError, NetobsError
from netobs.base.log import printable
from netobs.config import CaptureConfig, Config, load, warnings_of
from netobs.config.text import folded
from netobs.daemon import extra, footprint, host_check
from netobs.datapath.capture import check_interfaces
from netobs.datapath.datapath import Datapath
from netobs.doctor import clocks, collectors, host, interfaces, process, running, unit, xdp_sockets
from netobs.doctor.finding import CONFIGURATION, DAEMON, SEVERITIES, Finding, joined, worst
from netobs.doctor.hooks import Hooks
from netobs.doctor.interfaces import Seen
from netobs.doctor.links import links
from netobs.kernel.observation_points import DIRECTIONS

VERSION = 1
_COLOURS = {"problem": "1;31", "warning": "33", "note": "36", "ok": "32"}


@dataclass(frozen=True)
class Report:
    """``findings``: the worst first. ``conf``: the path of the configuration. ``unit``: the systemd unit of the daemon
    that runs, or of the configuration; "" if it is in none."""

    findings: list[Finding]
    interfaces: list[Seen]
    conf: str
    unit: str = ""

    @property
    def exit_status(self) -> int:
        """3 if there is a warning or a problem."""
        return 3 if worst(self.findings) in ("problem", "warning") else 0

    def as_json(self) -> dict[str, Any]:
        """For ``--json``; other versions of netobs may add keys."""
        return {
            "version": VERSION,
            "findings": [each.as_json() for each in self.findings],
            "interfaces": [each.as_json() for each in self.interfaces],
        }

    def lines(self, coloured: bool = False) -> Iterator[str]:
        """For a terminal, or plain."""
        counts = {each: sum(one.severity == each for one in self.findings) for each in SEVERITIES}
        total = [f"{number} {name}{'s' if number > 1 else ''}" for name, number in counts.items() if number]
        yield f"netobs doctor: {', '.join(total[:-1] if counts['ok'] else total) or 'nothing to report'}"
        for each in self.findings:
            if each.severity != "ok":
                yield ""
                yield from _finding(each, coloured)
        yield ""
        yield from self._hooks()
        yield ""
        for each in self.findings:
            if each.severity == "ok":
                yield f"{_painted('ok', 'ok', coloured)}  {printable(f'{each.place()}: {each.what}')}"

    def _hooks(self) -> Iterator[str]:
        """Interfaces that are alike share their lines."""
        alike: dict[tuple[str, ...], list[str]] = {}
        for each in self.interfaces:
            if each.selected:
                key = tuple(f"{way}: {each.hook_line(way)}" for way in DIRECTIONS["both"])
                alike.setdefault(key, []).append(each.link.name)
        if not alike:
            yield "no interface is selected"
        for key, names in alike.items():
            yield folded(names)
            yield from (f"  {printable(line)}" for line in key)
        others = [each.link.name for each in self.interfaces if not each.selected]
        if others:
            yield f"not selected, or not measurable: {folded(others)}"


def _finding(each: Finding, coloured: bool) -> Iterator[str]:
    yield f"{_painted(each.severity, each.severity, coloured)}  {each.id}  {printable(each.place())}"
    yield f"  {printable(each.what)}"
    if each.netobs:
        yield f"  netobs: {printable(each.netobs)}"
    if each.remedy:
        yield f"  do: {printable(each.remedy)}"


def _painted(text: str, severity: str, coloured: bool) -> str:
    return f"\x1b[{_COLOURS[severity]}m{text}\x1b[0m" if coloured else text


def examine(conf: Path, state: running.State | None, no_state: str = "") -> Report:
    """``conf``: the configuration, unless the daemon names another; ``state``: the state document of the daemon, None
    if none answers, with the reason ``no_state``. Changes nothing.

    :raises NetobsError: the host cannot be looked at.
    """
    pid = running.pid_of(state)
    found: list[Finding] = []
    path = running.file_of(state) or os.fspath(conf)
    config, mistakes = _read(path)
    found += mistakes
    capture = config.capture if config is not None else CaptureConfig()
    try:
        hooks = Hooks()
        seen = interfaces.look(capture, links(), hooks)
    except OSError as error:
        raise NetobsError(f"rtnetlink: {error.strerror}", "run netobs doctor where AF_NETLINK is allowed") from None
    if state is not None:
        found += running.findings(state)
    elif no_state:
        found.append(Finding("no-daemon", "note", no_state, netobs="this is what a daemon would find"))
    daemon = process.look(pid) if pid else None
    found += process.findings(daemon, config) if daemon is not None else ()
    name = daemon.unit if daemon is not None else unit.of_file(path)
    found += unit.findings(name, unit.properties(name))
    if config is not None:
        found += _configuration(config, seen, pid)
        found += collectors.findings(config.collectors)
    is_elsewhere = bool(pid) and process.is_elsewhere(pid)
    if is_elsewhere:
        found.append(Finding(
            "namespace-of-daemon", "note", f"the daemon, process {pid}, is in another network namespace", (DAEMON,),
            "its interfaces are not looked at", f"nsenter -t {pid} -n netobs doctor",
        ))  # fmt: skip
    if state is None and os.geteuid() == 0:
        found += interfaces.left_behind(seen)
    found += interfaces.findings(capture, seen, hooks, running.is_at_work(state) and not is_elsewhere)
    found += xdp_sockets.findings()
    found += host.findings(hooks.has_tcx)
    found += clocks.findings()
    return Report(joined(found), seen, path, name)


def _read(path: str) -> tuple[Config | None, list[Finding]]:
    try:
        config = load(path)
    except ConfigError as error:
        where, meaning = (CONFIGURATION,), "the daemon does not start; a reload is refused"
        if not os.path.exists(path):
            return None, [Finding("configuration-missing", "warning", str(error), where, meaning)]
        return None, [Finding("configuration-mistake", "problem", each, where, meaning) for each in error.problems]
    return config, [Finding("configuration", "ok", f"{path}: no mistake", (CONFIGURATION,))]


def _configuration(config: Config, seen: Sequence[Seen], pid: int) -> Iterator[Finding]:
    """What does not fit this host; and without a daemon, whether the tables would find room."""
    present, where = [each.link.interface for each in seen], (CONFIGURATION,)
    for line in [*warnings_of(config), *host_check.warnings_of(config, present)]:
        yield Finding("configuration-doubtful", "warning", line, where)
    try:
        line = check_interfaces(config.capture, present)
    except NetobsError as error:
        yield Finding("no-interface", "problem", str(error), where, "the daemon does not start, and tries again")
    else:
        if line:
            yield Finding("no-interface", "warning", line, where, "it starts, and waits")
    if config.capture.netns:
        yield Finding("namespaces", "note", "interfaces in other network namespaces are not looked at", where,
                      remedy="ip netns exec NAME netobs doctor looks at those of NAME")  # fmt: skip
    if not pid:
        yield from _room(config)
        for line in host_check.problems_of(config):
            yield Finding("spool", "warning", line, where, "a daemon with the user of this process would not start")


def _room(config: Config) -> Iterator[Finding]:
    try:
        groups = extra.groups(config, extra.readable(config))
        datapath = Datapath(config.capture, extra_groups=groups)
        line = footprint.warning(config, datapath.kernel_bytes(), datapath.record)
    except NetobsError:
        return  # others report it
    if line:
        yield Finding("memory", "warning", line, (CONFIGURATION,), "it may not start, or the kernel may end it")
