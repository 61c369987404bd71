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
