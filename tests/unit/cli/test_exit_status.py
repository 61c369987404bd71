"""The exit status of the command: packaging/systemd tries again, or does not, by it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.samples import golden_messages

ROOT = Path(__file__).resolve().parents[3]


def status(*arguments: str, stdout: str | int = os.devnull) -> tuple[int, str]:
    """The exit status, and what was said on standard error. ``stdout``: a path, or a descriptor, which is closed."""
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


def test_an_unexpected_error() -> None:
    code = "from netobs.cli.main import cli, main; cli.command('broken')(lambda: {}['nothing']); main()"
    done = subprocess.run([sys.executable, "-c", code, "broken"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == os.EX_SOFTWARE
    assert done.stderr.startswith("netobs ends because of an unexpected error\nTraceback")
    assert "KeyError" in done.stderr


COMMANDS = {
    "version": ["--version"],
    "templates": ["template", "list"],
    "flows": ["listen", "--file", "FILE"],
    "flows as JSON": ["listen", "--json", "--file", "FILE"],
    "odd": ["listen", "--check", "--file", "FILE"],
}


def command(name: str, folder: Path) -> list[str]:
    """One of ``COMMANDS``, with a file of flows."""
    file = folder / "flows.ipfix"
    file.write_bytes(b"".join(golden_messages()))
    return [str(file) if word == "FILE" else word for word in COMMANDS[name]]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line(name: str, tmp_path: Path) -> None:
    number, said = status(*command(name, tmp_path), stdout="/dev/full")
    *before, last = said.splitlines()
    assert (number, last) == (1, "netobs: standard output cannot be written: No space left on device")
    assert all(line.startswith("netobs listen: ") and "cannot be read" not in line for line in before)


@pytest.mark.parametrize("name", ["templates", "flows"])
def test_a_reader_that_has_gone_is_no_traceback(name: str, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    number, said = status(*command(name, tmp_path), stdout=write_end)
    assert number in (0, 1)
    assert all(line.startswith("netobs listen: ") for line in said.splitlines())


def test_the_unit_tries_again_after_all_but_mistakes() -> None:
    unit = (ROOT / "packaging/systemd/netobs.service").read_text(encoding="utf-8")
    assert re.findall(r"^Restart.*=.*$", unit, re.MULTILINE) == [
        "Restart=on-failure",
        "RestartSec=2s",
        "RestartPreventExitStatus=1 2",
    ]
