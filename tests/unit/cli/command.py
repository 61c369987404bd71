"""The command line in this process: all but the start of an interpreter, which takes most of a short command's time."""

from __future__ import annotations

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from netobs.cli.main import main


def netobs(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``netobs ARGUMENTS``: its exit status, and what it said."""
    out, err, argv = io.StringIO(), io.StringIO(), [*map(str, arguments)]
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main(argv)
    assert isinstance(end.value.code, int)
    return subprocess.CompletedProcess(argv, end.value.code, out.getvalue(), err.getvalue())
