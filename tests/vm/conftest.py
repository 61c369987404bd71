"""Fetches the kernels, and says at the end, for each, what happened in it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

import pytest

from tests.vm.kernels import KERNELS, Kernel, KernelMissing, kernel

REPORT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = []


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run."""
    return request.config.stash[REPORT]


@pytest.fixture
def fetch(report: list[str]) -> Callable[[str], Kernel]:
    """The kernel of a name in ``KERNELS``; skips where it cannot be had."""

    def fetched(name: str) -> Kernel:
        if platform.machine() != "x86_64":
            pytest.skip("the kernels and the emulator are those of x86-64")
        try:
            return kernel(*KERNELS[name])
        except KernelMissing as error:
            report.append(f"{name}: not run: {error}")
            if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1":
                raise
            pytest.skip(str(error))

    return fetched


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(REPORT, [])
    if lines:
        terminalreporter.section("kernels")
    for line in lines:
        terminalreporter.write_line(line)
