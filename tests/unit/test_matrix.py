"""``make test-matrix``: what it installs, and what it says of a Python that is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import matrix

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("python", matrix.FIRST_NUMPY)
def test_the_oldest_modules_are_those_that_are_promised(python: str) -> None:
    promised = {name: bound.replace(">=", "==") for name, bound in matrix.wanted().items()}
    oldest = matrix.requirements(python, "oldest")
    pinned = [promised[name] for name in ("pyroute2", "construct", "click", "tomli")]
    assert set(pinned) < set(oldest)
    assert f"numpy=={matrix.FIRST_NUMPY[python]}" in oldest
    assert matrix.requirements(python, "newest") == list(matrix.wanted().values())
    assert not [line for line in oldest if line.startswith(matrix.LINTERS)]


def test_the_first_numpy_of_the_first_python_is_the_lower_bound() -> None:
    assert matrix.wanted()["numpy"] == f"numpy>={next(iter(matrix.FIRST_NUMPY.values()))}"


@pytest.mark.parametrize(("strict", "status"), [("0", 0), ("1", 1)])
def test_a_python_that_is_missing(tmp_path: Path, strict: str, status: int) -> None:
    environment = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path), "NETOBS_REQUIRE_KERNEL": strict}
    argv = [sys.executable, "-m", "tests.matrix", "3.12", "newest"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    _, titles, row = done.stdout.splitlines()
    assert titles.split() == ["python", "modules", *matrix.MODULES, "result", "seconds"]
    assert row.split() == ["3.12", "newest", "-", "-", "-", "-", "not", "run:", "no", "such", "Python", "0"]
