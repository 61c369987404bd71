"""A host without a library, though this one has it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from lab.namespaces import command


def hidden(tmp_path: Path, name: str) -> list[str]:
    """Shell commands that take the shared library ``name`` (``libbpf``) away, in a mount namespace."""
    listed = [
        line.rpartition("=> ")[2] for line in command(["ldconfig", "-p"]).stdout.splitlines() if f"{name}.so" in line
    ]
    steps = []
    for number, folder in enumerate(sorted({os.path.realpath(os.path.dirname(path)) for path in listed})):
        written = tmp_path / f"written{number}"  # in memory: an overlay cannot write to another, as a root may be
        written.mkdir()
        layers = f"lowerdir={folder},upperdir={written}/upper,workdir={written}/work"
        steps += [f"mount -t tmpfs netobs-test {shlex.quote(str(written))}"]
        steps += [f"mkdir {shlex.quote(str(written))}/upper {shlex.quote(str(written))}/work"]
        steps += [f"mount -t overlay -o {shlex.quote(layers)} netobs-test {shlex.quote(folder)}"]
        steps += [f"rm -f {shlex.quote(folder)}/{name}.so*"]
    return steps
