"""Which tests go to one worker, and that a test marked ``alone`` has no other beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.turns import group

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = """
from pathlib import Path
import pytest
from tests import turns

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    with turns.turn(item, Path(__file__).parent):
        yield
"""
TESTS = """
import fcntl
import pathlib
import pytest

def can_begin(kind):
    with pathlib.Path(__file__).with_name("conftest.py").open("rb") as machine:
        try:
            fcntl.flock(machine, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

@pytest.mark.parametrize("number", range(8))
def test_others_may_begin_but_none_that_is_to_be_alone(number):
    assert can_begin(fcntl.LOCK_SH)
    assert not can_begin(fcntl.LOCK_EX)

@pytest.mark.alone
@pytest.mark.parametrize("number", range(8))
def test_none_may_begin(number):
    assert not can_begin(fcntl.LOCK_SH)
"""


def test_a_test_that_is_to_be_alone_is(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    for name, text in {"conftest.py": CONFTEST, "turns.py": "", "test_turns_of.py": TESTS}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "16 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/unit/base/test_loop.py::test_a[x::y]", "tests/unit/base/test_loop.py"),
        ("tests/kernel/test_gso.py::test_b[percpu_array-off]", "tests/kernel/test_gso.py"),
        ("tests/e2e/test_tls.py::test_c[1]", "tests/e2e/test_tls.py::test_c[1]"),
        ("tests/e2e/test_interop_node.py::test_d[sampled-node-netflow9-default]", "sampled"),
        ("tests/e2e/test_interop_pmacct.py::test_d[unsampled-pmacct-ipfix-full]", "unsampled"),
        ("tests/e2e/test_interop_ipfixdump.py::test_e[tls]", "tests/e2e/test_interop_ipfixdump.py::test_e[tls]"),
    ],
)
def test_tests_that_share_a_costly_fixture_go_to_one_worker(nodeid: str, expected: str) -> None:
    assert group(nodeid) == expected
