"""A host without a library, though this one has it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from tests.lab.namespaces import command


def hidden(tmp_path: Path, name: str) -> list[str]:
    """Shell commands that take the shared library ``name`` (``libbpf``) away, in a mount namespace."""
    listed = [
        line.rpartition("=> ")[2] for line in command(["ldconfig", "-p"]).stdout.splitlines() if f"{name}.so" in line
    ]
    steps = []
    for number, folder in enumerate(sorted({os.path.realpath(os.path.dirname(path)) for path in listed})):
        upper, work = tmp_path / f"upper{number}", tmp_path / f"work{number}"
        upper.mkdir()
        work.mkdir()
        layers = f"lowerdir={folder},upperdir={upper},workdir={work}"
        steps += [f"mount -t overlay -o {shlex.quote(layers)} netobs-test {shlex.quote(folder)}"]
        steps += [f"rm -f {shlex.quote(folder)}/{name}.so*"]
    return steps
