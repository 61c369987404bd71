"""Another configuration for a running daemon: checks the file, and which keys can take effect at once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Callable, NamedTuple, Protocol

from netobs import config as configuration
from netobs.base import background, clock
from netobs.base.clock import NS_PER_S
from netobs.base.errors import ConfigError, NetobsError
from netobs.base.loop import EventLoop, Timer
from netobs.config import Config, all_keys, warnings_of
from netobs.daemon import host_check, packet_capture
from netobs.daemon.collectors import Exporters, check_certificates, make_exporters
from netobs.daemon.handover import LOADED_WITH, MOVED_BY
from netobs.datapath.capture import check_interfaces

log = logging.getLogger("netobs")

AT_START_ONLY: dict[str, tuple[str, ...]] = {
    "capture": ("pin", "drop_capabilities"),
    "insight": ("tcp",),
}
"""The keys, by table, that are fixed when the daemon starts. All others take effect at a reload."""

LONG_NS = 10 * NS_PER_S
"""A longer check is logged: it waits for a name server, or for a disk."""

PATIENCE_NS = NS_PER_S
"""The daemon's end waits this long for a running check."""


class Outcome(NamedTuple):
    """How the reload ``number`` of this process ended. ``error``: why it failed, a line for each mistake, else empty.
    ``warnings``: as in ``Checked``."""

    number: int
    ended_ns: int
    """Since 1970."""
    error: str = ""
    warnings: tuple[str, ...] = ()


class Checked(NamedTuple):
    """The checked and compiled content of the file: to apply it, nothing has to be read or resolved."""

    config: Config
    """The configuration that a running daemon can apply."""
    exporters: Exporters
    warnings: list[str]
    """A line for each key that keeps its present value, and for each setting that is probably a mistake."""
    waits: tuple[str, ...] = ()
    """The keys that keep their present value until the next start: ``[capture] pin``."""


class Reloadable(Protocol):
    """The part of the daemon that a reload uses."""

    def present(self) -> tuple[Config, int]:
        """The present configuration, and ``boot_ns`` as in ``make_exporters``."""

    def load(self, config: Config) -> None:
        """Called in a thread: loads other programs, if ``config`` asks for others, for ``follow``.

        :raises NetobsError: they cannot be loaded.
        """

    def export_by(self, checked: Checked, then: Callable[[int], None], now_ns: int) -> None:
        """Switches to the collectors of ``checked``; calls ``then`` after that is done.

        :raises NetobsError: nothing was changed.
        """

    def follow(self, config: Config, now_ns: int) -> None:
        """Applies the rest of ``config``."""

    def reload(self, now_ns: int) -> None:
        """Requests a reload."""

    def reload_ended(self, outcome: Outcome, now_ns: int) -> None:
        """The new configuration is applied, or the former one stays."""


class Reloading:
    """Checks the file beside the loop, and applies the result: one reload at a time. Requests during a reload are
    remembered: one more reload follows, however many there were."""

    def __init__(self, loop: EventLoop, daemon: Reloadable) -> None:
        self._loop, self._daemon = loop, daemon
        self._active = self._checking = self._again = self._stopped = False
        self._at_stop: Timer | None = None
        self.number = 0
        """Of the last reload that has begun."""
        self.waits: tuple[str, ...] = ()
        """As in ``Checked``, of the last reload that succeeded."""

    def request(self, now_ns: int) -> bool:
        """Reads the file again, now or later; whether it begins now."""
        if self._active or self._stopped or self._at_stop is not None:
            self._again = True
            return False
        self._active = self._checking = True
        self.number += 1
        config, boot_ns = self._daemon.present()
        log.debug("reload: reading %s", config.path)
        say_long = self._loop.call_at(now_ns + LONG_NS, functools.partial(_say_long, str(config.path)))

        def checked(result: Checked | NetobsError, later_ns: int) -> None:
            say_long.cancel()
            self._checking = False
            if not self._stopped:
                self._put_into_force(result, later_ns)
            if self._at_stop is not None:
                self._at_stop.cancel()
                self._at_stop.callback(later_ns)

        def read_and_load() -> Checked:
            found = read(config, boot_ns)
            self._daemon.load(found.config)
            return found

        background.run(self._loop, "reload", read_and_load, checked)
        return True

    def stop(self, then: Callable[[int], None], now_ns: int) -> bool:
        """No reload begins any more. A check that is under way gets a moment, as flows that wait for a former collector
        may go to its successor; after that ``then`` is called. Whether nothing is waited for.
        """
        if self._checking and not self._stopped:
            if self._at_stop is None:
                self._at_stop = self._loop.call_at(now_ns + PATIENCE_NS, functools.partial(self._stop, then))
            return False
        self._stopped = True
        return True

    def _stop(self, then: Callable[[int], None], now_ns: int) -> None:
        self._stopped = True
        then(now_ns)

    def _put_into_force(self, result: Checked | NetobsError, now_ns: int) -> None:
        try:
            if isinstance(result, NetobsError):
                raise result
            end = functools.partial(self._end, "", tuple(result.warnings))
            self._daemon.export_by(result, end, now_ns)
        except NetobsError as error:
            for problem in str(error).split("\n"):
                log.error("reload: %s", problem)
            log.error("reload: failed, the configuration stays as it was")
            self._end(str(error), (), now_ns)
            return
        self.waits = result.waits
        for line in result.warnings:
            log.warning("reload: %s", line)
        self._daemon.follow(result.config, now_ns)

    def _end(self, error: str, warnings: tuple[str, ...], now_ns: int) -> None:
        self._active = False
        self._daemon.reload_ended(Outcome(self.number, clock.read_pair().realtime_ns, error, warnings), now_ns)
        if self._again:
            self._loop.call_at(now_ns, self._repeat)

    def _repeat(self, now_ns: int) -> None:
        self._again = False
        self._daemon.reload(now_ns)


