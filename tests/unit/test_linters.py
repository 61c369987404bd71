"""The linters of `make lint type`, as tests. The Makefile is the only place that says how each is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("target", "tool"),
    [("lint-python", "ruff"), ("type", "mypy"), ("lint-c", "clang-format"), ("lint-shell", "shellcheck")],
)
def test_linter(target: str, tool: str) -> None:
    if not shutil.which(tool, path=f"{BIN}:{os.environ['PATH']}"):
        missing = f"{tool} is not installed: run tools/install-tools.sh test"
        if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    # DEV empty: the tools of the interpreter that runs this test, without a look at what .venv has.
    command = ["make", "--silent", target, f"BIN={BIN}", "DEV="]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("page", sorted((ROOT / "man").glob("*.[0-9]")), ids=lambda page: page.name)
def test_man_page(page: Path) -> None:
    if not shutil.which("mandoc"):
        if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1":
            pytest.fail("mandoc is not installed: run tools/install-tools.sh test")
        pytest.skip("mandoc is not installed: run tools/install-tools.sh test")
    result = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
