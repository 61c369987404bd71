"""Markers kernel, e2e, vm, packages and bench: a test runs if the machine can, else it is skipped with the reason.

``NETOBS_REQUIRE_KERNEL=1`` makes a failure of such a skip. A marker names the programs that its test needs:
``@pytest.mark.e2e(tools=("nfcapd", "nfdump"))``, or, as ``decoders``, those that ``make interop`` installs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.adapters import missing
from lab.machine import kernel_problem
from lab.namespaces import Lab, command
from tests import turns

NEEDS_KERNEL = ("kernel", "e2e", "bench")

REPORT = pytest.StashKey[dict[str, list[str]]]()


def problem(item: pytest.Item) -> str:
    """Why ``item`` cannot run here; "" if it can."""
    names = {mark.name for mark in item.iter_markers()}
    reason = kernel_problem() if names.intersection(NEEDS_KERNEL) else ""
    return reason or missing(item)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = {}


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run, under the name of the test's folder."""
    return request.config.stash[REPORT].setdefault(request.path.parent.name, [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    if isinstance(output := getattr(session.config, "workeroutput", None), dict):
        output["report"] = session.config.stash[REPORT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended: its lines come to those of the others."""
    for title, lines in getattr(node, "workeroutput", {}).get("report", {}).items():
        node.config.stash[REPORT].setdefault(title, []).extend(lines)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, lines in config.stash.get(REPORT, {}).items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For ``-n`` without ``--dist``."""
    return turns.scheduler(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns.arrange(items)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with turns.turn(item):
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = problem(item)
    if not reason:
        return
    if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1":
        pytest.fail(f"NETOBS_REQUIRE_KERNEL=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A laboratory of the test's own, gone when the test ends."""
    with Lab() as laboratory:
        yield laboratory


@pytest.fixture(scope="session", autouse=True)
def no_leftovers() -> Iterator[None]:
    """Clears away what killed test runs left behind, and checks at the end that this one leaves nothing."""
    able = os.geteuid() == 0 and shutil.which("ip") is not None
    if able:
        Lab.sweep()
    yield
    if able:
        assert Lab.leftovers() == []


@pytest.fixture
def bpf_fs() -> Iterator[Path]:
    """A BPF file system of the test's own, for every user: a network namespace has its own /sys."""
    folder = Path(f"/run/netobs-test-{os.getpid()}")
    folder.mkdir()
    command(["mount", "-t", "bpf", "bpf", str(folder)])
    yield folder
    command(["umount", str(folder)])
    folder.rmdir()
