"""Fetches the kernels."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

import pytest

from tests.vm.kernels import KERNELS, Kernel, KernelMissing, kernel


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
