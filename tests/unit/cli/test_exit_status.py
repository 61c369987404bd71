"""The exit status of the command: packaging/systemd tries again, or does not, by it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def status(*arguments: str, stdout: str = os.devnull) -> tuple[int, str]:
    """The exit status, and what was said on standard error."""
    with open(stdout, "wb") as file:
        command = [sys.executable, "-m", "netobs", *arguments]
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


def test_success() -> None:
    assert status("template", "list") == (0, "")


def test_a_mistake(tmp_path: Path) -> None:
    conf = tmp_path / "netobs.toml"
    conf.write_text("[capture]\nsampling = 0\n", encoding="utf-8")
    number, said = status("--conf", str(conf))
    assert number == 1
    assert "Traceback" not in said


def test_wrong_usage() -> None:
    assert status("--no-such-option")[0] == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_an_unexpected_error() -> None:
    number, said = status("template", "list", stdout="/dev/full")
    assert number == os.EX_SOFTWARE
    assert said.startswith("netobs ends because of an unexpected error\nTraceback")
    assert "No space left on device" in said


def test_the_unit_tries_again_after_all_but_mistakes() -> None:
    unit = (ROOT / "packaging/systemd/netobs.service").read_text(encoding="utf-8")
    assert re.findall(r"^Restart.*=.*$", unit, re.MULTILINE) == [
        "Restart=on-failure",
        "RestartSec=2s",
        "RestartPreventExitStatus=1 2",
    ]