def _say_long(path: str, _now_ns: int) -> None:
    what = "a name server or a disk does not answer; netobs keeps the old configuration meanwhile"
    log.warning("reload: %s is still being checked: %s", path, what)


def read(present: Config, boot_ns: int) -> Checked:
    """Reads and checks the file of ``present``, and compiles what is in it. May block. ``boot_ns``: as in
    ``make_exporters``.

    :raises NetobsError: the file is not right; the message has a line for each mistake.
    """
    effective, waits = _merge(present, configuration.load(present.path))
    kept = [f"{present.path}: {key} takes effect at the next start: restart netobs" for key in waits]
    exporters = check(effective, boot_ns, present)
    odd = host_check.warnings_of(effective, host_check.present_interfaces())
    return Checked(effective, exporters, [*kept, *warnings_of(effective), *odd], waits)


def check(config: Config, boot_ns: int = 0, present: Config | None = None) -> Exporters:
    """Checks everything that could stop a switch from ``present`` to ``config``: templates, certificates, interfaces,
    spools, the address of the metrics. Returns what its collectors need.

    :raises NetobsError: the message has a line for each mistake.
    """
    exporters: Exporters = {}
    problems = [*_problem(lambda: exporters.update(make_exporters(config, boot_ns)))]
    problems += _problem(lambda: check_certificates(config))
    problems += [problem for problem, may_pass in packet_capture.problems(config) if not may_pass]
    problems += host_check.problems_of(config)
    if config.metrics.are_on:
        from netobs.daemon import metrics

        problems += metrics.problems(config.metrics, None if present is None else present.metrics)
    problems += _problem(lambda: check_interfaces(config.capture, host_check.present_interfaces()))
    if problems:
        raise ConfigError(problems)
    return exporters


def _problem(attempt: Callable[[], object]) -> Iterator[str]:
    try:
        attempt()
    except NetobsError as error:
        yield str(error)


def _merge(present: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """The configuration that can be applied, and the keys that wait for the next start."""
    waits = []
    tables = {}
    for table, names in _fixed(present).items():
        mine, its = getattr(present, table), getattr(wanted, table)
        fixed = [key for key in all_keys() if key.table == table and key.name in names]
        waits += [
            f"[{table}] {key.name}" for key in fixed if getattr(mine, key.field_name) != getattr(its, key.field_name)
        ]
        tables[table] = replace(its, **{key.field_name: getattr(mine, key.field_name) for key in fixed})
    return replace(wanted, **tables), tuple(waits)


def _fixed(present: Config) -> dict[str, tuple[str, ...]]:
    """The keys, by table, that are fixed while ``present`` is in force."""
    if not present.capture.drop_capabilities:
        return AT_START_ONLY
    names = (*AT_START_ONLY["capture"], *MOVED_BY, *LOADED_WITH)
    if present.packet_capture.enabled or present.capture.netns:
        return {**AT_START_ONLY, "capture": names}
    return {**AT_START_ONLY, "capture": (*names, "netns"), "packet_capture": ("enabled",)}
