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


def need(tool: str, path: str) -> None:
    """Skip, or fail in CI, unless ``tool`` is somewhere in ``path``."""
    if not shutil.which(tool, path=path):
        missing = f"{tool} is not installed: run tools/install-tools.sh test"
        (pytest.fail if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1" else pytest.skip)(missing)


@pytest.mark.parametrize(
    ("target", "tool"),
    [("lint-python", "ruff"), ("type", "mypy"), ("lint-c", "clang-format"), ("lint-shell", "shellcheck")],
)
def test_linter(target: str, tool: str) -> None:
    need(tool, f"{BIN}:{os.environ['PATH']}")
    # DEV empty: the tools of the interpreter that runs this test, without a look at what .venv has.
    command = ["make", "--silent", target, f"BIN={BIN}", "DEV="]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


MAN_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"}
"""The same for everybody: no preprocessor, the width of a terminal."""


@pytest.mark.parametrize(
    "command",
    [("mandoc", "-T", "lint", "-W", "warning"), ("man", "--warnings", "-E", "UTF-8", "-Tutf8", "-l")],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("page", sorted((ROOT / "man").glob("*.[0-9]")), ids=lambda page: page.name)
def test_man_page(page: Path, command: tuple[str, ...]) -> None:
    need(command[0], os.environ["PATH"])
    environment = {**os.environ, **MAN_ENVIRONMENT}
    result = subprocess.run([*command, page], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
