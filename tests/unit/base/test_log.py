"""What netobs says on standard error, by who reads it there: a person, or systemd's journal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MISTAKES = '[capture]\ndirection = "sideways"\nsampling = 0\n[[collector]]\nhost = "192.0.2.1"\n'


def said(tmp_path: Path, journal_stream: str) -> list[str]:
    """What a start with two mistakes in the configuration says; ``{}`` in ``journal_stream``: its standard error."""
    conf, errors = tmp_path / "netobs.toml", tmp_path / "errors"
    conf.write_text(MISTAKES, encoding="utf-8")
    with errors.open("wb") as file:
        state = os.fstat(file.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": journal_stream.format(f"{state.st_dev}:{state.st_ino}")}
        command = [sys.executable, "-m", "netobs", "--conf", str(conf)]
        done = subprocess.run(command, stderr=file, env=environment, check=False)
    assert done.returncode == 1
    return errors.read_text(encoding="utf-8").splitlines()


def test_mistakes_have_their_priority_in_the_journal(tmp_path: Path) -> None:
    lines = said(tmp_path, "{}")
    assert len(lines) == 2
    assert [line.partition(": ")[0] for line in lines] == [f"<3>{tmp_path}/netobs.toml"] * 2


@pytest.mark.parametrize("elsewhere", ["", "1:1", "no numbers"])
def test_a_terminal_in_a_session_of_systemd_is_no_journal(tmp_path: Path, elsewhere: str) -> None:
    lines = said(tmp_path, elsewhere)
    assert len(lines) == 2
    assert [line.partition("/")[0] for line in lines] == ["netobs: "] * 2


NAME = "eth\x1b[2J\x1cnetobs ready\x85\u2028x"
"""A name that an interface may have, or a line that a server sends, for a terminal and for ``splitlines``."""
SAYS = """
import logging, sys
from netobs.base import log
log.set_up("info")
name = sys.argv[1]
logging.getLogger("netobs").info("%s: attached", name)
logging.getLogger("netobs").info("two\\nlines")
try:
    raise ValueError(name + "\\nsecond")
except ValueError:
    logging.getLogger("netobs").exception("it failed")
log.complain("one " + name + "\\ntwo")
"""


@pytest.mark.parametrize("journal", [False, True])
def test_what_others_named_is_escaped(tmp_path: Path, journal: bool) -> None:
    errors = tmp_path / "errors"
    with errors.open("wb") as file:
        state = os.fstat(file.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{state.st_dev}:{state.st_ino}" if journal else ""}
        subprocess.run([sys.executable, "-c", SAYS, NAME], stderr=file, env=environment, check=True)
    lines = errors.read_bytes().decode().rstrip("\n").split("\n")
    escaped = r"eth\x1b[2J\x1cnetobs ready\x85\u2028x"
    assert lines[0].endswith(f"{escaped}: attached")
    assert lines[1].endswith(r"two\nlines")
    assert lines[-4].endswith(f"ValueError: {escaped}")
    assert (lines[-2], lines[-1]) == tuple(
        ("<3>" if journal else "netobs: ") + each for each in (f"one {escaped}", "two")
    )
    assert all(line.isprintable() and (line[0] == "<") is journal for line in lines if "File" not in line)
